"""Learning period by period without forgetting, by ADER's protocol: `python -m benchmarks.quality.periods --help`.

A model learns from periods up to t. Every item after the first of each session of t + 1 is a test. The figures are
Recall@20 and MRR@20 among all items known so far, means over periods. Tests drop items that are in no period up to t,
as in ADER. Each period adds a JSON line to --out. `python -m benchmarks.quality.periods_report` prints the tables, with
rows of the paper (Mi et al., RecSys 2020, arXiv 2007.12000, table 3). Seconds are processor time of learning.

    joint         train from scratch on all periods so far
    finetune      continue from the previous version, on the new period only
    replay        finetune, with a random sample of old sessions, spread over the epochs
    distil        replay, with the previous version's scores as a target (benchmarks/ablations/distillation.py)
    ader          finetune, with the previous version's scores on old sessions as a target: ADER's loss
    slow          replay, then the mean of the new weights and the previous ones
    transitions   how often an item followed the newest item within five steps; needs no training
    item-knn      cosine of items over the sessions that contain both; needs no training

`live_*` adds the live graph, as in serving (benchmarks/quality/session_graph.py). Its weights are chosen by the
product's code on the previous test, never on the test itself. `first_*` tests period 0 again. `strict_*` and
`streaming_*` are the two readings of variant `ranker`; its first weights are chosen within period 0.

An increment starts a new item's row at the mean of the items in its sessions. It trains on the sequence encoder's loss
only: the graph's warm-up and the transfer loss are part of the first version.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import scipy.sparse as sp
import torch

from benchmarks.ablations.distillation import Distillation, adaptive
from benchmarks.quality.period_ranker import PeriodRanker
from benchmarks.quality.period_sessions import Periods, concatenate, read_periods, sessions_to_test
from benchmarks.quality.period_tests import evaluate_alone, evaluate_model, evaluate_scorer
from benchmarks.quality.session_graph import SETTINGS, STATE, SessionGraph, pairs
from model.encoders.create import Create
from model.encoders.histories import Histories
from model.evaluation.live_rivals import ITEM_KNN_AGE_DECAY
from model.evaluation.rivals import item_knn, transitions
from model.learning.experiment import Experiment
from model.learning.training import Schedule, train
from model.ranker.learning import RING_EXAMPLES
from model.ranking import sources
from model.ranking.fusion import MODEL_ONLY, Fusion
from model.settings import ModelSettings, TrainingSettings, without_graph

PUBLISHED = {
    "diginetica": {"Finetune": (47.28, 16.01), "Joint": (50.03, 17.31), "ADER": (50.21, 17.32)},
    "yoochoose": {"Finetune": (71.86, 36.49), "Joint": (72.22, 36.65), "ADER": (72.38, 36.71)},
}
LEARNED_VARIANTS = ("joint", "finetune", "replay", "distil", "ader", "slow", "ranker")
UNTRAINED_VARIANTS = ("transitions", "item-knn")
FIRST_PART = 0.8
"""Share of the first period's sessions that a model learns for the first ranker's examples, which are of the others."""
PERIOD_S = {"diginetica": 7 * 86_400.0, "yoochoose": 86_400.0}
RECORDED_ARGUMENTS = (
    "share",
    "epochs",
    "increment_epochs",
    "increment_learning_rate",
    "dropout",
    "replay",
    "row_length",
    "dim",
    "distil",
    "no_graph",
)
"""Arguments that every line of the output repeats."""
RANKER_ARGUMENTS = ("examples", "ranker_epochs", "encoder_items")
"""Those of variant `ranker`."""


def add_new_items(model: Create, items: int, new: Histories) -> Create:
    """The model with rows for new items: the mean of the known items in their sessions, or random if there are none."""
    known, count = model.item_count + 1, items - model.item_count
    after = pairs(new, items)
    co_occurring = (after + after.T).tocsr()[known:, :known]
    share = sp.diags(1 / np.maximum(np.asarray(co_occurring.sum(1)).ravel(), 1e-9)) @ co_occurring
    mean_rows = torch.from_numpy((share @ model.items.weight.detach().numpy()).astype(np.float32))
    random_rows = torch.randn(count, model.settings.dim) * model.settings.init_std
    has_neighbours = torch.from_numpy(np.diff(co_occurring.indptr) > 0)
    return model.grown(torch.where(has_neighbours[:, None], mean_rows, random_rows))


def average_with_previous(model: Create, before: Create) -> None:
    """Move the weights halfway back to the previous version, except the rows of new items."""
    with torch.no_grad():
        old = slice(0, before.item_count + 1)
        for now, then in zip(model.sequence.parameters(), before.sequence.parameters(), strict=True):
            now.lerp_(then, 0.5)
        model.items.weight[old].lerp_(before.items.weight[old], 0.5)


def increment(
    variant: str, before: Create, old: Histories, new: Histories, known: int, arguments: argparse.Namespace, seed: int
) -> Create:
    """The next version, trained on the new period."""
    model = add_new_items(before, known, new)
    rows = np.random.default_rng(seed).choice(len(old), min(arguments.replay, len(old)), replace=False)
    drawn = old.take(np.sort(rows))
    learned = new if variant in ("finetune", "ader") else concatenate([new, drawn])
    experiment = Experiment(once=np.arange(len(new), len(learned)))
    if variant in ("distil", "ader"):
        weight = adaptive(arguments.distil, before.item_count, known, len(drawn), len(new))
        distillation = Distillation(before, drawn, np.arange(1, before.item_count + 1), weight, len(learned))
        experiment = experiment._replace(extra_loss=distillation.loss)
    train(
        model, learned, without_graph(training(arguments)),
        Schedule(epochs=arguments.increment_epochs, learning_rate=arguments.increment_learning_rate, seed=seed),
        experiment=experiment,
    )  # fmt: skip
    if variant == "slow":
        average_with_previous(model, before)
    return model


def first_version(sessions: Histories, known: int, arguments: argparse.Namespace, seed: int) -> Create:
    """A version trained from scratch on these sessions of `known` items."""
    settings = training(arguments)
    model = Create(known, ModelSettings(dropout=arguments.dropout, dim=arguments.dim, row_length=arguments.row_length))
    schedule = Schedule(
        epochs=arguments.epochs, learning_rate=arguments.learning_rate, seed=seed,
        warm_up_epochs=settings.warm_up_epochs, from_scratch=True,
    )  # fmt: skip
    train(model, sessions, settings, schedule)
    return model


def first_ranker(periods: Periods, arguments: argparse.Namespace, seed: int) -> tuple[PeriodRanker, Fusion]:
    """A ranker and fusion weights from the first period: a model learns its first part, and ranks the rest."""
    halves, period_s = periods.first_in_two(FIRST_PART), PERIOD_S[arguments.data]
    earlier, known = halves.sessions[0], halves.known[0]
    model = first_version(earlier, known, arguments, seed)
    tested = sessions_to_test(halves.sessions[1], known, arguments.tests, 0)
    fusion = evaluate_model(model, tested, SessionGraph.of([earlier], known, period_s), MODEL_ONLY).fusion
    sources.ENCODER_ITEMS = arguments.encoder_items
    ranker = PeriodRanker(STATE, SETTINGS, seed, arguments.examples, arguments.ranker_epochs)
    ranker.learn_graph(earlier)
    ranker.test(model, fusion, halves.sessions[1], tested)
    return ranker, fusion


def training(arguments: argparse.Namespace) -> TrainingSettings:
    """The product's training settings, with those of the command line."""
    settings = TrainingSettings(loss="sampled", negatives=arguments.negatives, lazy_items=0, max_train_s=1e9)
    return without_graph(settings) if arguments.no_graph else settings


def run(
    variant: str,
    periods: Periods,
    arguments: argparse.Namespace,
    seed: int,
    first_versions: dict[int, tuple[Create, float]],
) -> list[dict[str, Any]]:
    """Run one variant through all periods. `first_versions` caches period 0's versions, which the variants share."""
    found: list[dict[str, Any]] = []
    model, fusion, ranker, ranker_s = None, MODEL_ONLY, None, 0.0
    about: dict[str, Any] = {}
    if variant == "ranker":
        about = {key: getattr(arguments, key) for key in RANKER_ARGUMENTS}
        started = time.process_time()
        torch.manual_seed(seed)
        ranker, fusion = first_ranker(periods, arguments, seed)
        ranker_s = time.process_time() - started
    for t in range(len(periods.sessions) - 1):
        started = time.process_time()
        torch.manual_seed(seed * 1000 + t)
        old, new, known = periods.sessions[:t], periods.sessions[t], periods.known[t]
        test = sessions_to_test(periods.sessions[t + 1], known, arguments.tests, 0)
        row = {"data": arguments.data, "variant": variant, "seed": seed, "period": t}
        row |= {key: getattr(arguments, key) for key in RECORDED_ARGUMENTS} | about
        if variant in UNTRAINED_VARIANTS:
            counted = (
                transitions(concatenate([*old, new]), known, STATE.pair_window_events, 0.0)
                if variant == "transitions"
                else None
            )
            scorer = counted or item_knn(concatenate([*old, new]), known, ITEM_KNN_AGE_DECAY)
            row["cpu_s"] = round(time.process_time() - started, 1)
            row["recall@20"], row["mrr@20"] = evaluate_scorer(scorer, test)
        elif variant == "joint" and arguments.joint and t not in arguments.joint:
            continue
        else:
            if variant != "joint" and model is None and seed in first_versions:
                model, row["cpu_s"] = first_versions[seed]
            elif variant == "joint" or model is None:
                model = first_version(concatenate([*old, new]), known, arguments, seed)
            else:
                model = increment(variant, model, concatenate(old), new, known, arguments, seed * 1000 + t)
            row.setdefault("cpu_s", round(time.process_time() - started, 1))
            if not t:
                first_versions[seed] = model, row["cpu_s"]
            row["tests"] = int((test.lengths - 1).sum())
            result = evaluate_model(model, test, SessionGraph.of([*old, new], known, PERIOD_S[arguments.data]), fusion)
            row["recall@20"], row["mrr@20"] = result.alone
            row["live_recall@20"], row["live_mrr@20"] = result.live
            row["fusion"] = {name: round(weight, 3) for name, weight in msgspec.to_builtins(fusion).items()}
            if ranker is not None:
                for name, reading in ranker.test(model, fusion, periods.sessions[t + 1], test).items():
                    row |= {f"{name}_{figure}": value for figure, value in reading.figures().items()}
                row["first_ranker_cpu_s"], ranker_s = ranker_s, 0.0
            fusion = result.fusion
            # Forgetting shows on the first period, tested again.
            first = sessions_to_test(periods.sessions[0], periods.known[0], min(arguments.tests, 1000), 0)
            row["first_recall@20"], row["first_mrr@20"] = evaluate_alone(model, first)
        found.append(row)
        with arguments.out.open("a") as out:
            out.write(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}) + "\n")
    return found


def main() -> None:
    """Run the variants, print a line for each and the published rows."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--datasets", type=Path, default=Path(os.environ.get("ANABRANCH_DATASETS", "../shared/data")))
    parse.add_argument("--data", choices=PUBLISHED, default="diginetica")
    parse.add_argument(
        "--variants",
        nargs="+",
        choices=LEARNED_VARIANTS + UNTRAINED_VARIANTS,
        default=["item-knn", "transitions", "finetune", "replay", "distil", "joint"],
    )
    parse.add_argument("--periods", type=int, default=16)
    parse.add_argument("--share", type=float, default=1.0, help="share of the sessions, sampled uniformly")
    parse.add_argument("--tests", type=int, default=10**9, help="sessions to test in each period")
    parse.add_argument("--joint", type=int, nargs="*", help="periods in which joint is trained; default: all")
    parse.add_argument("--seeds", type=int, default=1)
    parse.add_argument("--epochs", type=int, default=12)
    parse.add_argument("--learning-rate", type=float, default=4e-3)
    parse.add_argument("--increment-epochs", type=int, default=4)
    parse.add_argument("--increment-learning-rate", type=float, default=6e-3)
    parse.add_argument("--dropout", type=float, default=0.5)
    parse.add_argument("--dim", type=int, default=64)
    parse.add_argument("--row-length", type=float, default=1.2)
    parse.add_argument("--negatives", type=int, default=512)
    parse.add_argument("--no-graph", action="store_true", help="leave out the graph's warm-up and the transfer loss")
    parse.add_argument(
        "--replay", type=int, default=80_000, help="old sessions in an increment, each in one of its epochs"
    )
    parse.add_argument("--examples", type=int, default=RING_EXAMPLES, help="newest examples that the ranker keeps")
    parse.add_argument("--ranker-epochs", type=int, default=4, help="over these examples, after each period")
    parse.add_argument("--encoder-items", type=int, default=100, help="candidate items that the encoder proposes")
    parse.add_argument("--distil", type=float, default=1.0)
    parse.add_argument("--out", type=Path, default=Path("build/periods.jsonl"))
    arguments = parse.parse_args()
    file = arguments.datasets / f"{arguments.data}-ader.csv.gz"
    if not file.exists():
        parse.error(f"data set {file} not found: set --datasets or ANABRANCH_DATASETS to the folder of the data sets")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    periods = read_periods(file, arguments.periods, arguments.share, 0)
    print(f"{arguments.data}: {len(periods.sessions) - 1} periods, {periods.known[-1]:,} items", flush=True)
    first_versions: dict[int, tuple[Create, float]] = {}
    for variant in arguments.variants:
        for seed in range(1 if variant in UNTRAINED_VARIANTS else arguments.seeds):
            rows = run(variant, periods, arguments, seed, first_versions)
            print(f"{variant:11} seed {seed}  {summary_line(rows)}", flush=True)
    for name, (recall, mrr) in PUBLISHED[arguments.data].items():
        print(f"{name:9} published, 16 periods  Recall@20 {recall:.2f}  MRR@20 {mrr:.2f}")


def summary_line(rows: list[dict[str, Any]]) -> str:
    """The means over periods, as a line of text."""
    text = "  ".join(
        f"{label} {np.mean([r[key] for r in rows]):.2f}"
        for label, key in {
            "Recall@20": "recall@20", "MRR@20": "mrr@20", "+ live graph": "live_recall@20", "/": "live_mrr@20",
        }.items()
        if key in rows[0]
    )  # fmt: skip
    text += f"  {sum(r['cpu_s'] for r in rows):.0f} s of CPU"
    first = rows[-1].get("first_recall@20")
    return text if first is None else f"{text}  period 0 at the end {first:.2f}"


if __name__ == "__main__":
    main()
