"""Why our SASRec is above published figures: `python -m benchmarks.rivals.published_level`.

"Time to Split" (arXiv 2507.16289; its repository has the code and each figure) has the same split. It tests a model of
the first 81% of the events, without its validation data, and counts unknown targets as misses. In its file the events
of one day may be ordered by item. A model that learns such an order knows half of the possible next items.

So our SASRec, and one with common defaults, learn 90% or 81% of the events. Each user's events of equal time have the
order of our file, a random order, or the order of items. NDCG@10 is computed without unknown targets, with unknown
targets as misses, and without targets of the same day as the event before.
"""

import argparse
import json
import os
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch

from benchmarks.quality.global_temporal import VARIANTS, report_bad_line, train_before_split, without_time_limit
from model.evaluation.global_temporal import SPLIT_QUANTILE, ModelScorer, Split, ranked_tests, split_stream
from model.evaluation.recorded_stream import as_events
from model.metrics import gains
from model.ranking.fusion import MODEL_ONLY
from model.settings import RankingSettings
from state.events import Records
from state.settings import StateSettings
from stream.operate.event_files import read_interactions

DAY_MS = 86_400_000
ORDERS = ("as in the file", "shuffled", "by item")
LEARNED_SHARES = ("90%", "81%")
SETTINGS_VARIANTS = {"ours": "SASRec", "common": "SASRec, common defaults"}


def ordered_as(order: str, events: Records, seed: int) -> Records:
    """Events by time. Events of equal time are in this order."""
    if order == "by item":
        return events[np.lexsort((events["item"], events["ts"]))]
    if order == "shuffled":
        events = np.random.default_rng(seed).permutation(events)
    return events[np.argsort(events["ts"], kind="stable")]


def ndcg_by_targets(split: Split, filtered: np.ndarray) -> dict[str, float]:
    """NDCG@10 in percent, for several choices of the targets that count."""
    gained = gains(filtered)
    before = split.tests.steps["ts"][split.tests.indptr[1:] - 1]
    later = split.ts - before >= DAY_MS
    users = np.unique(split.tests.users)
    # If the item of a user's newest event is unknown, our last target is an older event. Papers count a miss.
    newest = {int(user): int(item) for user, item in zip(split.future["user"], split.future["item"], strict=True)}
    # Explicit uint64: numpy converts hashes on both sides of 2^63 to floats.
    newest_items = np.array([newest[int(user)] for user in users], np.uint64)
    cold = ~np.isin(newest_items, split.vocabulary.hashes)
    last = split.last
    warm_users = np.isin(split.tests.users, users[~cold])
    return {
        "last": round(100 * float(gained[last].mean()), 2),
        "last, cold missed": round(100 * float(gained[last & warm_users].sum() / len(users)), 2),
        "last, not of the same day": round(100 * float(gained[last & later].mean()), 2),
        "share of the same day": round(1 - float(later[last].mean()), 3),
        "successive": round(100 * float(gained.mean()), 2),
        "successive, cold missed": round(100 * float(gained.sum()) / (len(gained) + split.cold), 2),
    }


def main() -> None:
    """Print a line for each training."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--data", type=Path, default=Path(os.environ.get("ANABRANCH_DATASETS", "../shared/data")))
    parse.add_argument("--dataset", default="amazon-beauty")
    parse.add_argument("--orders", nargs="+", choices=ORDERS, default=ORDERS, help="of events with equal times")
    parse.add_argument("--learned", nargs="+", choices=LEARNED_SHARES, default=LEARNED_SHARES, help="of all events")
    parse.add_argument("--settings", nargs="+", choices=SETTINGS_VARIANTS, default=list(SETTINGS_VARIANTS))
    parse.add_argument("--seed", type=int, default=0)
    arguments = parse.parse_args()
    torch.set_num_threads(1)
    interactions = read_interactions(str(arguments.data / f"{arguments.dataset}.csv.gz"), report_bad_line)
    events, names = as_events(*interactions)
    state = StateSettings()
    for order in arguments.orders:
        ordered = ordered_as(order, events, arguments.seed)
        split = split_stream(ordered, names, SPLIT_QUANTILE, state)
        before_the_tests = ordered[ordered["ts"] <= np.quantile(ordered["ts"], SPLIT_QUANTILE)]
        parts = {"90%": split, "81%": split_stream(before_the_tests, names, SPLIT_QUANTILE, state)}
        for share, settings in product(arguments.learned, arguments.settings):
            of_model, of_training = VARIANTS[SETTINGS_VARIANTS[settings]]
            started = time.process_time()
            trained = train_before_split(parts[share], of_model, without_time_limit(of_training), arguments.seed)
            found = ranked_tests(split, ModelScorer(split, trained, MODEL_ONLY, RankingSettings(), live=False))
            line = {"equal times": order, "learned": share, "settings": settings} | ndcg_by_targets(
                split, found["filtered"].ranks
            )
            print(json.dumps(line | {"cpu_s": round(time.process_time() - started)}), flush=True)


if __name__ == "__main__":
    main()
