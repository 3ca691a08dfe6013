"""The phases of an epoch of CREATE and the peak memory of training: `python -m benchmarks.speed.epoch_profile`.

Each row runs in a separate process, so that its peak memory can be measured. Phases are timed from outside the training
loop, which adds a few percent. The rest is drawing negatives, clearing gradients and sums.
"""

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import torch

from benchmarks.quality.global_temporal import CREATE_TRAINING, MODEL_SETTINGS, SASREC_TRAINING, Settings, load
from benchmarks.speed.million_items import peak_bytes
from model.encoders.create import Create
from model.encoders.histories import to_histories
from model.encoders.lightgcn import DenseRows, LightGCN
from model.encoders.sasrec import SASRec
from model.encoders.ultragcn import LazyRows, UltraGCN
from model.learning import training
from model.losses.item_loss import item_loss
from model.settings import ModelSettings, TrainingSettings

LIGHTGCN = {"graph_encoder": "lightgcn"}
ROWS: dict[str, tuple[Settings, bool]] = {
    "SASRec": (SASREC_TRAINING, False),
    "CREATE, joint": (CREATE_TRAINING, False),
    "CREATE, warm-up": (CREATE_TRAINING, True),
    "CREATE, joint, LightGCN": (CREATE_TRAINING | LIGHTGCN, False),
    "CREATE, warm-up, LightGCN": (CREATE_TRAINING | LIGHTGCN, True),
}
PHASES: dict[str, tuple[tuple[object, str], ...]] = {
    "examples of the batch, packed": ((SASRec, "examples"), (training, "pack")),
    "graph built": ((training, "graph_encoder"),),
    "edges drawn": ((UltraGCN, "draw"), (LightGCN, "draw")),
    "item rows gathered": ((training, "gather_rows"),),
    "sequence encoder, forward": ((SASRec, "forward"),),
    "graph, forward": tuple((kind, method) for kind in (UltraGCN, LightGCN) for method in ("loss", "view")),
    "transfer loss": ((training, "transfer_loss"),),
    "backward": ((torch.Tensor, "backward"),),
    "optimisers": ((torch.optim.AdamW, "step"), (LazyRows, "step"), (DenseRows, "step")),
}
ITEM_LOSS = "loss over items, forward"


def timed(function: Callable[..., Any], phase: str, spent: dict[str, float]) -> Callable[..., Any]:
    """The same function, with its seconds added to a phase."""

    def call(*args: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*args, **named)
        finally:
            spent[phase] += time.perf_counter() - started

    return call


def measure_epochs(path: str, name: str, epochs: int) -> tuple[float, int, int, dict[str, float]]:
    """Seconds an epoch, peak memory of the process, its memory before training, and the share of each phase."""
    torch.set_num_threads(1)
    chosen, warm_up = ROWS[name]
    split = load(path)
    histories = to_histories(split.past, split.vocabulary)
    settings = msgspec.convert(chosen, TrainingSettings)
    schedule = training.Schedule(
        epochs=epochs * (not warm_up), learning_rate=1e-3, seed=0, warm_up_epochs=epochs * warm_up, from_scratch=True
    )

    def seconds() -> float:
        model = Create(len(split.vocabulary), msgspec.convert(MODEL_SETTINGS, ModelSettings))
        return training.train(model, histories, settings, schedule).seconds / epochs

    before = peak_bytes()
    plain, peak = seconds(), peak_bytes()
    spent: dict[str, float] = defaultdict(float)
    with ExitStack() as patched:
        for phase, functions in PHASES.items():
            for owner, method in functions:
                real = getattr(owner, method)
                patched.enter_context(mock.patch.object(owner, method, timed(real, phase, spent)))
        patched.enter_context(
            mock.patch.object(training, "item_loss", lambda *arguments: timed(item_loss(*arguments), ITEM_LOSS, spent))
        )
        whole = seconds()
    phases = {phase: took / epochs / whole for phase, took in spent.items()}
    return plain, peak, before, phases


def main() -> None:
    """Print seconds, memory and phases of SASRec, and of joint and warm-up epochs with both graph encoders."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--data", type=Path, default=Path(os.environ.get("ANABRANCH_DATASETS", "../shared/data")))
    parse.add_argument("--dataset", default="amazon-beauty")
    parse.add_argument("--epochs", type=int, default=3)
    arguments = parse.parse_args()
    path = str(arguments.data / f"{arguments.dataset}.csv.gz")
    for name in ROWS:
        with get_context("spawn").Pool(1) as process:
            took, most, before, phases = process.apply(measure_epochs, (path, name, arguments.epochs))
        print(f"{name}: {took:.2f} s an epoch; {most >> 20} MB at most, {before >> 20} MB before training")
        for phase, share in sorted({**phases, "the rest": 1 - sum(phases.values())}.items(), key=lambda p: -p[1]):
            print(f"  {100 * share:5.1f}%  {phase}")


if __name__ == "__main__":
    main()
