"""Tables of the results of `benchmarks.quality.periods`: `python -m benchmarks.quality.periods_report FILE...`.

Recall@20 / MRR@20 in percent, means over the tested periods. The columns are the model alone, the model with the live
graph, Recall@20 of period 0 tested again at the end, and the last test of both models. Processor seconds of learning
follow, for all periods and for the last. If all sessions and periods were used, rows of the paper (arXiv 2007.12000,
table 3) follow the table.

A second table follows for variant `ranker` (benchmarks/quality/period_ranker.py): its two readings, the share of the
targets that are candidate items, and processor seconds of the ranker's learning and of ranking the tests.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.global_temporal_report import headed, row
from benchmarks.quality.periods import PUBLISHED

QUALITY_COLUMNS = ("the model alone", "+ live graph", "period 0 at the end", "last test, alone", "last, + live graph")
COST_COLUMNS = ("CPU s, all", "CPU s, last")
LAST_PERIOD = 15
"""The paper's means are of periods up to this one."""
READINGS = ("strict", "streaming")
RANKER_COLUMNS = (
    "all", "last test", "candidate recall", "CPU s before period 1", "CPU s of learning", "CPU s of ranking", "tests",
)  # fmt: skip


def pair(lines: list[dict[str, Any]], prefix: str = "") -> str:
    """Recall@20 / MRR@20, means over these periods; empty where they were not measured."""
    if prefix + "recall@20" not in lines[0]:
        return ""
    recall, mrr = (np.mean([line[prefix + metric] for line in lines]) for metric in ("recall@20", "mrr@20"))
    return f"{recall:.2f} / {mrr:.2f}"


def cells(lines: list[dict[str, Any]]) -> list[str]:
    """The figures of a row."""
    last = lines[-1]
    at_the_end = f"{last['first_recall@20']:.1f}" if "first_recall@20" in last else ""
    seconds = [line["cpu_s"] for line in lines]
    return [
        pair(lines), pair(lines, "live_"), at_the_end, pair([last]), pair([last], "live_"),
        f"{sum(seconds):.0f}", f"{seconds[-1]:.0f}",
    ]  # fmt: skip


def table(file: Path) -> Iterator[str]:
    """The table of one file."""
    variants: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    lines = [json.loads(text) for text in file.read_text().splitlines()]
    for line in lines:
        variants[line["variant"], line["seed"]].append(line)
    yield f"### {file.stem}\n"
    yield from headed(["variant", *QUALITY_COLUMNS, *COST_COLUMNS])
    for (variant, seed), found in variants.items():
        periods = f"periods {found[0]['period']} to {found[-1]['period']}"
        yield row([f"{variant}, seed {seed}, {periods}", *cells(found)])
    ranked = {key: found for key, found in variants.items() if "strict_recall@20" in found[0]}
    if all(line["share"] == 1.0 for line in lines) and any(line["period"] == LAST_PERIOD for line in lines):
        for name, (recall, mrr) in PUBLISHED[lines[0]["data"]].items():
            yield row(
                [
                    f"published: {name}",
                    f"{recall:.2f} / {mrr:.2f}",
                    *[""] * (len(QUALITY_COLUMNS) + len(COST_COLUMNS) - 1),
                ]
            )

    if ranked:
        yield ""
        yield from headed(["the second stage", *RANKER_COLUMNS])
    for (variant, seed), found in ranked.items():
        for reading in READINGS:
            yield row([f"{variant}, seed {seed}, {reading}", *ranker_cells(found, reading)])


def ranker_cells(lines: list[dict[str, Any]], reading: str) -> list[str]:
    """The figures of one reading of the second stage."""
    seconds = [sum(line[f"{reading}_{part}"] for line in lines) for part in ("learn_s", "test_s")]
    return [
        pair(lines, f"{reading}_"), pair([lines[-1]], f"{reading}_"),
        f"{np.mean([line[f'{reading}_candidates'] for line in lines]):.1f}",
        f"{sum(line['first_ranker_cpu_s'] for line in lines):.0f}", *(f"{total:.0f}" for total in seconds),
        f"{sum(line['tests'] for line in lines):,}",
    ]  # fmt: skip


def main() -> None:
    """Print a table for each file."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument(
        "files", nargs="*", type=Path, default=sorted(Path("benchmarks/results/streams").glob("*.jsonl"))
    )
    for file in parse.parse_args().files:
        print("\n".join(table(file)) + "\n")


if __name__ == "__main__":
    main()
