"""The gate: it promotes a candidate or keeps the champion, and gives the reason in a sentence.

Both predict the newest events, which neither has learned. The test is paired: NDCG@10 event by event, a bootstrap over
users, a 95% interval. A candidate that is significantly worse is not promoted. Any other is, because it has learned
newer events; where it has learned none, only if it is significantly better. So noise neither promotes nor blocks.
Checks that depend little on luck come first: what it forgot, how many items it recommends, its size, its speed.
"""

import math
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from model.metrics import Ranks, gains, lead
from model.settings import GateSettings
from state.events import Ids

MIN_BOOTSTRAP_USERS = 30
"""A bootstrap over fewer users is meaningless: they decide nothing."""


Outcome = Literal["promoted", "kept", "pinned", "shadow", "not_scored"]
"""kept: by the gate; pinned: the gate promotes it, but an operator pinned the champion; shadow: scored beside the
champion; not_scored: it was to be a shadow, but the gate keeps it."""


class Verdict(msgspec.Struct, frozen=True):
    """What became of a candidate. Stored in its manifest; manifests without `outcome` are those of older versions."""

    promoted: bool = True
    reason: str = ""
    outcome: Outcome | None = None

    def __post_init__(self) -> None:
        if self.outcome is None:
            msgspec.structs.force_setattr(self, "outcome", "promoted" if self.promoted else "kept")


class Compared(NamedTuple):
    """Champion and candidate on the same events."""

    champion: Ranks
    candidate: Ranks
    users: Ids


class Measured(NamedTuple):
    """Everything that the gate looks at."""

    newest: Compared
    """Events that neither has learned, ranked as in serving."""
    old: Compared
    """The newest event of users who took no part in this cycle, ranked by the models without the graph."""
    shown: tuple[int, int]
    """Number of different items recommended on the newest events: by the champion, by the candidate."""
    seconds: tuple[list[float], list[float]]
    """Seconds to rank the same users, measured several times in turns: the champion's, the candidate's."""
    size_bytes: int
    finite: bool
    new_events: int
    """Learned by the candidate, not by the champion."""
    new_items: int


def judge(measured: Measured, settings: GateSettings, *, first: bool = False) -> Verdict:
    """Promote or keep. `first`: there is no champion yet, and the candidate is compared with itself."""
    wrong = next((reason for reason in _objections(measured, settings) if reason), None)
    if wrong is not None:
        return Verdict(False, f"{'not promoted' if first else 'champion kept'}: {wrong}")
    if first:
        return Verdict(True, "promoted: the first version")
    newest = measured.newest
    users = len(np.unique(newest.users))
    newer = f"it has learned {_counted(measured.new_events, 'newer event')}"
    newer += f" and {_counted(measured.new_items, 'newer item')}" if measured.new_items else ""
    if users < MIN_BOOTSTRAP_USERS:
        compared = f"the newest events are of {_counted(users, 'user')}, too few for a comparison"
        return _undecided(measured, compared, newer)
    by, low, high = lead(newest.candidate, newest.champion, newest.users)
    compared = (
        f"NDCG@10 {_percent(newest.candidate)} against the champion's {_percent(newest.champion)} on "
        f"{_counted(len(newest.users), 'newest event')} of {_counted(users, 'user')} ({_change(by, low, high)})"
    )
    if high < 0:
        return Verdict(False, f"champion kept: significantly worse on the newest events: {compared}")
    if low > 0:
        return Verdict(True, f"promoted: significantly better on the newest events: {compared}")
    return _undecided(measured, compared, newer)


def _undecided(measured: Measured, compared: str, newer: str) -> Verdict:
    if measured.new_events:
        return Verdict(True, f"promoted: not significantly worse, and {newer}; {compared}")
    return Verdict(
        False, f"champion kept: the candidate has learned nothing new and is not significantly better; {compared}"
    )


def _objections(measured: Measured, settings: GateSettings) -> list[str | None]:
    return [
        None if measured.finite else "the candidate has weights that are not finite numbers",
        _too_large(measured.size_bytes, settings.max_version_bytes),
        _forgot(measured.old, settings.forgotten_share),
        _narrow(measured.shown, settings.coverage_share),
        _slow(measured.seconds, settings.latency_ratio),
    ]


def _too_large(size: int, most: int) -> str | None:
    if size <= most:
        return None
    return f"the candidate has {size:,} bytes; gate.max_version_bytes allows {most:,}"


def _forgot(old: Compared, allowed: float) -> str | None:
    """An objection where the whole interval of the loss lies beyond what is allowed."""
    users = len(np.unique(old.users))
    if users < MIN_BOOTSTRAP_USERS:
        return None
    by, low, high = lead(old.candidate, old.champion, old.users)
    if high >= -allowed:
        return None
    return (
        f"the candidate forgets: NDCG@10 of {_counted(users, 'user')} without new events falls from "
        f"{_percent(old.champion)} to {_percent(old.candidate)} ({_change(by, low, high)}); "
        f"gate.forgotten_share allows {allowed:.0%}"
    )


def _narrow(shown: tuple[int, int], share: float) -> str | None:
    if shown[1] >= share * shown[0]:
        return None
    return (
        f"the candidate recommends {_counted(shown[1], 'different item')}, the champion {shown[0]:,}; "
        f"gate.coverage_share requires {share:.0%} of that"
    )


def _slow(seconds: tuple[list[float], list[float]], ratio: float) -> str | None:
    """Compare the candidate's best time with the champion's median: a busy machine makes no candidate slow."""
    if not seconds[0] or not seconds[1]:
        return None
    times = min(seconds[1]) / float(np.median(seconds[0]))
    if times <= ratio:
        return None
    return f"the candidate takes {times:.1f} times as long to rank as the champion; gate.latency_ratio allows {ratio:g}"


def _percent(ranks: Ranks) -> str:
    return f"{100 * gains(ranks).mean():.2f}%" if len(ranks) else "-"


def _change(by: float, low: float, high: float) -> str:
    if not math.isfinite(by) or abs(by) > 10:
        return "from nothing" if by > 0 else "to nothing"
    return f"{100 * by:+.1f}% [{100 * low:+.1f}, {100 * high:+.1f}]"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
