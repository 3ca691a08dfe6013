"""The plot of a prequential evaluation: rolling Hit@10 of every model over the events."""

import importlib.util
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from stream.errors import AnabranchError

if TYPE_CHECKING:
    from model.evaluation.reports import PrequentialReport

COLOURS = {
    "create": "#c1121f",
    "fusion": "#e07a1f",
    "frozen": "#003049",
    "frozen, graph too": "#6c8ebf",
    "full retrain": "#2a9d8f",
}
MORE_COLOURS = ("#7b2d8b", "#8a5a44", "#b56576", "#5c6b2f")
BEST_RIVAL, OTHERS = "#222222", "#c8c8c8"
TITLES = {
    "create": "create: learns",
    "fusion": "fusion: no ranker",
    "frozen": "frozen: counters live",
    "frozen, graph too": "frozen: counters too",
}
LABELS = 24
"""Labels that fit one above the other."""
SUFFIXES = (".png", ".svg", ".pdf")


def require(file: Path) -> None:
    """Raise AnabranchError if a picture cannot be written to this file, before hours of work are spent on it."""
    if file.suffix not in SUFFIXES:
        raise AnabranchError(f"--plot {file}: a picture ends in {', '.join(SUFFIXES)}")
    if not file.absolute().parent.is_dir():
        raise AnabranchError(f"--plot {file}: there is no directory {file.absolute().parent}")
    if importlib.util.find_spec("matplotlib") is None:
        raise AnabranchError("--plot needs matplotlib, which is not installed: pip install 'anabranch[plot]'")


def draw(report: "PrequentialReport", file: Path, title: str) -> None:
    """Write the picture of a report: learning against standing still.

    The models and the best rival have colours, the other rivals are grey. Names stand at the ends of their lines.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.5), layout="constrained")
    axes = figure.add_subplot()
    rolling, at = report.curves.rolling_hit, report.curves.event
    values = {name: [100 * value for value in rolling[name]] for name in rolling}
    colours = colours_of(report)
    for name in sorted(values, key=lambda name: (name in colours, name == "create")):
        width = 2.6 if name == "create" else 1.7 if name in colours else 0.8
        axes.plot(at, values[name], color=colours.get(name, OTHERS), lw=width, zorder=3 if name in colours else 2)
    if "create" in values and "frozen" in values:
        axes.fill_between(at, values["frozen"], values["create"], color=COLOURS["create"], alpha=0.08, lw=0, zorder=1)
    for cycle in report.versions.get("create", [])[1:]:
        axes.axvline(cycle.at, color="#cccccc", lw=0.8, ls="-" if cycle.promoted else ":", zorder=0)
    top = max(max(of) for of in values.values())
    ends = spread({name: of[-1] for name, of in values.items()}, top * 1.08 / LABELS)
    for name, height in ends.items():
        axes.annotate(
            f"{TITLES.get(name, name)}  {values[name][-1]:.1f}", (1, height), xycoords=("axes fraction", "data"),
            xytext=(8, 0), textcoords="offset points", va="center", fontsize=9, annotation_clip=False,
            color=colours.get(name, "#777777"), fontweight="bold" if name == "create" else "normal",
        )  # fmt: skip
    axes.set_title(f"{title}: each event is first a test, then learned", loc="left")
    axes.set_xlabel("event of the stream; vertical lines: a version was trained (dotted: the champion was kept)")
    axes.set_ylabel("Hit@10 of the newest 2,000 tests, %")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlim(at[0], max(at[-1], at[0] + 1))
    axes.set_ylim(0, max(top * 1.08, 1))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=130)


def colours_of(report: "PrequentialReport") -> dict[str, str]:
    """Colours of the models and of the rival that ends best."""
    rolling = report.curves.rolling_hit
    chosen = {name: colour for name, colour in COLOURS.items() if name in rolling}
    more = [name for name in rolling if name.startswith("create, ")]
    chosen |= dict(zip(more, itertools.cycle(MORE_COLOURS), strict=False))
    rivals = [name for name in rolling if name not in chosen]
    if rivals:
        chosen[max(rivals, key=lambda name: rolling[name][-1])] = BEST_RIVAL
    return chosen


def spread(heights: dict[str, float], gap: float) -> dict[str, float]:
    """Heights in the same order, moved up or down so that neighbours are at least `gap` apart and none is below 0."""
    names = sorted(heights, key=lambda name: heights[name])
    placed: list[tuple[float, int]] = []
    """Middle and number of names of each block of touching labels."""
    for name in names:
        middle, count = max(heights[name], gap / 2), 1
        while placed and middle - placed[-1][0] < gap * (count + placed[-1][1]) / 2:
            below, others = placed.pop()
            middle = max((middle * count + below * others) / (count + others), gap * (count + others) / 2)
            count += others
        placed.append((middle, count))
    found = [middle + gap * (place - (count - 1) / 2) for middle, count in placed for place in range(count)]
    return dict(zip(names, found, strict=True))
