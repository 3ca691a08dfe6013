"""Where an epoch of CREATE goes, and the most memory it takes: `python -m benchmarks.epoch_profile`."""

import argparse
import os
from pathlib import Path

import msgspec
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.million_items import peak_bytes
from benchmarks.quality import ALONE, MODEL, TOGETHER, load
from model.create import Create
from model.histories import to_histories
from model.settings import ModelSettings, TrainingSettings
from model.training import train

ROWS = 12
LIGHTGCN = {"graph_encoder": "lightgcn"}


def main() -> None:
    """SASRec, the joint epoch and the warm-up with either graph: seconds an epoch, then the costliest operations."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--data", type=Path, default=Path(os.environ.get("ANABRANCH_DATASETS", "../shared/data")))
    parse.add_argument("--dataset", default="amazon-beauty")
    parse.add_argument("--epochs", type=int, default=3)
    asked = parse.parse_args()
    torch.set_num_threads(1)
    cut = load(str(asked.data / f"{asked.dataset}.csv.gz"))
    histories = to_histories(cut.past, cut.vocabulary)
    before = peak_bytes()
    for name, chosen, warm_up_epochs, epochs in (
        ("SASRec", ALONE, 0, asked.epochs),
        ("CREATE, joint", TOGETHER, 0, asked.epochs),
        ("CREATE, warm-up", TOGETHER, asked.epochs, 0),
        ("CREATE, joint, LightGCN", TOGETHER | LIGHTGCN, 0, asked.epochs),
        ("CREATE, warm-up, LightGCN", TOGETHER | LIGHTGCN, asked.epochs, 0),
    ):
        settings = msgspec.convert(chosen, TrainingSettings)
        model = Create(len(cut.vocabulary), msgspec.convert(MODEL, ModelSettings))
        asked_of = {"warm_up_epochs": warm_up_epochs, "epochs": epochs, "learning_rate": 1e-3, "seed": 0}
        spent = train(model, histories, settings, fresh=True, **asked_of)  # type: ignore[arg-type]
        print(f"\n{name}: {spent.seconds / asked.epochs:.2f} s an epoch; peak so far {peak_bytes() >> 20} MB "
              f"({before >> 20} MB before)")  # fmt: skip
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            train(model, histories, settings, fresh=True, **asked_of)  # type: ignore[arg-type]
        found = sorted(profiled.key_averages(), key=lambda f: -f.self_cpu_time_total)
        total = sum(f.self_cpu_time_total for f in found)
        for operation in found[:ROWS]:
            print(f"  {100 * operation.self_cpu_time_total / total:5.1f}%  {operation.count:8,} x  {operation.key}")


if __name__ == "__main__":
    main()
