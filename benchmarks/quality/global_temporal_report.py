"""Tables of what `benchmarks.quality.global_temporal` measured: `python -m benchmarks.quality.global_temporal_report
[FOLDER] [DATA] [--validation]`.

NDCG@10 in percent, mean ± standard deviation over seeds. Leads have a 95% interval from a bootstrap over users and
seeds. The ranks of FOLDER and the data sets in DATA are needed for the intervals.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.global_temporal import (
    FOR_SECONDS,
    GRAPH_ALONE,
    RETUNED,
    SEEDS,
    SERVED,
    SHORT_EVENTS,
    VARIANTS,
    load,
)
from benchmarks.quality.rank_archive import RankArchive
from model.metrics import gains, lead

METRIC_COLUMNS = ("last, filtered", "successive, filtered", "last, unfiltered", "successive, unfiltered")
MAIN_COLUMN = "successive, filtered"
BASELINES = ("SASRec", "SASRec + live graph")
LIVE_SUFFIX = " + live graph"
GRAPH_ONLY = "live graph alone"
ROWS_BY_PART = ("SASRec", "CREATE", "SASRec + live graph", "CREATE + live graph", GRAPH_ONLY, "item-kNN")
"""Rows of the tables that group tests by user and item."""
PUBLISHED = {
    "amazon-beauty": {
        "SASRec in CREATE's paper": ("1.87", ""),
        "UltraGCN in CREATE's paper": ("0.97", ""),
        "CREATE in its paper": ("2.15", ""),
        'SASRec in "Time to Split" (RecSys \'25)': ("2.40", "2.78"),
    },
    "amazon-sports": {
        "SASRec in CREATE's paper": ("1.48", ""),
        "CREATE in its paper": ("1.58", ""),
        'SASRec in "Time to Split" (RecSys \'25)': ("2.18", "3.01"),
    },
}
"""Published NDCG@10 of last and of successive events. Each paper has its own protocol."""
OUTSIDE_RESULTS = Path("benchmarks/results/outside")
"""Results of `benchmarks.rivals.outside`."""


def row(cells: list[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def headed(head: list[str]) -> list[str]:
    """The first two rows of a Markdown table."""
    return [row(head), "|" + "---|" * len(head)]


def mean_of_seeds(values: Collection[float]) -> str:
    """Mean ± standard deviation, as text."""
    spread = f" ± {np.std(list(values), ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(list(values)):.2f}{spread}"


def epochs(variant: str) -> tuple[int, int]:
    """Epochs of the warm-up and of joint training. `benchmarks.speed.epoch_profile` prints the seconds of one."""
    name = (
        variant.replace(" as served", LIVE_SUFFIX).replace(" + graph as at the split", LIVE_SUFFIX).split(LIVE_SUFFIX)
    )
    known = {**{n: training for n, (_, training) in VARIANTS.items()}, **SERVED, **GRAPH_ALONE}
    training = known[name[0] if len(name) == 1 else name[0] + LIVE_SUFFIX]
    joint = 0 if variant in GRAPH_ALONE else training["epochs"] + training["last_epochs"]
    return training["warm_up_epochs"], joint


def trained_for(name: str, seconds: int) -> str:
    """The variant trained for about this long. The default variant has no suffix."""
    return variant if (variant := f"{name}, {seconds} s") in VARIANTS else name


class Measured:
    """The results on one data set."""

    def __init__(self, folder: Path, data: Path, dataset: str, *, validation: bool) -> None:
        self.dataset, self._validation = dataset, validation
        self._archive = RankArchive(folder, dataset)
        newest = {}
        for line in (folder / f"{dataset}.jsonl").read_text().splitlines():
            found = json.loads(line)
            newest[found["variant"], found["seed"]] = found
        self.runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for (variant, _), found in sorted(newest.items()):
            self.runs[variant].append(found)
        self.split = load(str(data / f"{dataset}.csv.gz"), validation=validation)

    def ranks(self, variant: str, column: str, seeds: Iterable[int]) -> list[np.ndarray]:
        """The ranks of these seeds. Untrained variants have the same ranks for every seed."""
        target, seen = column.split(", ")
        chosen = self.split.last if target == "last" else np.ones(len(self.split.last), bool)
        own = [seed if self.trained(variant) else 0 for seed in seeds]
        return [self._archive.ranks((variant, seed), seen).astype(np.int64)[chosen] for seed in own]

    def trained(self, variant: str) -> bool:
        """Whether the variant is trained, so that its figures depend on the seed."""
        return "train_s" in self.runs[variant][0]

    def seeds(self, variant: str) -> set[int]:
        """The seeds of the variant's runs."""
        return {run["seed"] for run in self.runs[variant]}

    def against(self, variant: str, over: str, column: str, mask: np.ndarray | None = None) -> str:
        """The lead over another variant with its interval, for seeds that both have and tests where `mask` is true."""
        if variant not in self.runs or over not in self.runs or variant == over:
            return ""
        seeds = sorted(self.seeds(over) & self.seeds(variant) if self.trained(variant) else self.seeds(over))
        if not seeds:
            return ""
        users = self.split.tests.users
        who = users[self.split.last] if column.startswith("last") else users
        mine, theirs = (np.stack(self.ranks(name, column, seeds)) for name in (variant, over))
        if mask is not None:
            who, mine, theirs = who[mask], mine[:, mask], theirs[:, mask]
        middle, low, high = lead(mine, theirs, who)
        return f"{100 * middle:+.1f}% [{100 * low:+.1f}, {100 * high:+.1f}]"

    def mean(self, variant: str, column: str, metric: str = "ndcg@10") -> str:
        """A metric in percent, mean ± standard deviation over seeds."""
        return mean_of_seeds([100 * run["scores"][column][metric] for run in self.runs[variant]])

    def variants(self) -> Iterator[str]:
        """The table of all variants, except those of the table of equal times."""
        tests, last, cold = len(self.split.last), int(self.split.last.sum()), self.split.cold
        yield f"### {self.dataset}: {tests:,} tests, {last:,} last, {cold:,} cold left out\n"
        over = [f"over {o}, {MAIN_COLUMN}" for o in BASELINES]
        more = ["Recall@10", "Recall@20", "MRR", "coverage@10", "popularity bias"]
        yield from headed(["variant", *METRIC_COLUMNS, "epochs", "trained s", "an epoch s", "parameters", *over, *more])
        for variant, found in sorted(
            self.runs.items(), key=lambda r: -np.mean([f["scores"][MAIN_COLUMN]["ndcg@10"] for f in r[1]])
        ):
            if any(variant.endswith(f", {seconds} s") for seconds in FOR_SECONDS):
                continue
            trained = self.trained(variant) and variant != GRAPH_ONLY
            few = f" ({len(found)} seed{'s' * (len(found) > 1)})" if trained and len(found) < SEEDS else ""
            cells = [variant + few]
            cells += [self.mean(variant, column) for column in METRIC_COLUMNS]
            cells.append("{} + {}".format(*epochs(variant)) if trained else "-")
            seconds = np.median([f["train_s"] for f in found]) if trained else 0.0
            cells += [f"{seconds:.0f}", f"{seconds / sum(epochs(variant)):.1f}"] if trained else ["-", "-"]
            cells.append(f"{found[0]['parameters']:,}" if trained else "-")
            cells += [self.against(variant, o, MAIN_COLUMN) for o in BASELINES]
            cells += [self.mean(variant, MAIN_COLUMN, metric) for metric in ("recall@10", "recall@20", "mrr")]
            breadth = [f["breadth"]["filtered"] for f in found]
            cells += [f"{np.mean([b[key] for b in breadth]):.2f}" for key in ("coverage@10", "popularity_bias")]
            yield row(cells)
        if not self._validation:
            yield from self.others()

    def others(self) -> Iterator[str]:
        """Rows of other implementations, at their best settings on the tests, and published figures."""
        if (measured := OUTSIDE_RESULTS / f"{self.dataset}.jsonl").exists():
            found = [json.loads(line) for line in measured.read_text().splitlines()]
            for name in ("RecTools SASRec", "implicit ALS"):
                tried = [f for f in found if f.get("rival") == name]
                best = max(tried, key=lambda f: float(f["scores"][MAIN_COLUMN]["ndcg@10"]))
                spent = ["-", f"{best.get('train_s', 0.0):.0f}", "-"]
                if "epoch" in best:
                    each = [f["epoch_s"] for f in tried if f["epoch"] <= best["epoch"]]
                    spent = [f"0 + {best['epoch']}", f"{sum(each):.0f}", f"{np.median(each):.1f}"]
                cells = [f"{100 * best['scores'][column]['ndcg@10']:.2f}" for column in METRIC_COLUMNS]
                broad = [
                    f"{100 * best['scores'][MAIN_COLUMN][metric]:.2f}" for metric in ("recall@10", "recall@20", "mrr")
                ]
                yield row([f"{name}, best on the tests (1 run)", *cells, *spent, "", "", "", *broad, "", ""])
        for name, (last, successive) in PUBLISHED.get(self.dataset, {}).items():
            yield row([f"{name}, a protocol of its own", last, successive, *[""] * 13])

    def leads(self) -> Iterator[str]:
        """The table of leads, for last and successive targets, with seen items filtered and unfiltered."""
        pairs = (
            ("CREATE", "SASRec"),
            ("CREATE, 160 s", "SASRec, 160 s"),
            ("CREATE, 160 s", "CREATE"),
            ("CREATE, d=128", "SASRec, d=128"),
            ("CREATE, d=128", "SASRec"),
            ("SASRec, init 0.02", "SASRec"),
            ("SASRec, init 0.3", "SASRec"),
            ("CREATE" + LIVE_SUFFIX, "SASRec"),
            ("CREATE" + LIVE_SUFFIX, "SASRec" + LIVE_SUFFIX),
            ("CREATE + graph as at the split", "SASRec + graph as at the split"),
            ("CREATE" + LIVE_SUFFIX, GRAPH_ONLY),
            ("CREATE", "CREATE, no transfer"),
            ("CREATE, InfoNCE", "CREATE, no transfer"),
            ("CREATE, LightGCN", "CREATE, LightGCN, no transfer"),
            ("CREATE, LightGCN, InfoNCE", "CREATE, LightGCN, no transfer"),
            ("CREATE, LightGCN", "CREATE"),
            ("CREATE, item rows", "CREATE"),
            ("CREATE, joint graph loss", "CREATE"),
            ("CREATE, joint graph loss", "CREATE, joint graph loss, no transfer"),
            ("CREATE, joint graph loss, InfoNCE", "CREATE, joint graph loss, no transfer"),
            ("CREATE, degree weights", "CREATE"),
            ("CREATE, graph half-life 180 days", "CREATE"),
            (f"CREATE, {RETUNED}", "CREATE"),
            (f"CREATE, {RETUNED}", f"SASRec, {RETUNED}"),
        )
        yield from headed(["", *METRIC_COLUMNS])
        for variant, over in pairs:
            if variant in self.runs and over in self.runs:
                yield row(
                    [f"{variant} over {over}", *(self.against(variant, over, column) for column in METRIC_COLUMNS)]
                )

    def parts(self) -> Iterator[str]:
        """The table of NDCG@10 by the user's history and the item's popularity and age. Empty groups are left out."""
        split = self.split
        length = np.diff(split.tests.indptr)
        item, steps = split.targets.numpy(), split.past.steps
        known = split.vocabulary.lookup(steps["item"])
        clicks = np.bincount(known, minlength=len(split.vocabulary) + 1)[item]
        first = np.full(len(split.vocabulary) + 1, np.iinfo(np.int64).max)
        np.minimum.at(first, known, steps["ts"])
        age_days = (split.ts - first[item]) / 86_400_000
        waited_days = (split.ts - split.tests.steps["ts"][split.tests.indptr[1:] - 1]) / 86_400_000
        parts = {
            "history ≤ 5": length <= 5, "6 to 20": (length > 5) & (length <= 20), "> 20": length > 20,
            "item clicked ≤ 10 times": clicks <= 10, "11 to 50": (clicks > 10) & (clicks <= 50), "> 50": clicks > 50,
            "item known ≤ 180 days": age_days <= 180, "to 2 years": (age_days > 180) & (age_days <= 730),
            "longer": age_days > 730, "same day as the event before": waited_days == 0, "later": waited_days > 0,
        }  # fmt: skip
        parts = {name: at for name, at in parts.items() if at.any()}
        yield from headed(["successive, filtered", *(f"{name} ({int(at.sum()):,})" for name, at in parts.items())])
        for variant in ROWS_BY_PART:
            if variant in self.runs:
                seeds = self.seeds(variant)
                gained = np.stack([gains(ranks) for ranks in self.ranks(variant, MAIN_COLUMN, seeds)])
                cells = [100 * gained[:, at].mean(1) for at in parts.values()]
                yield row([variant, *map(mean_of_seeds, cells)])
        for variant, over in (("CREATE", "SASRec"), ("CREATE" + LIVE_SUFFIX, "SASRec" + LIVE_SUFFIX)):
            if variant in self.runs and over in self.runs:
                by_part = (self.against(variant, over, MAIN_COLUMN, at) for at in parts.values())
                yield row([f"{variant} over {over}", *by_part])

    def equal_times(self) -> Iterator[str]:
        """The table of NDCG@10 after about the same seconds of training."""
        if f"SASRec, {min(FOR_SECONDS)} s" not in self.runs:
            return
        yield from headed([f"{MAIN_COLUMN}, after about", *(f"{seconds} s" for seconds in FOR_SECONDS)])
        for name in ("SASRec", "CREATE"):
            at = [trained_for(name, seconds) for seconds in FOR_SECONDS]
            yield row(
                [
                    name,
                    *(
                        "{} ({} + {})".format(self.mean(v, MAIN_COLUMN), *epochs(v)) if v in self.runs else ""
                        for v in at
                    ),
                ]
            )
        pairs = [(trained_for("CREATE", seconds), trained_for("SASRec", seconds)) for seconds in FOR_SECONDS]
        short = np.diff(self.split.tests.indptr) <= SHORT_EVENTS
        yield row(["CREATE over SASRec", *(self.against(*pair, MAIN_COLUMN) for pair in pairs)])
        yield row([f"histories ≤ {SHORT_EVENTS}", *(self.against(*pair, MAIN_COLUMN, short) for pair in pairs)])


def main() -> None:
    """Print the tables of every data set in the folder."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("folder", nargs="?", type=Path, default=Path("benchmarks/results/quality"))
    parse.add_argument(
        "data", nargs="?", type=Path, default=Path(os.environ.get("ANABRANCH_DATASETS", "../shared/data"))
    )
    parse.add_argument("--validation", action="store_true", help="the folder was measured with --validation")
    arguments = parse.parse_args()
    files = sorted(arguments.folder.glob("*.jsonl"))
    if not files:
        sys.exit(
            f"no results in {arguments.folder}: "
            f"`python -m benchmarks.quality.global_temporal --out {arguments.folder}` writes there"
        )
    for file in files:
        measured = Measured(arguments.folder, arguments.data, file.stem, validation=arguments.validation)
        for table in (measured.variants, measured.leads, measured.parts, measured.equal_times):
            print("\n".join(table()) + "\n")


if __name__ == "__main__":
    main()
