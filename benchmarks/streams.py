"""Learning period by period without forgetting, by ADER's protocol: `python -m benchmarks.streams --help`.

Train on periods up to t, test on every item after the first of t + 1's sessions: Recall@20 and MRR@20 among all items
met so far, mean over periods. Items that no period up to t has are left out, as ADER leaves them out. Rows of the paper
(Mi et al., RecSys 2020, table 3) stand beside ours. A JSON line a period goes to --out, the table to standard output.

    joint       from nothing on all periods so far
    finetune    from the version before on the new period alone
    replay      the same with sessions of old periods, drawn evenly, among those of the new one
    distil      replay, and the version before has a say on what was drawn (model/guard.py)
    slow        replay, and weights are the mean of those learned and those before
"""

import argparse
import csv
import gzip
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from model.create import Create
from model.guard import Guard
from model.histories import Histories
from model.metrics import ranks_of
from model.settings import ModelSettings, TrainingSettings
from model.training import train

PUBLISHED = {
    "diginetica": {"Finetune": (47.28, 16.01), "Joint": (50.03, 17.31), "ADER": (50.21, 17.32)},
    "yoochoose": {"Finetune": (71.86, 36.49), "Joint": (72.22, 36.65), "ADER": (72.38, 36.71)},
}
AT_ONCE = 128


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


def tests(sessions: Histories, known: int, most: int, seed: int) -> tuple[Histories, np.ndarray]:
    """Histories and what came next, at every step of up to `most` sessions; items not known are left out."""
    draw = np.random.default_rng(seed)
    rows = draw.permutation(len(sessions))[:most]
    before: list[list[int]] = []
    targets: list[int] = []
    for row in rows.tolist():
        items = sessions.items[sessions.indptr[row] : sessions.indptr[row + 1]]
        items = items[items <= known]
        for end in range(1, len(items)):
            before.append(items[:end].tolist())
            targets.append(int(items[end]))
    return ragged(before), np.array(targets)


def scores(model: Create, histories: Histories, targets: np.ndarray) -> dict[str, float]:
    """Recall@20 and MRR@20, in %."""
    ranks = []
    for start in range(0, len(targets), AT_ONCE):
        at = np.arange(start, min(start + AT_ONCE, len(targets)))
        said = model.encode(histories.take(at)) @ model.items.weight.detach().T
        said[:, 0] = -torch.inf
        ranks.append(ranks_of(said, torch.from_numpy(targets[at])))
    found = np.concatenate(ranks)
    hit = found < 20
    return {"recall@20": 100 * float(hit.mean()), "mrr@20": 100 * float(np.where(hit, 1 / (found + 1), 0).mean())}


def grown(model: Create, items: int) -> Create:
    """With rows drawn for items that are new."""
    new = items - model.item_count
    return model.grown(torch.randn(new, model.settings.dim) * model.settings.init_std)


def slowed(model: Create, before: Create) -> None:
    """Halfway back to the version before."""
    with torch.no_grad():
        for now, then in zip(model.parameters(), before.parameters(), strict=True):
            now.lerp_(then, 0.5)


def run(variant: str, periods: Periods, asked: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """One variant through all periods."""
    settings = TrainingSettings(loss="sampled", negatives=asked.negatives, max_train_s=1e9)
    draw, found, model = np.random.default_rng(seed), [], None
    for t in range(len(periods.sessions) - 1):
        started = time.process_time()
        torch.manual_seed(seed * 1000 + t)
        old, new = periods.sessions[:t], periods.sessions[t]
        if variant == "joint" or model is None:
            model = Create(periods.known[t], ModelSettings(dropout=asked.dropout))
            learned = together([*old, new])
            train(
                model, learned, settings, warm_up_epochs=settings.warm_up_epochs, epochs=asked.epochs,
                learning_rate=settings.learning_rate, seed=seed, fresh=True,
            )  # fmt: skip
        else:
            before = model
            model = grown(before, periods.known[t])
            replayed = together(old)
            rows = draw.choice(len(replayed), min(asked.replay, len(replayed)), replace=False)
            drawn = replayed.take(np.sort(rows))
            learned = new if variant == "finetune" else together([new, drawn])
            guard = None
            if variant == "distil":
                guard = Guard(before, drawn, asked.distil, model.item_count, len(learned))
            train(
                model, learned, settings, warm_up_epochs=settings.increment_warm_up_epochs,
                epochs=asked.increment_epochs, learning_rate=asked.learning_rate, seed=seed, fresh=False, guard=guard,
            )  # fmt: skip
            if variant == "slow":
                slowed(model, grown(before, periods.known[t]))
        spent = time.process_time() - started
        row = {"data": asked.data, "variant": variant, "seed": seed, "period": t, "cpu_s": round(spent, 1)}
        row |= scores(model, *tests(periods.sessions[t + 1], periods.known[t], asked.tests, seed))
        # Forgetting: the first period again.
        if t:
            first = scores(model, *tests(periods.sessions[0], periods.known[0], asked.tests, seed))
            row |= {f"first_{name}": value for name, value in first.items()}
        found.append(row)
        with asked.out.open("a") as out:
            out.write(json.dumps(row) + "\n")
    return found


def main() -> None:
    """Run what was asked for."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("folder", type=Path, help="where *-ader.csv.gz lie")
    parse.add_argument("--data", choices=PUBLISHED, default="diginetica")
    parse.add_argument("--variants", nargs="+", default=["finetune", "replay", "distil", "slow", "joint"])
    parse.add_argument("--periods", type=int, default=16)
    parse.add_argument("--share", type=float, default=1.0, help="of the sessions")
    parse.add_argument("--tests", type=int, default=10**9, help="sessions tested a period")
    parse.add_argument("--seeds", type=int, default=1)
    parse.add_argument("--epochs", type=int, default=12)
    parse.add_argument("--increment-epochs", type=int, default=6)
    parse.add_argument("--learning-rate", type=float, default=1e-3)
    parse.add_argument("--dropout", type=float, default=0.6)
    parse.add_argument("--negatives", type=int, default=512)
    parse.add_argument("--replay", type=int, default=10_000)
    parse.add_argument("--distil", type=float, default=1.0)
    parse.add_argument("--out", type=Path, default=Path("build/streams.jsonl"))
    asked = parse.parse_args()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    periods = read(asked.folder / f"{asked.data}-ader.csv.gz", asked.periods, asked.share, 0)
    print(f"{asked.data}: {len(periods.sessions) - 1} periods, {periods.known[-1]:,} items", flush=True)
    for variant in asked.variants:
        for seed in range(asked.seeds):
            rows = run(variant, periods, asked, seed)
            means = {k: float(np.mean([r[k] for r in rows])) for k in ("recall@20", "mrr@20", "cpu_s")}
            last = rows[-1].get("first_recall@20", rows[-1]["recall@20"])
            print(
                f"{variant:9} seed {seed}  Recall@20 {means['recall@20']:.2f}  MRR@20 {means['mrr@20']:.2f}  "
                f"{means['cpu_s']:.0f} s of processor a period  first period at the end {last:.2f}",
                flush=True,
            )
    for name, (recall, mrr) in PUBLISHED[asked.data].items():
        print(f"{name:9} published, 16 periods  Recall@20 {recall:.2f}  MRR@20 {mrr:.2f}")


if __name__ == "__main__":
    main()
