"""Move measured results into the folder that git tracks: `python -m benchmarks.quality.pack build/quality`.

`benchmarks.quality.global_temporal` and `benchmarks.quality.prequential` write to a build folder. This command merges
the folder into TARGET and keeps only the figures that the reports print:

    DATASET.jsonl   the newest line of each variant and seed
    DATASET.npz     the ranks of all of them (benchmarks/quality/rank_archive.py)
    runs.jsonl      the figures of each prequential run, without curves, weights, verdicts and the intervals of groups

A run that is already in TARGET is replaced. FOLDER itself is not changed.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.quality.rank_archive import SEEN_ITEMS, RankArchive, Run, write_archive

PREQUENTIAL_RUNS = "runs.jsonl"


def lines_of(file: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file; none if there is no such file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def write_lines(file: Path, lines: list[dict[str, Any]]) -> None:
    """Write a JSON Lines file, one object a line, without spaces."""
    file.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))


def pack_dataset(folder: Path, target: Path, dataset: str) -> int:
    """Merge one data set's figures and ranks into the target. Returns the number of runs there afterwards."""
    figures: dict[Run, dict[str, Any]] = {}
    ranks: dict[Run, dict[str, Any]] = {}
    for source in dict.fromkeys((target, folder)):
        archive = RankArchive(source, dataset)
        for line in lines_of(source / f"{dataset}.jsonl"):
            run = line["variant"], line["seed"]
            figures[run] = compact_figures(line)
            ranks[run] = {seen: archive.ranks(run, seen) for seen in SEEN_ITEMS}
    write_archive(target, dataset, ranks)
    write_lines(target / f"{dataset}.jsonl", list(figures.values()))
    return len(figures)


def compact_figures(line: dict[str, Any]) -> dict[str, Any]:
    """A line of `benchmarks.quality.global_temporal` with only what its report reads."""
    compact = {key: line[key] for key in ("variant", "seed", "scores", "train_s", "parameters") if key in line}
    return compact | {"breadth": {"filtered": line["breadth"]["filtered"]}}


def compact_prequential(line: dict[str, Any]) -> dict[str, Any]:
    """A line of `benchmarks.quality.prequential` with only what its report reads."""
    versions = {
        name: [{"cpu_s": cycle["cpu_s"], "promoted": cycle["promoted"]} for cycle in cycles]
        for name, cycles in line["versions"].items()
        if name in ("create", "full retrain")
    }
    groups = {name: of | {"leads": {}} for name, of in line.get("groups", {}).items()}
    return line | {"versions": versions} | ({"groups": groups} if groups else {})


def pack_prequential(folder: Path, target: Path) -> int:
    """Add the prequential runs of the folder to the target's. Returns the number of runs there afterwards."""
    runs: dict[tuple[object, ...], dict[str, Any]] = {}
    for source in dict.fromkeys((target, folder)):
        for line in lines_of(source / PREQUENTIAL_RUNS):
            key = tuple(line[name] for name in ("part", "stream", "events", "variant", "seed"))
            runs[key] = compact_prequential(line)
    write_lines(target / PREQUENTIAL_RUNS, list(runs.values()))
    return len(runs)


def main() -> None:
    """Merge a build folder into the tracked results."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("folder", type=Path, help="the folder that the benchmark wrote")
    parse.add_argument("target", nargs="?", type=Path, help="default: benchmarks/results/NAME, NAME the folder's name")
    arguments = parse.parse_args()
    target = arguments.target or Path("benchmarks/results") / arguments.folder.name
    files = sorted(arguments.folder.glob("*.jsonl"))
    if not files:
        sys.exit(f"no results in {arguments.folder}: name the folder given to a benchmark as --out")
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        if file.name == PREQUENTIAL_RUNS:
            print(f"{target / file.name}: {pack_prequential(arguments.folder, target)} runs")
        else:
            print(f"{target / file.name}: {pack_dataset(arguments.folder, target, file.stem)} runs")


if __name__ == "__main__":
    main()
