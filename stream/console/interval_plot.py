"""Gate verdicts as a picture: for each version how it compared with the champion, with its 95% interval."""

from collections.abc import Sequence
from typing import NamedTuple

from stream.operate.model_report import VersionReport

WIDTH, ROW, TOP, LEFT, RIGHT = 640, 26, 26, 84, 18
MAX_CHANGE = 1.0
"""Changes beyond this are drawn at the border."""
TICKS = (-1.0, -0.5, -0.25, -0.1, -0.05, -0.02, 0.0, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


class Row(NamedTuple):
    """One version, in pixels."""

    y: float
    version: str
    outcome: str
    low: float
    high: float
    at: float
    text: str
    cut: bool
    """Whether the interval goes on beyond the border."""


class Tick(NamedTuple):
    """A vertical line of the scale."""

    x: float
    text: str
    zero: bool


class IntervalPlot(NamedTuple):
    """The whole picture."""

    width: int
    height: int
    rows: list[Row]
    ticks: list[Tick]
    top: int
    left: int


def interval_plot(versions: Sequence[VersionReport]) -> IntervalPlot | None:
    """A row for each version that was compared, in their order; None if none was."""
    compared = [v for v in versions if v.change is not None]
    if not compared:
        return None
    ends = [abs(end) for v in compared if v.change for end in (v.change.low, v.change.high, v.change.change)]
    reach = min(max(max(ends) * 1.1, 0.02), MAX_CHANGE)

    def x(change: float) -> float:
        share = (max(-reach, min(reach, change)) + reach) / (2 * reach)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    rows = []
    for n, version in enumerate(compared):
        change = version.change
        assert change is not None
        text = f"{100 * change.change:+.1f}% [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
        cut = change.low < -reach or change.high > reach
        y = TOP + ROW * n + ROW / 2
        rows.append(
            Row(y, version.version, version.outcome, x(change.low), x(change.high), x(change.change), text, cut)
        )
    ticks = [Tick(x(t), f"{100 * t:+g}%" if t else "0", t == 0) for t in _ticks(reach)]
    return IntervalPlot(WIDTH, TOP + ROW * len(rows) + 8, rows, ticks, TOP, LEFT)


def _ticks(reach: float) -> list[float]:
    """At most seven, 0 among them."""
    inside = [tick for tick in TICKS if abs(tick) <= reach]
    while len(inside) > 7:
        inside = [t for n, t in enumerate(inside) if t == 0 or abs(n - len(inside) // 2) != 1]
    return inside
