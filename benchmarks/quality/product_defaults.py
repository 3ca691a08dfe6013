"""The product's default settings on several data sets: `python -m benchmarks.quality.product_defaults --help`.

Runs `anabranch evaluate DATA --protocol global-temporal --seed SEED --json` for each data set and seed, and appends
one line of figures to FILE. Without `--measure` it prints the tables of the lines in FILE: NDCG@10 in percent of every
event after the split ("successive"), mean ± standard deviation over seeds, and the leads of each seed with their 95%
intervals.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.quality.global_temporal_report import headed, mean_of_seeds, row

RESULTS = Path("benchmarks/results/evaluate/product_defaults.jsonl")
DATASETS = ("yoochoose-100k", "movietweetings-100k", "ml-100k")
SEEDS = 3
MODELS = {
    "sasrec": "SASRec",
    "create": "CREATE",
    "sasrec+graph": "SASRec + live graph",
    "create+graph": "CREATE + live graph",
    "transitions": "transitions",
    "item-kNN": "item-kNN",
    "recent popularity": "recent popularity",
}
LEADS = (("create", "sasrec"), ("create+graph", "create"))
SEEN_ITEMS = ("unfiltered", "filtered")


def evaluate(file: Path, seed: int) -> dict[str, Any]:
    """The output of `anabranch evaluate` for one seed, on one thread."""
    command = [sys.executable, "-m", "stream.cli", "evaluate", str(file), "--protocol", "global-temporal"]
    done = subprocess.run(
        [*command, "--seed", str(seed), "--json"],
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def compact(data: str, document: dict[str, Any]) -> dict[str, Any]:
    """The figures of one run that the tables print."""
    line = {"data": data, "seed": document["seed"], "epochs": document["epochs"]}
    line["ndcg@10"] = {
        name: {seen: scores["successive"][seen]["ndcg@10"] for seen in SEEN_ITEMS}
        for name, scores in document["models"].items()
    }
    line["leads"] = [
        {key: lead[key] if isinstance(lead[key], str) else round(lead[key], 5) for key in lead if key != "target"}
        for lead in document["leads"]
        if lead["target"] == "successive"
    ]
    return line


def tables(lines: list[dict[str, Any]], seen: str) -> Iterator[str]:
    """NDCG@10 and leads with seen items filtered or not, with a column for each data set."""
    datasets = list(dict.fromkeys(line["data"] for line in lines))
    yield from headed([f"NDCG@10, seen items {seen}", *datasets])
    for model, title in MODELS.items():
        values = [[100 * line["ndcg@10"][model][seen] for line in lines if line["data"] == data] for data in datasets]
        yield row([title, *map(mean_of_seeds, values)])
    for model, over in LEADS:
        cells = [", ".join(leads(lines, data, model, over, seen)) for data in datasets]
        yield row([f"{MODELS[model]} over {MODELS[over]}, seed by seed", *cells])


def leads(lines: list[dict[str, Any]], data: str, model: str, over: str, seen: str) -> Iterator[str]:
    """The lead of one model over another for each seed of a data set."""
    for line in lines:
        for lead in line["leads"]:
            if (line["data"], lead["model"], lead["over"], lead["seen_items"]) == (data, model, over, seen):
                yield f"{100 * lead['lead']:+.1f}% [{100 * lead['low']:+.1f}, {100 * lead['high']:+.1f}]"


def main() -> None:
    """Measure with `--measure`, then print the tables."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("file", nargs="?", type=Path, default=RESULTS, help="figures, one run a line")
    parse.add_argument("--measure", action="store_true", help="run `anabranch evaluate` and append to FILE first")
    parse.add_argument("--data", type=Path, default=Path(os.environ.get("ANABRANCH_DATASETS", "../shared/data")))
    parse.add_argument("--datasets", nargs="+", default=list(DATASETS))
    parse.add_argument("--seeds", type=int, default=SEEDS)
    arguments = parse.parse_args()
    if arguments.measure:
        arguments.file.parent.mkdir(parents=True, exist_ok=True)
        for data in arguments.datasets:
            for seed in range(arguments.seeds):
                line = compact(data, evaluate(arguments.data / f"{data}.csv.gz", seed))
                with arguments.file.open("a") as lines:
                    lines.write(json.dumps(line, separators=(",", ":")) + "\n")
    if not arguments.file.exists():
        sys.exit(
            f"no {arguments.file}: `python -m benchmarks.quality.product_defaults {arguments.file} --measure` writes it"
        )
    found = [json.loads(text) for text in arguments.file.read_text().splitlines()]
    print("\n\n".join("\n".join(tables(found, seen)) for seen in SEEN_ITEMS))


if __name__ == "__main__":
    main()
