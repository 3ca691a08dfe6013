"""Tables of the results of `benchmarks.quality.prequential`: `python -m benchmarks.quality.prequential_report
FOLDER`."""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

METRICS = ("hit@10", "ndcg@10", "mrr", "last_quarter_hit@10", "new_items_hit@10")


def percent(share: float | None) -> str:
    """A share in percent, or `-`."""
    return "-" if share is None else f"{100 * share:.2f}%"


def trained_s(line: dict[str, Any], name: str = "create") -> float:
    """Processor seconds of the cycles after the first version."""
    return float(sum(c["cpu_s"] for c in line["versions"][name][1:]))


def stream_tables(line: dict[str, Any]) -> list[str]:
    """The tables of one run of part `streams`."""
    tested, variant = line["tested"], line["variant"] or ""
    new = tested["of_new_items"]
    page = [
        f"\n## {line['stream']}, {line['events']:,} events, seed {line['seed']}{', ' * bool(variant)}{variant}\n",
        f"{tested['tested']:,} tests"
        + (
            f", {new:,} of them of new items, which occurred before but which the version did not know.\n"
            if new
            else ".\n"
        ),
        "| row | Hit@10 | NDCG@10 | MRR | last quarter, Hit@10 | new items, Hit@10 | Hit@10 over create, points |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, figures in line["models"].items():
        by, low, high = line["points_over_create"][name]
        cells = " | ".join(percent(figures[m]) for m in METRICS)
        over = "" if name == "create" else f"{by:+.2f} [{low:+.2f}, {high:+.2f}]"
        page.append(f"| {name} | {cells} | {over} |")
    models, cycles = line["models"], line["versions"]["create"]
    end, still = (models[n]["last_quarter_hit@10"] for n in ("create", "frozen"))
    page.append(
        f"\nIn the last quarter create has {end / still:.2f} times the Hit@10 of the frozen model with a live graph, "
        f"{end / models['frozen, graph too']['last_quarter_hit@10']:.2f} times that of the frozen model with a "
        f"frozen graph. {len(cycles)} versions, {sum(c['promoted'] for c in cycles)} promoted; increments took "
        f"{trained_s(line):.0f} s of CPU"
        + (f", full retrains {trained_s(line, 'full retrain'):.0f} s." if "full retrain" in line["versions"] else ".")
    )
    return page


def ablation_table(lines: list[dict[str, Any]]) -> list[str]:
    """The table of all variants and of the full model on the same events."""
    page = [
        "\n## Ablations: one change to the training\n",
        "| stream | events | seed | training | Hit@10 | last quarter | model alone | last quarter | increments, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    full_runs = [li for li in lines if li["part"] == "streams"]
    for line in (li for li in lines if li["part"] == "ablation"):
        same = [w for w in full_runs if all(w[k] == line[k] for k in ("stream", "events", "seed"))]
        for run in [*same[-1:], line]:
            create, alone = run["models"]["create"], run["models"].get("create, no fusion", {})
            cells = [of.get(key) for of in (create, alone) for key in ("hit@10", "last_quarter_hit@10")]
            row = (
                f"| {run['stream']} | {run['events']:,} | {run['seed']} | {run['variant'] or 'default'} | "
                f"{' | '.join(map(percent, cells))} | {trained_s(run):.0f} |"
            )
            if row not in page:
                page.append(row)
    return page


WANTED_FUSION, WANTED_FUSION_MEAN = 1.03, 1.08
"""Wanted NDCG@10 of the whole over that of the fusion alone, on each stream and on their mean."""
WANTED_FROZEN, WANTED_FROZEN_MEAN = 1.05, 1.10
"""The same over the frozen system with live counters."""
MODEL_ROWS = ("frozen", "frozen, graph too", "fusion", "full retrain")


def wanted_table(lines: list[dict[str, Any]]) -> list[str]:
    """What learning and the ranker are worth on each stream: means over seeds, and whether that is what was wanted."""
    runs: dict[tuple[str, int], dict[int, dict[str, Any]]] = defaultdict(dict)
    for line in lines:
        if line.get("leads"):
            runs[line["stream"], line["events"]][line["seed"]] = line
    if not runs:
        return []
    page = [
        "\n## What learning is worth\n",
        "Means over seeds. Leads of create with their 95% interval (users resampled, mean of the seeds' ends): NDCG@10 "
        "relative, Hit@10 in points. The best rival is the one that create leads least.\n",
        "| stream | events | seeds | Hit@10 | NDCG@10 | over fusion | over frozen | over the ranker as published | "
        "best rival, NDCG@10 | best rival, Hit@10 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    over: dict[str, list[float]] = {"fusion": [], "frozen": []}
    rivals_behind = True
    for (stream, events), found in sorted(runs.items()):
        seeds = list(found.values())
        means = [float(np.mean([line["models"]["create"][key] for line in seeds])) for key in ("hit@10", "ndcg@10")]
        cells = [mean_lead(seeds, row, "ndcg@10_relative") for row in ("fusion", "frozen", "create, fixed ranker")]
        for row, cell in zip(("fusion", "frozen"), cells, strict=False):
            if cell is not None:
                over[row].append(1 + cell[0])
        rivals = [row for row in seeds[0]["leads"] if row not in MODEL_ROWS and not row.startswith("create")]
        nearest: list[str] = []
        for key, text in (("ndcg@10_relative", relative), ("hit@10_difference", points)):
            of = {row: lead for row in rivals if (lead := mean_lead(seeds, row, key)) is not None}
            least = min(of, key=lambda row: of[row][0], default=None)
            nearest.append("-" if least is None else f"{text(of[least])}, {least}")
            rivals_behind &= least is None or of[least][0] >= 0
        page.append(
            f"| {stream} | {events:,} | {len(seeds)} | {percent(means[0])} | {percent(means[1])} | "
            + " | ".join([*map(relative, cells), *nearest])
            + " |"
        )
    for row, each, mean in (
        ("fusion", WANTED_FUSION, WANTED_FUSION_MEAN),
        ("frozen", WANTED_FROZEN, WANTED_FROZEN_MEAN),
    ):
        if over[row]:
            good = min(over[row]) >= each and np.mean(over[row]) >= mean
            page.append(
                f"\nOver {row}: {min(over[row]):.3f} times at least, {np.mean(over[row]):.3f} times on the mean; "
                f"wanted {each} and {mean}: {'reached' if good else 'not reached'}."
            )
    page.append(f"\nNo rival row above create on any stream: {'reached' if rivals_behind else 'not reached'}.")
    return [*page, *groups_table(runs)]


def groups_table(runs: dict[tuple[str, int], dict[int, dict[str, Any]]]) -> list[str]:
    """NDCG@10 by kind of test: create, and its lead over fusion and frozen."""
    page = [
        "\n### By kind of test\n",
        "NDCG@10 of create, mean over seeds, and relative lead over fusion / frozen.\n",
        "| kind | " + " | ".join(f"{stream}, {events:,}" for stream, events in sorted(runs)) + " |",
        "|" + "---|" * (len(runs) + 1),
    ]
    for kind in dict.fromkeys(kind for found in runs.values() for line in found.values() for kind in line["groups"]):
        cells = []
        for key in sorted(runs):
            groups = [line["groups"][kind] for line in runs[key].values() if kind in line["groups"]]
            ndcg = {
                row: float(np.mean([of["models"][row]["ndcg@10"] for of in groups]))
                for row in ("create", "fusion", "frozen")
                if groups and all(row in of["models"] for of in groups)
            }
            leads = " / ".join(
                f"{100 * (ndcg['create'] / ndcg[row] - 1):+.1f}%" if ndcg.get(row) else "-"
                for row in ("fusion", "frozen")
            )
            cells.append(f"{percent(ndcg['create'])}, {leads} ({groups[0]['tested']:,} tests)" if ndcg else "-")
        page.append(f"| {kind} | {' | '.join(cells)} |")
    return page


def mean_lead(seeds: list[dict[str, Any]], row: str, key: str) -> tuple[float, float, float] | None:
    """Lead and interval over a row, mean over seeds; None where a seed has none."""
    found = [line["leads"].get(row, {}).get(key) for line in seeds]
    if not found or None in found:
        return None
    lead, low, high = (float(np.mean([of[end] for of in found])) for end in ("lead", "low", "high"))
    return lead, low, high


def relative(lead: tuple[float, float, float] | None) -> str:
    """A relative lead in percent with its interval."""
    return "-" if lead is None else "{:+.1f}% [{:+.1f}, {:+.1f}]".format(*(100 * value for value in lead))


def points(lead: tuple[float, float, float]) -> str:
    """A lead in points with its interval."""
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(100 * value for value in lead))


FROZEN_ROWS = ("frozen", "frozen, graph too")
SEED_TABLE_ROWS = ("create", "full retrain", *FROZEN_ROWS, "create, fixed weights", "create, no fusion")


def seeds_table(lines: list[dict[str, Any]]) -> list[str]:
    """Hit@10 of all tests and of the last quarter, mean ± standard deviation over seeds."""
    runs: dict[tuple[str, int], dict[int, dict[str, Any]]] = defaultdict(dict)
    for line in lines:
        runs[line["stream"], line["events"]][line["seed"]] = line
    runs = {key: found for key, found in runs.items() if len(found) > 1}
    if not runs:
        return []
    page = [
        "\n## Seeds\n",
        "Hit@10 of all tests / of the last quarter; the last columns are create over each frozen model in it.\n",
        "| stream | events | seeds | "
        + " | ".join([*SEED_TABLE_ROWS, *(f"times {name}" for name in FROZEN_ROWS)])
        + " |",
        "|" + "---|" * (len(SEED_TABLE_ROWS) + len(FROZEN_ROWS) + 3),
    ]
    for (stream, events), found in runs.items():
        models = [line["models"] for line in found.values()]
        cells = []
        for row in SEED_TABLE_ROWS:
            both = [[100 * m[row][k] for m in models if row in m] for k in ("hit@10", "last_quarter_hit@10")]
            cells.append(" / ".join(f"{np.mean(v):.2f} ± {np.std(v, ddof=1):.2f}" if len(v) > 1 else "-" for v in both))
        for row in FROZEN_ROWS:
            times = [m["create"]["last_quarter_hit@10"] / m[row]["last_quarter_hit@10"] for m in models]
            cells.append(f"{np.mean(times):.2f} ± {np.std(times, ddof=1):.2f}")
        page.append(f"| {stream} | {events:,} | {len(found)} | {' | '.join(cells)} |")
    return page


def drift_tables(line: dict[str, Any]) -> list[str]:
    """The table of the recovery of each row from a change."""
    what = "Half of the catalogue swaps places" if line["part"] == "drift" else "Largest natural change"
    page = [
        f"\n## {what}: {line['stream']}, {line['events']:,} events, seed {line['seed']}\n",
        f"The change is at test {line['changed_at_test']:,}; drift was found at tests {line['found_at_test']}.\n",
        "| row | Hit@10 before | lowest | mean after | tests until 0.9 of before (of 500 tests) |",
        "|---|---|---|---|---|",
    ]
    for name, r in line["recovery"].items():
        back = "not by the end" if r["tests_to_recover"] is None else f"{r['tests_to_recover']:,}"
        page.append(f"| {name} | {percent(r['before'])} | {percent(r['lowest'])} | {percent(r['after'])} | {back} |")
    return page


def main() -> None:
    """Print the tables."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("folder", type=Path)
    lines = [json.loads(text) for text in (parse.parse_args().folder / "runs.jsonl").read_text().splitlines()]
    page = wanted_table([line for line in lines if line["part"] == "streams"])
    for line in lines:
        page += stream_tables(line) if line["part"] == "streams" else []
    for line in lines:
        page += drift_tables(line) if line["part"] in ("drift", "break") else []
    page += seeds_table([line for line in lines if line["part"] == "streams"])
    if any(line["part"] == "ablation" for line in lines):
        page += ablation_table(lines)
    print("\n".join(page))


if __name__ == "__main__":
    main()
