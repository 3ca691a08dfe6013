"""The catalogue size above which the full softmax costs too much: `python -m benchmarks.ablations.item_losses`.

Trains each loss on the same events, with catalogues of several sizes. Prints processor seconds of an epoch and NDCG@10
on held-out events after the same number of epochs. The sampled softmax is also trained for as long as the full one.
"""

import argparse
import json
import time
from typing import Any

import msgspec
import numpy as np

from benchmarks.ablations.scalable_cross_entropy import scalable
from model.encoders.create import Create
from model.encoders.histories import to_histories
from model.encoders.vocabulary import Vocabulary
from model.fusion_weights.holdout import Holdout, split_holdout
from model.learning.experiment import NO_EXPERIMENT, Experiment
from model.learning.training import Schedule, train
from model.ranking.fusion import MODEL_ONLY
from model.settings import ModelSettings, RankingSettings, TrainingSettings, without_graph
from state.events import EVENT, Records
from state.sequences import from_events
from state.settings import StateSettings

LOSSES = ("full", "sampled", "scalable")
FOLLOWERS, FOLLOWER_SHARE = 4, 0.8
"""Each item has this many random followers, and this share of all steps goes to one of them."""


def random_walks(items: int, users: int, steps: int) -> Records:
    """Random walks over the catalogue: most steps go to a follower, the others to any item."""
    draw = np.random.default_rng(0)
    near = draw.integers(0, items, (items, FOLLOWERS))
    at = draw.integers(0, items, users)
    events = np.zeros(users * steps, EVENT)
    for step in range(steps):
        onward = near[at, draw.integers(0, FOLLOWERS, users)]
        at = np.where(draw.random(users) < FOLLOWER_SHARE, onward, draw.integers(0, items, users))
        block = events[step * users : (step + 1) * users]
        block["user"], block["item"], block["ts"] = np.arange(users) + 1, at + 1, step * users + np.arange(users) + 1
    return events


class Catalogue:
    """The events of one catalogue, and its holdout."""

    def __init__(self, items: int, users: int, steps: int) -> None:
        sequences = from_events(random_walks(items, users, steps))
        past, held = split_holdout(sequences, 2000)
        hashes = np.unique(sequences.steps["item"])
        self._items, self._vocabulary = items, Vocabulary(hashes, [str(h) for h in hashes])
        self._past, self._holdout = to_histories(past, self._vocabulary), Holdout(past, held, StateSettings())

    def measure(self, loss: str, epochs: int) -> dict[str, Any]:
        """Seconds of an epoch and NDCG@10 after these epochs."""
        settings = msgspec.structs.replace(
            without_graph(TrainingSettings()), loss="full" if loss == "full" else "sampled"
        )
        experiment = Experiment(item_loss=scalable()) if loss == "scalable" else NO_EXPERIMENT
        model = Create(len(self._vocabulary), ModelSettings())
        started = time.process_time()
        train(
            model, self._past, settings,
            Schedule(epochs=epochs, learning_rate=settings.learning_rate, seed=0, from_scratch=True),
            experiment=experiment,
        )  # fmt: skip
        seconds = (time.process_time() - started) / epochs
        found = self._holdout.scores(model, self._vocabulary, MODEL_ONLY, RankingSettings())
        line = {"items": self._items, "loss": loss, "epochs": epochs, "epoch_s": round(seconds, 2)}
        return line | {"ndcg@10": round(found["ndcg@10"], 4)}


def main() -> None:
    """Print a line for each catalogue and loss."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--items", type=int, nargs="+", default=[500, 1_500, 5_000])
    parse.add_argument("--users", type=int, default=10_000)
    parse.add_argument("--steps", type=int, default=20)
    parse.add_argument("--epochs", type=int, default=6)
    parse.add_argument("--losses", nargs="+", default=list(LOSSES), choices=LOSSES)
    arguments = parse.parse_args()
    Catalogue(50, 200, arguments.steps).measure("full", 1)  # a first training, so that no measurement includes imports
    for items in arguments.items:
        catalogue, epoch_s = Catalogue(items, arguments.users, arguments.steps), {}
        for loss in arguments.losses:
            found = catalogue.measure(loss, arguments.epochs)
            epoch_s[loss] = found["epoch_s"]
            print(json.dumps(found), flush=True)
        if {"full", "sampled"} <= epoch_s.keys():
            as_long = round(arguments.epochs * epoch_s["full"] / epoch_s["sampled"])
            print(json.dumps(catalogue.measure("sampled", as_long)), flush=True)


if __name__ == "__main__":
    main()
