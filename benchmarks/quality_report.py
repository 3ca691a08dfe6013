"""Tables from what `benchmarks.quality` measured: `python -m benchmarks.quality_report [FOLDER]`.

Mean ± standard deviation over seeds of NDCG@10 in percent; leads with a 95% interval from a bootstrap over users, the
seeds' ranks of each event put side by side.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import load
from model.metrics import lead

PLACES = ("last, filtered", "successive, filtered", "last, unfiltered", "successive, unfiltered")
OVER = ("SASRec", "SASRec + graph")
OTHERS = """
Others' figures, under their own protocols (not to be compared line by line): CREATE's paper, last, Beauty: SASRec
1.87, CREATE 2.15; Sports: 1.48 and 1.58. "Time to Split" (RecSys '25), SASRec, Beauty: 2.40 last, 2.78 successive;
Sports: 2.18 and 3.01.
"""


def table(folder: Path, data: Path, dataset: str) -> str:
    """One data set as Markdown."""
    newest = {}
    for line in (folder / f"{dataset}.jsonl").read_text().splitlines():
        found = json.loads(line)
        newest[found["variant"], found["seed"]] = found
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (variant, _), found in sorted(newest.items()):
        runs[variant].append(found)
    cut = load(str(data / f"{dataset}.csv.gz"))
    users = cut.tests.users

    def ranks(variant: str, place: str) -> list[np.ndarray]:
        target, seen = place.split(", ")
        chosen = cut.last if target == "last" else np.ones(len(users), bool)
        files = (folder / f"{dataset}.{variant.replace(' ', '_')}.{run['seed']}.npz" for run in runs[variant])
        return [np.load(file)[seen].astype(np.int64)[chosen] for file in files]

    def against(variant: str, over: str, place: str) -> str:
        if over not in runs or variant == over or len(runs[variant]) != len(runs[over]):
            return ""
        target = place.split(", ")[0]
        who = users[cut.last] if target == "last" else users
        a, b = ranks(variant, place), ranks(over, place)
        middle, low, high = lead(np.concatenate(a), np.concatenate(b), np.tile(who, len(a)))
        return f"{100 * middle:+.1f}% [{100 * low:+.1f}, {100 * high:+.1f}]"

    head = ["variant", *PLACES, "train s", *(f"over {o}, {PLACES[1]}" for o in OVER), f"over {OVER[0]}, {PLACES[3]}"]
    lines = [f"### {dataset}: {len(users):,} tests, {int(cut.last.sum()):,} last, {cut.cold:,} cold left out", ""]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for variant, found in sorted(runs.items(), key=lambda r: -r[1][0]["scores"][PLACES[1]]["ndcg@10"]):
        cells = [variant + ("" if len(found) > 1 else " (1 seed)" if "train_s" in found[0] else "")]
        for place in PLACES:
            values = [100 * f["scores"][place]["ndcg@10"] for f in found]
            spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.2f}{spread}")
        cells.append(f"{np.mean([f['train_s'] for f in found]):.0f}" if "train_s" in found[0] else "-")
        cells += [against(variant, over, PLACES[1]) for over in OVER] + [against(variant, OVER[0], PLACES[3])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables of every data set in the folder."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "benchmarks/results/quality")
    data = Path(sys.argv[2] if len(sys.argv) > 2 else "../shared/data")
    for file in sorted(folder.glob("*.jsonl")):
        print(table(folder, data, file.stem) + "\n")
    print(OTHERS.strip())


if __name__ == "__main__":
    main()
