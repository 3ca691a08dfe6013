"""Peak memory and seconds of training a first version over a million items: `python -m
benchmarks.speed.million_items`."""

import argparse
import json
import resource
import time

import numpy as np
import torch

from benchmarks.ablations.scalable_cross_entropy import scalable
from model.learning.cycle import CycleInput, CycleSettings, run_cycle
from model.learning.experiment import NO_EXPERIMENT, Experiment
from model.learning.training import trains_lazily
from model.settings import ModelSettings, RankingSettings, TrainingSettings
from state.events import make_events
from state.graph import MemoryGraph
from state.sequences import from_events
from state.settings import StateSettings

STEPS_PER_USER = 10


def peak_bytes() -> int:
    """The peak memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Train one warm-up epoch, one joint epoch, the fusion weights and a last epoch. Print the figures as JSON."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--items", type=int, default=1_000_000)
    parse.add_argument("--users", type=int, default=120_000)
    parse.add_argument("--loss", choices=("sampled", "scalable"), default="sampled")
    parse.add_argument("--lazy-items", type=int, default=TrainingSettings().lazy_items)
    parse.add_argument("--holdout-events", type=int, default=500)
    arguments = parse.parse_args()
    draw = np.random.default_rng(0)
    n = np.arange(arguments.users * STEPS_PER_USER)
    items = 1 + draw.permutation(len(n)) % arguments.items  # every item occurs
    users = np.tile(np.arange(1, arguments.users + 1), STEPS_PER_USER)
    events = make_events(users, items, ts=1_600_000_000_000 + n * 1000)
    sequences = from_events(events)
    names = {item: str(item) for item in np.unique(events["item"]).tolist()}
    before = peak_bytes()
    started = time.monotonic()
    training = TrainingSettings(
        warm_up_epochs=1, epochs=1, last_epochs=1, loss="sampled", holdout_events=arguments.holdout_events,
        lazy_items=arguments.lazy_items,
    )  # fmt: skip
    trained = run_cycle(
        None,
        CycleInput(sequences, names, MemoryGraph(StateSettings()).rows, seed=0),
        CycleSettings(ModelSettings(), training, RankingSettings(), StateSettings(neighbours_per_item=8)),
        experiment=Experiment(item_loss=scalable()) if arguments.loss == "scalable" else NO_EXPERIMENT,
    )
    found = {
        "items": len(trained.vocabulary),
        "events": len(events),
        "loss": arguments.loss,
        "peak_mb": {"before": before >> 20, "learned": peak_bytes() >> 20},
        "table_mb": trained.model.items.weight.numel() * 4 >> 20,
        "seconds": round(time.monotonic() - started, 1),
        "lazy": trains_lazily(training, arguments.items),
        "warm_up_and_joint_s": round(trained.metrics["train_s"], 1),
        "last_s": round(trained.metrics["last_s"], 1),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
