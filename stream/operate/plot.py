"""The plot of a prequential evaluation: rolling Hit@10 of every model over the events."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.errors import AnabranchError

if TYPE_CHECKING:
    from model.evaluation.reports import PrequentialReport

BOLD_COLOURS = {"create": "#c1121f", "frozen": "#003049", "full retrain": "#2a9d8f"}
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
    """Write the picture of a report."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.5), layout="constrained")
    axes = figure.add_subplot()
    rolling = report.curves.rolling_hit
    # By name, not by rank: a model has the same colour in every picture of the same models.
    colour = dict(zip(sorted(rolling), colormaps["tab20"](range(20)), strict=False))
    names = sorted(rolling, key=lambda name: -rolling[name][-1])
    for name in names:
        values = [100 * value for value in rolling[name]]
        thin: dict[str, Any] = {"lw": 1.0, "alpha": 0.8, "color": colour.get(name)}
        style = {"lw": 2.2, "color": BOLD_COLOURS[name]} if name in BOLD_COLOURS else thin
        axes.plot(report.curves.event, values, label=f"{name}  {values[-1]:.1f}%", **style)
    for cycle in report.versions.get("create", [])[1:]:
        axes.axvline(cycle.at, color="#999999", lw=0.6, ls="-" if cycle.promoted else ":", zorder=0)
    axes.set_title(f"{title}: each event is first a test", loc="left")
    axes.set_xlabel("event of the stream; thin lines: a version was trained (dotted: the champion was kept)")
    axes.set_ylabel("Hit@10 of the newest 2,000 tests, %")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, title="at the end")
    figure.savefig(file, dpi=130)
