"""Caps: how much one user's steps of one day count for others, in popularity and in the item-item graph.

Of a user's steps of one day of event time (UTC) count for others

    the first `user_cap` steps of positive kinds, whether undone or not, and among these
    the first `user_item_cap` of each item and kind that are not undone.

First means first in event time, and at equal times in order of arrival. So a new step never changes whether an older
one counts. Only a late step or an undo does, within its day. A step beyond a cap keeps its place in the user's own
sequence.
"""

from collections import Counter
from copy import copy
from typing import NamedTuple

import msgspec
import numpy as np

from state.events import Ints, Records
from state.journal import DAY_MS
from state.kinds import Kinds, Mask
from state.settings import StateSettings
from state.sorting import begins

CAPS_KEY = b"caps"
"""The key of a store's caps in its default column family; stores of earlier versions have none."""

NO_CAP = 2**31
"""More steps than a user has in a day."""
DAYS_IN_MEMORY = 3
"""A stream in memory counts the events of this many newest days. The count of an older day begins again at 0."""
GROUP_FACTOR, KIND_FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
"""Odd factors that spread the keys of groups and kinds over 64 bits."""


class Caps(msgspec.Struct, frozen=True):
    """The caps on each user's steps of one day; 0: none."""

    user_item: int = 0
    user: int = 0
    since_ts: int = 0
    """Event time, ms, of the first day on which they hold."""


class CapsByDay(NamedTuple):
    """The caps that a store has had, the oldest first. Each holds until the next one begins.

    What the rows of a store hold was counted with these caps. So only days that begin later get other ones.
    """

    caps: tuple[Caps, ...]

    @classmethod
    def read(cls, value: bytes | None) -> "CapsByDay":
        """The caps under CAPS_KEY; no caps for a store of an earlier version."""
        return cls(msgspec.json.decode(value, type=tuple[Caps, ...]) if value else (Caps(),))

    @classmethod
    def of(cls, settings: StateSettings) -> "CapsByDay":
        """The configured caps, for every day."""
        return cls((Caps(settings.user_item_cap, settings.user_cap),))

    def followed_by(self, settings: StateSettings, newest_ts: int) -> "CapsByDay":
        """With the configured caps for the days after `newest_ts`, ms, if they differ from the newest ones."""
        last = self.caps[-1]
        if (last.user_item, last.user) == (settings.user_item_cap, settings.user_cap):
            return self
        since = (newest_ts // DAY_MS + 1) * DAY_MS
        kept = tuple(caps for caps in self.caps if caps.since_ts < since)
        return CapsByDay((*kept, Caps(settings.user_item_cap, settings.user_cap, since)))

    def packed(self) -> bytes:
        """The value under CAPS_KEY."""
        return msgspec.json.encode(self.caps)

    def user_cap_at(self, ts: int) -> int:
        """The cap on all steps of one user on the day of this time; 0: none."""
        return next(caps.user for caps in reversed(self.caps) if caps.since_ts <= ts)

    @property
    def lowest_user_cap(self) -> int:
        """The lowest cap on all steps of one user and day."""
        return min((caps.user for caps in self.caps if caps.user), default=NO_CAP)

    def within(self, steps: Records, counting: Mask, lengths: Ints, kinds: Kinds) -> Mask:
        """Which of the steps that are `counting` count for others too.

        `steps` are STEPs, user after user, `lengths[u]` of them each, in order of time, from the beginning of a day
        on. `counting`: those of a positive kind that are not undone.
        """
        if not len(steps) or not any(caps.user_item or caps.user for caps in self.caps):
            return counting
        day, owner = steps["ts"] // DAY_MS, np.repeat(np.arange(len(lengths)), lengths)
        first = begins(day) | begins(owner)
        starts = np.flatnonzero(first)
        positive = kinds.counts[steps["kind"]]
        most = int(np.add.reduceat(positive, starts, dtype=np.int64).max())
        per_item, per_user = (self._at(steps["ts"][starts], name, most) for name in ("user_item", "user"))
        if most <= min(per_item.min(), per_user.min()):
            return counting
        group = np.cumsum(first) - 1
        before = np.cumsum(positive) - positive
        within: Mask = counting & (before - before[starts][group] < per_user[group])
        chosen = np.flatnonzero(within)
        its_group, its_steps = group[chosen], steps[chosen]
        if _may_repeat(its_steps, its_group, int(per_item.min())):
            within[chosen[_ranks(its_steps, its_group) >= per_item[its_group]]] = False
        return within

    def _at(self, ts: Ints, name: str, unlimited: int) -> Ints:
        """The cap of this name at each time; `unlimited` where there is none."""
        values = np.array([getattr(caps, name) or unlimited for caps in self.caps])
        starts = np.array([caps.since_ts for caps in self.caps])
        found: Ints = values[np.searchsorted(starts, ts, "right") - 1]
        return found


class CapsInArrival:
    """The caps of a stream in memory, whose first events of a day are those that arrive first."""

    def __init__(self, settings: StateSettings) -> None:
        self._user_item, self._user = settings.user_item_cap, settings.user_cap
        self._days: dict[int, Counter[int | tuple[int, int, int]]] = {}
        """By day, events of each user, and those of each user, item and kind that count."""

    def within(self, events: Records) -> Mask:
        """Which of the next EVENTs count for others too. All of them must count for their users."""
        shared = np.ones(len(events), bool)
        if not self._user_item and not self._user:
            return shared
        columns = [events[name].tolist() for name in ("user", "item", "kind")]
        days = (events["ts"] // DAY_MS).tolist()
        for row, (day, user, item, kind) in enumerate(zip(days, *columns, strict=True)):
            of_day = self._days.get(day)
            if of_day is None:
                of_day = self._begin(day)
            of_day[user] += 1
            if self._user and of_day[user] > self._user:
                shared[row] = False
                continue
            key = user, item, kind
            if self._user_item and of_day[key] >= self._user_item:
                shared[row] = False
            else:
                of_day[key] += 1
        return shared

    def _begin(self, day: int) -> "Counter[int | tuple[int, int, int]]":
        newest = max(day, *self._days, 0)
        self._days = {known: counts for known, counts in self._days.items() if known > newest - DAYS_IN_MEMORY}
        self._days[day] = Counter()
        return self._days[day]

    def copy(self) -> "CapsInArrival":
        """A copy that continues from here."""
        copied = copy(self)
        copied._days = {day: counts.copy() for day, counts in self._days.items()}
        return copied


def _may_repeat(steps: Records, group: Ints, cap: int) -> bool:
    """Whether a group may have more than `cap` steps of one item and kind; False is certain.

    Values are sorted several times faster than indices.
    """
    keys = steps["item"] + group.astype(np.uint64) * GROUP_FACTOR + steps["kind"].astype(np.uint64) * KIND_FACTOR
    keys.sort()
    return bool((keys[cap:] == keys[:-cap]).any())


def _ranks(steps: Records, group: Ints) -> Ints:
    """How many earlier steps of the same group each step has with its item and kind. Groups are adjacent."""
    order = np.lexsort((steps["kind"], steps["item"], group))
    item, kind, group = steps["item"][order], steps["kind"][order], group[order]
    starts = np.flatnonzero(begins(group) | begins(item) | begins(kind))
    ranks = np.empty(len(steps), np.int64)
    ranks[order] = np.arange(len(steps)) - np.repeat(starts, np.diff(starts, append=len(steps)))
    return ranks
