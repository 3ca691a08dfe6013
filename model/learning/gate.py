"""The gate: whether a candidate takes the champion's place, and why, in a sentence.

Both answer the newest events, which neither has learned. The test is paired: NDCG@10 event by event, a bootstrap over
users, a 95% interval. Clearly worse: the champion stays. Otherwise the candidate takes its place, because of what it
knows beyond the champion; where it knows nothing beyond it, only if it is clearly better. So noise neither promotes
nor blocks. Before that come checks that have little to do with luck: what it forgot, how much it shows, its size, its
pace.
"""

import math
from typing import NamedTuple

import msgspec
import numpy as np

from model.metrics import Ranks, gains, lead
from model.settings import GateSettings
from state.events import Ids

MIN_BOOTSTRAP_USERS = 30
"""Of fewer users a bootstrap says nothing: they decide nothing."""


class Verdict(msgspec.Struct, frozen=True):
    """What became of a candidate."""

    promoted: bool = True
    reason: str = ""


class Compared(NamedTuple):
    """Champion and candidate on the same events."""

    champion: Ranks
    candidate: Ranks
    users: Ids


class Measured(NamedTuple):
    """What the gate looks at."""

    newest: Compared
    """Events neither has learned, with everything that speaks at serving."""
    old: Compared
    """The newest event of users without new ones, who took no part in this cycle; by the models alone."""
    shown: tuple[int, int]
    """Different items recommended on the newest events: by the champion, by the candidate."""
    seconds: tuple[list[float], list[float]]
    """Times to rank the same users, again and again in turns: the champion's, the candidate's."""
    size_bytes: int
    finite: bool
    new_events: int
    """Learned by the candidate, not by the champion."""
    new_items: int


def judge(measured: Measured, settings: GateSettings, *, first: bool = False) -> Verdict:
    """Promote or keep; `first`: there is no champion yet, and the candidate stands beside itself."""
    wrong = next((reason for reason in _objections(measured, settings) if reason), None)
    if wrong is not None:
        return Verdict(False, f"{'not promoted' if first else 'champion kept'}: {wrong}")
    if first:
        return Verdict(True, "promoted: the first version")
    newest = measured.newest
    users = len(np.unique(newest.users))
    beyond = f"it has learned {_counted(measured.new_events, 'newer event')}"
    beyond += f" and {_counted(measured.new_items, 'newer item')}" if measured.new_items else ""
    if users < MIN_BOOTSTRAP_USERS:
        told = f"the newest events are of {_counted(users, 'user')}, too few to tell it from the champion"
        return _undecided(measured, told, beyond)
    by, low, high = lead(newest.candidate, newest.champion, newest.users)
    told = (
        f"NDCG@10 {_percent(newest.candidate)} against the champion's {_percent(newest.champion)} on "
        f"{_counted(len(newest.users), 'newest event')} of {_counted(users, 'user')} ({_change(by, low, high)})"
    )
    if high < 0:
        return Verdict(False, f"champion kept: worse on what came last, {told}")
    if low > 0:
        return Verdict(True, f"promoted: better on what came last, {told}")
    return _undecided(measured, told, beyond)


def _undecided(measured: Measured, told: str, beyond: str) -> Verdict:
    if measured.new_events:
        return Verdict(True, f"promoted: not worse beyond doubt, and {beyond}; {told}")
    return Verdict(
        False, f"champion kept: the candidate has learned nothing new and is not better beyond doubt; {told}"
    )


def _objections(measured: Measured, settings: GateSettings) -> list[str | None]:
    return [
        None if measured.finite else "the candidate's weights are not all numbers",
        _too_large(measured.size_bytes, settings.max_version_bytes),
        _forgot(measured.old, settings.forgotten_share),
        _narrow(measured.shown, settings.coverage_share),
        _slow(measured.seconds, settings.latency_ratio),
    ]


def _too_large(size: int, most: int) -> str | None:
    if size <= most:
        return None
    return f"the candidate has {size:,} bytes, gate.max_version_bytes allows {most:,}"


def _forgot(old: Compared, allowed: float) -> str | None:
    """An objection where the loss is beyond what is allowed with all of its interval."""
    if len(np.unique(old.users)) < MIN_BOOTSTRAP_USERS:
        return None
    by, low, high = lead(old.candidate, old.champion, old.users)
    if high >= -allowed:
        return None
    return (
        f"it forgot: NDCG@10 of {_counted(len(np.unique(old.users)), 'user')} without new events fell from "
        f"{_percent(old.champion)} to {_percent(old.candidate)} ({_change(by, low, high)}), "
        f"gate.forgotten_share allows {allowed:.0%}"
    )


def _narrow(shown: tuple[int, int], share: float) -> str | None:
    if shown[1] >= share * shown[0]:
        return None
    return (
        f"it recommends {_counted(shown[1], 'different item')} where the champion has {shown[0]:,}, "
        f"less than gate.coverage_share = {share:g} of them"
    )


def _slow(seconds: tuple[list[float], list[float]], ratio: float) -> str | None:
    """The candidate's best against the champion's usual: a machine that is busy makes nobody slow."""
    if not seconds[0] or not seconds[1]:
        return None
    times = min(seconds[1]) / float(np.median(seconds[0]))
    if times <= ratio:
        return None
    return f"it ranks {times:.1f} times as long as the champion, gate.latency_ratio allows {ratio:g}"


def _percent(ranks: Ranks) -> str:
    return f"{100 * gains(ranks).mean():.2f}%" if len(ranks) else "-"


def _change(by: float, low: float, high: float) -> str:
    if not math.isfinite(by) or abs(by) > 10:
        return "from nothing" if by > 0 else "to nothing"
    return f"{100 * by:+.1f}% [{100 * low:+.1f}, {100 * high:+.1f}]"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
