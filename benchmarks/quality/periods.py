"""Learning period by period without forgetting, by ADER's protocol: `python -m benchmarks.quality.periods --help`.

Learn from periods up to t, test on every item after the first of t + 1's sessions: Recall@20 and MRR@20 among all items
met so far, mean over periods. Items that no period up to t has are taken out of the tests, as ADER does. Rows of the
paper (Mi et al., RecSys 2020, arXiv 2007.12000, table 3) stand beside ours. A JSON line a period goes to --out, the
table to standard output. Seconds are of the processor, for learning alone: a busy machine does not change them.

    joint         from nothing on all periods so far
    finetune      from the version before on the new period alone
    replay        the same with sessions of old periods, drawn evenly, among those of the new one: each epoch has others
    distil        replay, and the version before has a say on what was drawn (benchmarks/ablations/distillation.py)
    ader          the version before has a say on what was drawn, which is not learned otherwise: ADER's loss
    slow          replay, and weights are the mean of those learned and those before
    transitions   how often an item followed the newest one, within five steps; nothing is trained
    item-knn      cosine of items over the sessions that had both; nothing is trained

`live_*` is the model with the words of the live graph added, as serving adds them
(benchmarks/quality/session_graph.py). Their
weights are those chosen on the test before, by the product's own code, so nothing is chosen on what it is measured on.
`first_*` is period 0 again.

An increment begins a new item's row at the mean of those it stands beside, and learns the sequence encoder's loss
alone: the graph's warm-up and the transfer loss are of the first version.
"""

import argparse
import csv
import gzip
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from benchmarks.ablations.distillation import Distillation, adaptive
from benchmarks.quality.session_graph import STATE, Fused, SessionGraph, chosen, pairs
from model.encoders.create import Create
from model.encoders.histories import Histories, pack
from model.evaluation.live_rivals import AGE_DECAY
from model.evaluation.rivals import HistoryScorer, item_knn, transitions
from model.learning.experiment import Experiment
from model.learning.training import Schedule, train
from model.ranking.fusion import MODEL_ONLY, Fusion
from model.settings import ModelSettings, TrainingSettings, without_graph

PUBLISHED = {
    "diginetica": {"Finetune": (47.28, 16.01), "Joint": (50.03, 17.31), "ADER": (50.21, 17.32)},
    "yoochoose": {"Finetune": (71.86, 36.49), "Joint": (72.22, 36.65), "ADER": (72.38, 36.71)},
}
LEARNED = ("joint", "finetune", "replay", "distil", "ader", "slow")
COUNTED = ("transitions", "item-knn")
AT_ONCE = 256
PERIOD_S = {"diginetica": 7 * 86_400.0, "yoochoose": 86_400.0}
RECORDED = (
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
"""Arguments that stand in every line of the output."""


class Periods(NamedTuple):
    """Sessions of each period; items are numbered in the order they are met, from 1."""

    sessions: list[Histories]
    known: list[int]
    """Items met up to the end of each period."""


def read(file: Path, periods: int, share: float, seed: int) -> Periods:
    """The first periods and one more, of a share of the sessions."""
    of: list[dict[str, list[int]]] = [{} for _ in range(periods + 1)]
    with gzip.open(file, "rt") as text:
        for user, item, _, period in list(csv.reader(text))[1:]:
            if int(period) <= periods:
                of[int(period)].setdefault(user, []).append(int(item))
    draw, index, sessions, known = np.random.default_rng(seed), dict[int, int](), [], []
    for found in of:
        kept = [s for s in found.values() if len(s) > 1 and draw.random() < share]
        numbered = [[index.setdefault(item, len(index) + 1) for item in session] for session in kept]
        sessions.append(ragged(numbered))
        known.append(len(index))
    return Periods(sessions, known)


def ragged(sessions: list[list[int]]) -> Histories:
    """Lists as histories."""
    lengths = np.array([len(s) for s in sessions], np.int64)
    return Histories(
        np.concatenate([[0], np.cumsum(lengths)]), np.array([item for s in sessions for item in s], np.int64)
    )


def together(parts: list[Histories]) -> Histories:
    """Sessions of several periods."""
    lengths = np.concatenate([p.lengths for p in parts])
    return Histories(np.concatenate([[0], np.cumsum(lengths)]), np.concatenate([p.items for p in parts]))


def tested(sessions: Histories, known: int, most: int, seed: int) -> Histories:
    """Up to `most` sessions without the items that are not known; two items and more are left of each."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(sessions))[:most])
    drawn = sessions.take(rows)
    met = drawn.items <= known
    kept = Histories(np.concatenate([[0], np.cumsum(met)])[drawn.indptr], drawn.items[met])
    return kept.take(np.flatnonzero(kept.lengths > 1))


class Test(NamedTuple):
    """Every step after the first of some sessions: what came before it, and it."""

    before: Histories
    targets: np.ndarray

    @classmethod
    def of(cls, sessions: Histories) -> "Test":
        """All of them, session after session."""
        rows = [sessions.items[a:b].tolist() for a, b in zip(sessions.indptr[:-1], sessions.indptr[1:], strict=True)]
        before = ragged([row[:end] for row in rows for end in range(1, len(row))])
        return cls(before, np.array([item for row in rows for item in row[1:]], np.int64))


@torch.no_grad()
def encodings(model: Create, sessions: Histories) -> Tensor:
    """h of every step's past, session after session; a causal encoder reads each session once."""
    limit, made = model.settings.sequence_events, []
    if sessions.lengths.max(initial=0) > limit + 1:  # the newest of a longer past stand at other places
        before = Test.of(sessions).before
        return torch.cat([model.encode(before.take(at)) for at in blocks(len(before))])
    model.eval()
    for at in blocks(len(sessions)):
        examples = model.sequence.examples(sessions.take(at), limit, np.random.default_rng())
        packed = pack(examples.inputs)
        encoded = model.sequence(model.items(packed.items), packed)
        made.append(encoded[packed.tokens[torch.from_numpy(examples.predicted)]])
    return torch.cat(made)


def blocks(count: int) -> list[np.ndarray]:
    """Row numbers, AT_ONCE at a time."""
    return [np.arange(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]


def places(scores: Tensor, targets: Tensor) -> np.ndarray:
    """How many items score as high as the target or higher, padding and the target itself apart."""
    own = scores.gather(1, targets[:, None])
    found: np.ndarray = (scores[:, 1:] >= own).sum(1).numpy() - 1
    return found


def quality(ranks: np.ndarray) -> tuple[float, float]:
    """Recall@20 and MRR@20, in %."""
    hit = ranks < 20
    return 100 * float(hit.mean()), 100 * float(np.where(hit, 1 / (ranks + 1), 0).mean())


class Tried(NamedTuple):
    """Recall and MRR of a model on a test."""

    alone: tuple[float, float]
    live: tuple[float, float]
    """With the live graph."""
    fusion: Fusion
    """The weights that would have been best."""


def of_model(model: Create, sessions: Histories, graph: SessionGraph, fusion: Fusion) -> Tried:
    """What the model finds alone, and with the graph's words weighed so."""
    test, encoded, table = Test.of(sessions), encodings(model, sessions), model.items.weight.detach().T
    fused, by_model, by_both = Fused(graph, fusion), [], []
    for at in blocks(len(test.targets)):
        scores, targets = encoded[at] @ table, torch.from_numpy(test.targets[at])
        by_model.append(places(scores, targets))
        by_both.append(places(fused.scores(scores, test.before.take(at)), targets))
    best = chosen(graph, encoded, table, test.before, test.targets, fusion)
    return Tried(quality(np.concatenate(by_model)), quality(np.concatenate(by_both)), best)


def alone(model: Create, sessions: Histories) -> tuple[float, float]:
    """What the model finds."""
    test, encoded, table = Test.of(sessions), encodings(model, sessions), model.items.weight.detach().T
    found = [places(encoded[at] @ table, torch.from_numpy(test.targets[at])) for at in blocks(len(test.targets))]
    return quality(np.concatenate(found))


def of_counts(scorer: HistoryScorer, sessions: Histories) -> tuple[float, float]:
    """Recall and MRR of what was counted."""
    test = Test.of(sessions)
    ranks = [
        places(scorer(test.before.take(at)), torch.from_numpy(test.targets[at])) for at in blocks(len(test.targets))
    ]
    return quality(np.concatenate(ranks))


def grown(model: Create, items: int, new: Histories) -> Create:
    """With rows for items that are new: the mean of those that they stand beside, or drawn where none is known."""
    known, count = model.item_count + 1, items - model.item_count
    after = pairs(new, items)
    beside = (after + after.T).tocsr()[known:, :known]
    share = sp.diags(1 / np.maximum(np.asarray(beside.sum(1)).ravel(), 1e-9)) @ beside
    made = torch.from_numpy((share @ model.items.weight.detach().numpy()).astype(np.float32))
    drawn = torch.randn(count, model.settings.dim) * model.settings.init_std
    placed = torch.from_numpy(np.diff(beside.indptr) > 0)
    return model.grown(torch.where(placed[:, None], made, drawn))


def slowed(model: Create, before: Create) -> None:
    """Halfway back to the version before, but for items that are new."""
    with torch.no_grad():
        old = slice(0, before.item_count + 1)
        for now, then in zip(model.sequence.parameters(), before.sequence.parameters(), strict=True):
            now.lerp_(then, 0.5)
        model.items.weight[old].lerp_(before.items.weight[old], 0.5)


def increment(
    variant: str, before: Create, old: Histories, new: Histories, known: int, asked: argparse.Namespace, seed: int
) -> Create:
    """The version after, learned from the new period."""
    model = grown(before, known, new)
    rows = np.random.default_rng(seed).choice(len(old), min(asked.replay, len(old)), replace=False)
    drawn = old.take(np.sort(rows))
    learned = new if variant in ("finetune", "ader") else together([new, drawn])
    experiment = Experiment(once=np.arange(len(new), len(learned)))
    if variant in ("distil", "ader"):
        weight = adaptive(asked.distil, before.item_count, known, len(drawn), len(new))
        distillation = Distillation(before, drawn, np.arange(1, before.item_count + 1), weight, len(learned))
        experiment = experiment._replace(extra_loss=distillation.loss)
    train(
        model, learned, without_graph(training(asked)),
        Schedule(epochs=asked.increment_epochs, learning_rate=asked.increment_learning_rate, seed=seed),
        experiment=experiment,
    )  # fmt: skip
    if variant == "slow":
        slowed(model, before)
    return model


def training(asked: argparse.Namespace) -> TrainingSettings:
    """The product's settings but for what was asked for."""
    settings = TrainingSettings(loss="sampled", negatives=asked.negatives, lazy_items=0, max_train_s=1e9)
    return without_graph(settings) if asked.no_graph else settings


def run(
    variant: str, periods: Periods, asked: argparse.Namespace, seed: int, firsts: dict[int, tuple[Create, float]]
) -> list[dict[str, Any]]:
    """One variant through all periods; `firsts` keeps the versions of period 0, which are the same for all variants."""
    found: list[dict[str, Any]] = []
    model, fusion = None, MODEL_ONLY
    for t in range(len(periods.sessions) - 1):
        started = time.process_time()
        torch.manual_seed(seed * 1000 + t)
        old, new, known = periods.sessions[:t], periods.sessions[t], periods.known[t]
        test = tested(periods.sessions[t + 1], known, asked.tests, 0)
        row = {"data": asked.data, "variant": variant, "seed": seed, "period": t}
        row |= {key: getattr(asked, key) for key in RECORDED}
        if variant in COUNTED:
            counted = (
                transitions(together([*old, new]), known, STATE.pair_window_events, 0.0)
                if variant == "transitions"
                else None
            )
            scorer = counted or item_knn(together([*old, new]), known, AGE_DECAY)
            row["cpu_s"] = round(time.process_time() - started, 1)
            row["recall@20"], row["mrr@20"] = of_counts(scorer, test)
        elif variant == "joint" and asked.joint and t not in asked.joint:
            continue
        else:
            if variant != "joint" and model is None and seed in firsts:
                model, row["cpu_s"] = firsts[seed]
            elif variant == "joint" or model is None:
                settings, learned = training(asked), together([*old, new])
                model = Create(known, ModelSettings(dropout=asked.dropout, dim=asked.dim, row_length=asked.row_length))
                train(
                    model, learned, settings,
                    Schedule(
                        epochs=asked.epochs, learning_rate=asked.learning_rate, seed=seed,
                        warm_up_epochs=settings.warm_up_epochs, from_scratch=True,
                    ),
                )  # fmt: skip
            else:
                model = increment(variant, model, together(old), new, known, asked, seed * 1000 + t)
            row.setdefault("cpu_s", round(time.process_time() - started, 1))
            if not t:
                firsts[seed] = model, row["cpu_s"]
            row["tests"] = int((test.lengths - 1).sum())
            tried = of_model(model, test, SessionGraph.of([*old, new], known, PERIOD_S[asked.data]), fusion)
            row["recall@20"], row["mrr@20"] = tried.alone
            row["live_recall@20"], row["live_mrr@20"] = tried.live
            row["fusion"] = {name: round(weight, 3) for name, weight in msgspec.to_builtins(fusion).items()}
            fusion = tried.fusion
            # Forgetting: the first period again.
            first = tested(periods.sessions[0], periods.known[0], min(asked.tests, 1000), 0)
            row["first_recall@20"], row["first_mrr@20"] = alone(model, first)
        found.append(row)
        with asked.out.open("a") as out:
            out.write(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}) + "\n")
    return found


def main() -> None:
    """Run what was asked for."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--datasets", type=Path, default=Path(os.environ.get("ANABRANCH_DATASETS", "../shared/data")))
    parse.add_argument("--data", choices=PUBLISHED, default="diginetica")
    parse.add_argument(
        "--variants",
        nargs="+",
        choices=LEARNED + COUNTED,
        default=["item-knn", "transitions", "finetune", "replay", "distil", "joint"],
    )
    parse.add_argument("--periods", type=int, default=16)
    parse.add_argument("--share", type=float, default=1.0, help="of the sessions")
    parse.add_argument("--tests", type=int, default=10**9, help="sessions tested a period")
    parse.add_argument("--joint", type=int, nargs="*", help="periods up to which joint is learned; default: all")
    parse.add_argument("--seeds", type=int, default=1)
    parse.add_argument("--epochs", type=int, default=12)
    parse.add_argument("--learning-rate", type=float, default=4e-3)
    parse.add_argument("--increment-epochs", type=int, default=4)
    parse.add_argument("--increment-learning-rate", type=float, default=6e-3)
    parse.add_argument("--dropout", type=float, default=0.5)
    parse.add_argument("--dim", type=int, default=64)
    parse.add_argument("--row-length", type=float, default=1.2)
    parse.add_argument("--negatives", type=int, default=512)
    parse.add_argument("--no-graph", action="store_true", help="no warm-up on the graph and no transfer loss")
    parse.add_argument(
        "--replay", type=int, default=80_000, help="old sessions, each learned in one epoch of an increment"
    )
    parse.add_argument("--distil", type=float, default=1.0)
    parse.add_argument("--out", type=Path, default=Path("build/periods.jsonl"))
    asked = parse.parse_args()
    file = asked.datasets / f"{asked.data}-ader.csv.gz"
    if not file.exists():
        parse.error(f"no {file}: name the folder of the data sets with --datasets or ANABRANCH_DATASETS")
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    periods = read(file, asked.periods, asked.share, 0)
    print(f"{asked.data}: {len(periods.sessions) - 1} periods, {periods.known[-1]:,} items", flush=True)
    firsts: dict[int, tuple[Create, float]] = {}
    for variant in asked.variants:
        for seed in range(1 if variant in COUNTED else asked.seeds):
            rows = run(variant, periods, asked, seed, firsts)
            print(f"{variant:11} seed {seed}  {told(rows)}", flush=True)
    for name, (recall, mrr) in PUBLISHED[asked.data].items():
        print(f"{name:9} published, 16 periods  Recall@20 {recall:.2f}  MRR@20 {mrr:.2f}")


def told(rows: list[dict[str, Any]]) -> str:
    """Means over periods, in a line."""
    text = "  ".join(
        f"{label} {np.mean([r[key] for r in rows]):.2f}"
        for label, key in {
            "Recall@20": "recall@20", "MRR@20": "mrr@20", "+ live graph": "live_recall@20", "/": "live_mrr@20",
        }.items()
        if key in rows[0]
    )  # fmt: skip
    text += f"  {sum(r['cpu_s'] for r in rows):.0f} s of processor"
    first = rows[-1].get("first_recall@20")
    return text if first is None else f"{text}  period 0 at the end {first:.2f}"


if __name__ == "__main__":
    main()
