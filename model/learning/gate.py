"""The gate: it promotes a candidate or keeps the champion, and gives the reason in a sentence.

Champion and candidate predict the newest events, which neither has learned. The test is paired: NDCG@10 event by event,
with a 95% interval from a bootstrap over users. A significantly worse candidate is not promoted. Any other candidate is
promoted, because it has learned newer events. Without newer events it must be significantly better. So noise neither
promotes nor blocks. Checks that depend less on chance come first: forgetting, number of items, size and speed.
"""

import math
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from model.metrics import Ranks, gains, lead
from model.settings import GateSettings
from state.events import Ids

MIN_BOOTSTRAP_USERS = 30
"""With fewer users a bootstrap is not meaningful and decides nothing."""


Outcome = Literal["promoted", "kept", "pinned", "shadow", "not_scored"]
"""kept: the gate keeps the champion; pinned: the gate promotes, but an operator pinned the champion; shadow: scored
live next to the champion; not_scored: meant as a shadow, but the gate keeps the champion."""


class Change(msgspec.Struct, frozen=True):
    """How much more NDCG@10 the candidate has on the newest events, as a share of the champion's."""

    change: float
    low: float
    """The 95% interval."""
    high: float


class Verdict(msgspec.Struct, frozen=True):
    """The decision on a candidate. Stored in its manifest; those of older versions have no `outcome` or `change`."""

    promoted: bool = True
    reason: str = ""
    outcome: Outcome | None = None
    change: Change | None = None
    """None for a first version, and where the events were too few for a comparison."""

    def __post_init__(self) -> None:
        if self.outcome is None:
            msgspec.structs.force_setattr(self, "outcome", "promoted" if self.promoted else "kept")


class Compared(NamedTuple):
    """Champion and candidate on the same events."""

    champion: Ranks
    candidate: Ranks
    users: Ids


class Measured(NamedTuple):
    """The measurements that the gate judges."""

    newest: Compared
    """Events that neither has learned, ranked as in serving."""
    old: Compared
    """The newest event of users that the cycle did not learn from, ranked by the models without the graph."""
    shown: tuple[int, int]
    """Number of different items recommended on the newest events, by champion and candidate."""
    seconds: tuple[list[float], list[float]]
    """Seconds of champion and candidate to rank the same users, measured several times in turns."""
    size_bytes: int
    finite: bool
    new_events: int
    """Number of events that the candidate has learned and the champion has not."""
    new_items: int


def judge(measured: Measured, settings: GateSettings, *, first: bool = False) -> Verdict:
    """Promote the candidate or keep the champion. With `first` there is no champion: the candidate is its own."""
    newest = measured.newest
    users = len(np.unique(newest.users))
    compares = not first and users >= MIN_BOOTSTRAP_USERS
    change, low, high = lead(newest.candidate, newest.champion, newest.users) if compares else (0.0, 0.0, 0.0)
    measured_change = Change(change, low, high) if compares and all(map(math.isfinite, (change, low, high))) else None
    objection = next((reason for reason in _objections(measured, settings) if reason), None)
    if objection is not None:
        reason = f"{'not promoted' if first else 'champion kept'}: {objection}"
        return Verdict(False, reason, change=measured_change)
    if first:
        return Verdict(True, "promoted: the first version")
    newer = f"it has learned {_plural(measured.new_events, 'newer event')}"
    newer += f" and {_plural(measured.new_items, 'newer item')}" if measured.new_items else ""
    if not compares:
        compared = f"the newest events are of {_plural(users, 'user')}, too few for a comparison"
        return _undecided(measured, compared, newer)
    compared = (
        f"NDCG@10 {_percent(newest.candidate)} against the champion's {_percent(newest.champion)} on "
        f"{_plural(len(newest.users), 'newest event')} of {_plural(users, 'user')} ({_change(change, low, high)})"
    )
    if high < 0:
        reason = f"champion kept: significantly worse on the newest events: {compared}"
        return Verdict(False, reason, change=measured_change)
    if low > 0:
        return Verdict(True, f"promoted: significantly better on the newest events: {compared}", change=measured_change)
    return _undecided(measured, compared, newer, measured_change)


def _undecided(measured: Measured, compared: str, newer: str, change: Change | None = None) -> Verdict:
    if measured.new_events:
        return Verdict(True, f"promoted: not significantly worse, and {newer}; {compared}", change=change)
    reason = f"champion kept: the candidate has learned nothing new and is not significantly better; {compared}"
    return Verdict(False, reason, change=change)


def _objections(measured: Measured, settings: GateSettings) -> list[str | None]:
    return [
        None if measured.finite else "the candidate has weights that are not finite numbers",
        _too_large(measured.size_bytes, settings.max_version_bytes),
        _forgot(measured.old, settings.forgotten_share),
        _narrow(measured.shown, settings.coverage_share),
        _slow(measured.seconds, settings.latency_ratio),
    ]


def _too_large(size: int, limit: int) -> str | None:
    if size <= limit:
        return None
    return f"the candidate has {size:,} bytes; gate.max_version_bytes allows {limit:,}"


def _forgot(old: Compared, allowed: float) -> str | None:
    """An objection if the whole interval of the relative change is below -`allowed`."""
    users = len(np.unique(old.users))
    if users < MIN_BOOTSTRAP_USERS:
        return None
    change, low, high = lead(old.candidate, old.champion, old.users)
    if high >= -allowed:
        return None
    return (
        f"the candidate forgets: NDCG@10 of {_plural(users, 'user')} without new events falls from "
        f"{_percent(old.champion)} to {_percent(old.candidate)} ({_change(change, low, high)}); "
        f"gate.forgotten_share allows {allowed:.0%}"
    )


def _narrow(shown: tuple[int, int], share: float) -> str | None:
    if shown[1] >= share * shown[0]:
        return None
    return (
        f"the candidate recommends {_plural(shown[1], 'different item')}, the champion {shown[0]:,}; "
        f"gate.coverage_share requires {share:.0%} of that"
    )


def _slow(seconds: tuple[list[float], list[float]], ratio: float) -> str | None:
    """Compare the candidate's best time with the champion's median, so that a busy machine makes no candidate slow."""
    if not seconds[0] or not seconds[1]:
        return None
    times = min(seconds[1]) / float(np.median(seconds[0]))
    if times <= ratio:
        return None
    return f"the candidate takes {times:.1f} times as long to rank as the champion; gate.latency_ratio allows {ratio:g}"


def _percent(ranks: Ranks) -> str:
    return f"{100 * gains(ranks).mean():.2f}%" if len(ranks) else "-"


def _change(change: float, low: float, high: float) -> str:
    if not math.isfinite(change) or abs(change) > 10:
        return "from nothing" if change > 0 else "to nothing"
    return f"{100 * change:+.1f}% [{100 * low:+.1f}, {100 * high:+.1f}]"


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
