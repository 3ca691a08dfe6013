"""Why our SASRec stands above published figures: `python -m benchmarks.published_level`.

The file's order keeps the events of one user and day together as they were written down; many targets fall on the day
of the event before them. Our SASRec and one with common defaults are trained and tested on the file as it is and with
each user's equal times shuffled; and the same ranks are read with cold targets counted as misses, and without targets
of the day of the event before.
"""

import argparse
import json
import os
import time
from pathlib import Path

import msgspec
import numpy as np
import torch

from benchmarks.quality import ALONE, MODEL, VARIANTS, complain
from model.evaluation import SPLIT, OfModel, Split, as_events, ranked_tests, split
from model.fusion import MODEL_ALONE
from model.increment import learn
from model.metrics import gains
from model.settings import ModelSettings, RankingSettings, TrainingSettings
from state.events import Records
from state.settings import StateSettings
from stream.files import read_interactions

DAY_MS = 86_400_000
ORDERS = ("as in the file", "shuffled")


def shuffled(events: Records, seed: int) -> Records:
    """Events by time, those of equal times in random order."""
    mixed = np.random.default_rng(seed).permutation(events)
    return mixed[np.argsort(mixed["ts"], kind="stable")]


def read(cut: Split, filtered: np.ndarray) -> dict[str, float]:
    """NDCG@10 of last targets, in percent, by what is counted."""
    gained = gains(filtered)
    before = cut.tests.steps["ts"][cut.tests.indptr[1:] - 1]
    later = cut.ts - before >= DAY_MS
    users = np.unique(cut.tests.users)
    # A user whose newest event is cold has an older target in our tests; papers that keep it count a miss.
    newest = {int(user): int(item) for user, item in zip(cut.future["user"], cut.future["item"], strict=True)}
    # The type is named: of hashes on both sides of 2^63 numpy makes floats.
    newest_items = np.array([newest[int(user)] for user in users], np.uint64)
    cold = ~np.isin(newest_items, cut.vocabulary.hashes)
    last = cut.last
    warm_users = np.isin(cut.tests.users, users[~cold])
    return {
        "last": round(100 * float(gained[last].mean()), 2),
        "cold newest items missed": round(100 * float(gained[last & warm_users].sum() / len(users)), 2),
        "not of the day before": round(100 * float(gained[last & later].mean()), 2),
        "share of the day before": round(1 - float(later[last].mean()), 3),
    }


def main() -> None:
    """A line for each of four trainings."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--data", type=Path, default=Path(os.environ.get("ANABRANCH_DATASETS", "../shared/data")))
    parse.add_argument("--dataset", default="amazon-beauty")
    parse.add_argument("--orders", nargs="+", choices=ORDERS, default=ORDERS, help="of events with equal times")
    parse.add_argument("--seed", type=int, default=0)
    asked = parse.parse_args()
    torch.set_num_threads(1)
    interactions = read_interactions(str(asked.data / f"{asked.dataset}.csv.gz"), complain)
    events, names = as_events(*interactions)
    ranking, state = RankingSettings(), StateSettings()
    for order in asked.orders:
        cut = split(events if order != "shuffled" else shuffled(events, asked.seed), names, SPLIT, state)
        for settings, (of_model, of_training) in {
            "ours": ({}, ALONE), "common": VARIANTS["SASRec, common defaults"],
        }.items():  # fmt: skip
            started = time.process_time()
            trained = learn(
                None, None, cut.past, cut.names, cut.graph.rows,
                model=msgspec.convert(MODEL | of_model, ModelSettings), ranking=ranking, state=state, seed=asked.seed,
                training=msgspec.convert(of_training | {"max_train_s": 10_000.0}, TrainingSettings),
            )  # fmt: skip
            found = ranked_tests(cut, OfModel(cut, trained, MODEL_ALONE, ranking, live=False))["filtered"].ranks
            line = {"equal times": order, "settings": settings} | read(cut, found)
            print(json.dumps(line | {"cpu_s": round(time.process_time() - started)}), flush=True)


if __name__ == "__main__":
    main()
