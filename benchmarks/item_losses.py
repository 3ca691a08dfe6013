"""Where the full softmax over items begins to cost more than it is worth: `python -m benchmarks.item_losses`.

Seconds of an epoch over the same events with catalogues of several sizes, for each loss, and what each learns of a
stream that can be learned: held-out NDCG@10 after the same number of epochs.
"""

import argparse
import json
import time

import msgspec
import numpy as np

from model.create import Create
from model.fusion import MODEL_ALONE
from model.histories import to_histories
from model.holdout import Holdout, cut
from model.settings import ModelSettings, RankingSettings, TrainingSettings, without_graph
from model.training import train
from model.vocabulary import Vocabulary
from state.events import EVENT, Records
from state.sequences import from_events
from state.settings import StateSettings

LOSSES = ("full", "sampled", "scalable")
NEAR, NEARNESS = 4, 0.8
"""An item is followed by one of this many, drawn anew for each catalogue, in so many of all steps."""


def walks(items: int, users: int, steps: int) -> Records:
    """Users walking over the catalogue: most steps go to a near item, the others anywhere."""
    draw = np.random.default_rng(0)
    near = draw.integers(0, items, (items, NEAR))
    at = draw.integers(0, items, users)
    events = np.zeros(users * steps, EVENT)
    for step in range(steps):
        onward = near[at, draw.integers(0, NEAR, users)]
        at = np.where(draw.random(users) < NEARNESS, onward, draw.integers(0, items, users))
        block = events[step * users : (step + 1) * users]
        block["user"], block["item"], block["ts"] = np.arange(users) + 1, at + 1, step * users + np.arange(users) + 1
    return events


def main() -> None:
    """A line for each catalogue and loss."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--items", type=int, nargs="+", default=[500, 1_500, 5_000, 20_000])
    parse.add_argument("--users", type=int, default=10_000)
    parse.add_argument("--steps", type=int, default=20)
    parse.add_argument("--epochs", type=int, default=6)
    parse.add_argument("--losses", nargs="+", default=list(LOSSES), choices=LOSSES)
    asked = parse.parse_args()
    for items in asked.items:
        sequences = from_events(walks(items, asked.users, asked.steps))
        past, held = cut(sequences, 2000)
        hashes = np.unique(sequences.steps["item"])
        vocabulary = Vocabulary(hashes, [str(h) for h in hashes])
        holdout = Holdout(past, held, StateSettings())
        for loss in asked.losses:
            settings = msgspec.structs.replace(without_graph(TrainingSettings()), loss=loss)
            model = Create(len(vocabulary), ModelSettings())
            started = time.monotonic()
            train(
                model, to_histories(past, vocabulary), settings,
                warm_up_epochs=0, epochs=asked.epochs, learning_rate=settings.learning_rate, seed=0, fresh=True,
            )  # fmt: skip
            seconds = (time.monotonic() - started) / asked.epochs
            found = holdout.scores(model, vocabulary, MODEL_ALONE, RankingSettings())
            line = {
                "items": items,
                "loss": loss,
                "epochs": asked.epochs,
                "epoch_s": round(seconds, 2),
                "ndcg@10": round(found["ndcg@10"], 4),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
