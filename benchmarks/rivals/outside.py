"""Other implementations on our splits, ranked by our harness: RecTools' SASRec and implicit's ALS.

    make bench-rivals      in a separate environment, because RecTools needs an older numpy

Each trains on the events before the split and recommends for each test's history. Its lists become ranks like ours.
RecTools' epochs alternate with ours, so that both times are measured in one run. RecTools stops when it no longer
improves on the tests themselves, which favours it. Then our model trains longer and longer until it is as good.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import torch

from benchmarks.quality.global_temporal import FOR_SECONDS, MODEL_SETTINGS, SASREC_TRAINING, Job, load, run, scores
from model.encoders.create import Create
from model.encoders.histories import Histories, to_histories
from model.evaluation.global_temporal import Split
from model.learning.training import Schedule, train
from model.metrics import Ranks
from model.settings import ModelSettings, TrainingSettings

LIST_LENGTH = 100
"""Length of the lists. The metrics need 20."""
MAIN_COLUMN = "successive, filtered"
"""The figure by which settings and epochs are compared."""
ALS_SETTINGS = tuple(
    {"factors": f, "regularization": r, "alpha": a}
    for f in (64, 128, 256)
    for r in (0.01, 0.1)
    for a in (1.0, 10.0, 40.0)
)


def ranks_of_lists(lists: np.ndarray, histories: Histories, targets: np.ndarray) -> dict[str, Ranks]:
    """Ranks of targets in lists [T, K], best first and padded with 0.

    A list must be long enough to drop seen items.
    """
    unfiltered, filtered = np.full(len(targets), 10**9), np.full(len(targets), 10**9)
    for test, (row, target) in enumerate(zip(lists, targets.tolist(), strict=True)):
        at = np.flatnonzero(row == target)
        if len(at):
            seen = np.isin(row[: at[0]], histories.items[histories.indptr[test] : histories.indptr[test + 1]])
            unfiltered[test], filtered[test] = at[0], at[0] - seen.sum()
    return {"unfiltered": unfiltered, "filtered": filtered}


def rectools(split: Split, settings: dict[str, Any], epochs: int) -> Iterator[dict[str, Any]]:
    """For each epoch of RecTools: its seconds, the seconds of an epoch of ours, and its ranks."""
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    past = to_histories(split.past, split.vocabulary)
    tests = to_histories(split.tests, split.vocabulary)

    def table(histories: Histories) -> Any:
        users = histories.users
        when = np.datetime64("2020-01-01", "s") + np.arange(len(users))  # RecTools uses the order only
        columns = {Columns.User: users, Columns.Item: histories.items, Columns.Weight: 1.0, Columns.Datetime: when}
        return Dataset.construct(pd.DataFrame(columns))

    torch.manual_seed(0)
    model = SASRecModel(**settings, epochs=epochs)
    dataset, test_dataset = table(past), table(tests)
    ours = our_epochs(split)
    for epoch in range(1, epochs + 1):
        started = time.monotonic()
        model.fit_partial(dataset, min_epochs=1, max_epochs=1)
        theirs_s, ours_s = time.monotonic() - started, next(ours)
        # RecTools gives no list to users without trained items. Their targets count as misses.
        found = model.recommend(
            users=np.arange(len(tests)), dataset=test_dataset, k=LIST_LENGTH + settings["session_max_len"],
            filter_viewed=False, on_unsupported_targets="ignore",
        )  # fmt: skip
        lists = np.zeros((len(tests), LIST_LENGTH + settings["session_max_len"]), np.int64)
        lists[found[Columns.User], found[Columns.Rank] - 1] = found[Columns.Item]
        ranks = ranks_of_lists(lists, tests, split.targets.numpy())
        yield {"epoch": epoch, "epoch_s": theirs_s, "ours_epoch_s": ours_s, "ranks": ranks}


def our_epochs(split: Split) -> Iterator[float]:
    """Train our SASRec. Each value is the seconds of one more epoch."""
    settings = msgspec.convert(SASREC_TRAINING | {"threads": torch.get_num_threads()}, TrainingSettings)
    net = Create(len(split.vocabulary), msgspec.convert(MODEL_SETTINGS, ModelSettings))
    histories = to_histories(split.past, split.vocabulary)
    while True:
        spent = train(net, histories, settings, Schedule(epochs=1, learning_rate=1e-3, seed=0))
        yield spent.seconds


def als(split: Split, settings: dict[str, Any]) -> tuple[float, dict[str, Ranks]]:
    """Seconds of training, and ranks. User factors are computed from the histories."""
    import scipy.sparse as sp
    from implicit.als import AlternatingLeastSquares

    def matrix(histories: Histories) -> sp.csr_matrix:
        users = histories.users
        shape = (len(histories), len(split.vocabulary) + 1)
        return sp.csr_matrix((np.ones(len(users), np.float32), (users, histories.items)), shape=shape)

    tests = to_histories(split.tests, split.vocabulary)
    model = AlternatingLeastSquares(**settings, iterations=20, random_state=0, num_threads=torch.get_num_threads())
    started = time.monotonic()
    model.fit(matrix(to_histories(split.past, split.vocabulary)), show_progress=False)
    seconds = time.monotonic() - started
    rows = np.arange(len(tests))
    lists, _ = model.recommend(
        rows, matrix(tests), N=2 * LIST_LENGTH, filter_already_liked_items=False, recalculate_user=True
    )
    return seconds, ranks_of_lists(lists, tests, split.targets.numpy())


def main() -> None:
    """Print a line for each setting and epoch."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--data", type=Path, default=Path(os.environ.get("ANABRANCH_DATASETS", "../shared/data")))
    parse.add_argument("--dataset", default="amazon-beauty")
    parse.add_argument("--epochs", type=int, default=40, help="of RecTools' SASRec, at most")
    parse.add_argument("--patience", type=int, default=3, help="epochs without a better NDCG@10 until it stops")
    parse.add_argument("--factors", type=int, default=256, help="of RecTools' SASRec; 256 is its default")
    parse.add_argument("--session-events", type=int, default=50, help="newest events of a user that RecTools reads")
    parse.add_argument("--without-als", action="store_true")
    parse.add_argument("--threads", type=int, default=1)
    parse.add_argument("--out", type=Path, default=Path("build/outside"))
    arguments = parse.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = str(arguments.data / f"{arguments.dataset}.csv.gz")
    split = load(path)

    def record(line: dict[str, Any], ranks: dict[str, Ranks]) -> float:
        line["scores"] = scores(ranks, split.last)
        print(json.dumps(line), flush=True)
        with (arguments.out / f"{arguments.dataset}.jsonl").open("a") as lines:
            lines.write(json.dumps(line) + "\n")
        return float(line["scores"][MAIN_COLUMN]["ndcg@10"])

    for settings in () if arguments.without_als else ALS_SETTINGS:
        seconds, ranks = als(split, settings)
        record({"rival": "implicit ALS"} | settings | {"train_s": round(seconds, 1)}, ranks)
    settings = {"n_factors": arguments.factors, "session_max_len": arguments.session_events}
    best, best_epoch, theirs_s, best_s = 0.0, 0, 0.0, 0.0
    for done in rectools(split, settings, arguments.epochs):
        theirs_s += done["epoch_s"]
        times = {key: round(done[key], 2) for key in ("epoch_s", "ours_epoch_s")}
        found = record({"rival": "RecTools SASRec", "epoch": done["epoch"]} | settings | times, done["ranks"])
        if found > best:
            best, best_epoch, best_s = found, done["epoch"], theirs_s
        elif done["epoch"] >= best_epoch + arguments.patience:
            break
    for seconds in FOR_SECONDS:
        variant = f"SASRec, {seconds} s"
        outcome = run(Job(path, variant, 0, validation=False))
        ranks = {seen: ranked.ranks for seen, ranked in outcome.tested[variant].items()}
        if record({"ours": variant, "train_s": outcome.facts["train_s"]}, ranks) >= best:
            ratio = best_s / outcome.facts["train_s"]
            print(f"RecTools' best, {100 * best:.2f}%, took {best_epoch} epochs, {best_s:.0f} s: {ratio:.0f} x ours")
            break


if __name__ == "__main__":
    main()
