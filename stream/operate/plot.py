"""The picture of a prequential evaluation: rolling Hit@10 of every row over the events."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.errors import AnabranchError

if TYPE_CHECKING:
    from model.evaluation.reports import PrequentialReport

BOLD = {"create": "#c1121f", "frozen": "#003049", "full retrain": "#2a9d8f"}
KINDS = (".png", ".svg", ".pdf")


def require(file: Path) -> None:
    """Refuse, before hours of work, what could not be drawn in the end. Raises AnabranchError."""
    if file.suffix not in KINDS:
        raise AnabranchError(f"--plot {file}: a picture ends in {', '.join(KINDS)}")
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
    # By name, not by place: the same row has the same colour in every picture of the same rows.
    colour = dict(zip(sorted(rolling), colormaps["tab20"](range(20)), strict=False))
    names = sorted(rolling, key=lambda name: -rolling[name][-1])
    for name in names:
        values = [100 * value for value in rolling[name]]
        thin: dict[str, Any] = {"lw": 1.0, "alpha": 0.8, "color": colour.get(name)}
        style = {"lw": 2.2, "color": BOLD[name]} if name in BOLD else thin
        axes.plot(report.curves.event, values, label=f"{name}  {values[-1]:.1f}%", **style)
    for cycle in report.versions.get("create", [])[1:]:
        axes.axvline(cycle.at, color="#999999", lw=0.6, ls="-" if cycle.promoted else ":", zorder=0)
    axes.set_title(f"{title}: each event is first a test", loc="left")
    axes.set_xlabel("event of the stream; thin lines: a version was learned (dotted: the champion was kept)")
    axes.set_ylabel("Hit@10 of the newest 2,000 tests, %")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, title="at the end")
    figure.savefig(file, dpi=130)
