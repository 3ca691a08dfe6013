"""The expected content of a store, from plain lists: one event after the other, unbounded and unpacked."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest

from state.events import EventBatch, hash_id, make_batch
from state.id_hash import UNKEYED, IdHash
from state.journal import DAY_MS
from state.kinds import code_of
from state.settings import StateSettings
from state.store import Applied, Store


class Event(NamedTuple):
    """A line of the log."""

    user: str
    item: str
    ts: int
    kind: str = "click"
    id: str | None = None


def batch(events: list[Event], first_offset: int, id_hash: IdHash = UNKEYED) -> EventBatch:
    """The decoder's batch of these events."""
    return make_batch(
        [e.user.encode() for e in events],
        [e.item.encode() for e in events],
        ts=[e.ts for e in events],
        offset=first_offset + np.arange(len(events)),
        kind=[code_of(e.kind) for e in events],
        ids={row: e.id.encode() for row, e in enumerate(events) if e.id},
        hashed_by=id_hash.of_many,
    )


def apply(store: Store, *events: Event) -> Applied:
    """Fold events that follow the ones the store has read."""
    start = store.progress.next_offset
    return store.apply(batch(list(events), start, store.ids), start + len(events))


class Oracle:
    """The graph as a list of events in the order of arrival."""

    def __init__(self, settings: StateSettings) -> None:
        self._settings = settings
        self.events: list[Event] = []
        self.newest = 0
        self.too_old = self.duplicate = self.applied = 0
        self._seen: set[tuple[int, str]] = set()
        self._offset = 0

    def add(self, event: Event) -> None:
        """Fold the next event of the log."""
        offset, self._offset = self._offset, self._offset + 1
        kind = self._settings.kinds[event.kind]
        if kind.role == "forget":
            self.events = [e for e in self.events if e.user != event.user]
            return
        if event.id is not None:
            generation = offset // self._settings.dedup_window_events
            if {(generation, event.id), (generation - 1, event.id)} & self._seen:
                self.duplicate += 1
                return
            self._seen.add((generation, event.id))
        if event.ts < self._horizon(max(self.newest, event.ts)):
            self.too_old += 1
            return
        self.newest = max(self.newest, event.ts)
        self.applied += 1
        self.events.append(event)

    def before(self, t: int) -> "Oracle":
        """The graph as it was before a time."""
        past = Oracle(self._settings)
        past.events = [e for e in self.events if e.ts < t]
        return past

    @property
    def horizon(self) -> int:
        """Event time, ms, before which everything has expired."""
        return self._horizon(self.newest)

    def _horizon(self, newest: int) -> int:
        window_ms = int(self._settings.window_s * 1000)
        return max(newest - window_ms, 0) if window_ms else 0

    def graph(self) -> list[Event]:
        """Events that have not expired, in order of time, equal times in order of arrival."""
        return sorted((e for e in self.events if e.ts >= self.horizon), key=lambda e: e.ts)

    def of_user(self, user: str) -> list[Event]:
        """A user's events in order of time."""
        return [e for e in self.graph() if e.user == user]

    def of_item(self, item: str) -> list[Event]:
        """An item's events in order of time."""
        return [e for e in self.graph() if e.item == item]

    def _standing(self, user: str) -> list[tuple[Event, bool]]:
        """A user's events but undos, in order of time, and whether each still stands."""
        steps: list[tuple[Event, bool]] = []
        for event in sorted((e for e in self.events if e.user == user), key=lambda e: e.ts):
            if self._settings.kinds[event.kind].role != "undo":
                steps.append((event, True))
                continue
            for at in range(len(steps) - 1, -1, -1):
                if steps[at][1] and steps[at][0].item == event.item:
                    steps[at] = (steps[at][0], False)
                    break
        return steps

    def not_undone(self, user: str) -> list[Event]:
        """A user's events that were not undone."""
        return [event for event, stands in self._standing(user) if stands]

    def _is_positive(self, event: Event) -> bool:
        kind = self._settings.kinds[event.kind]
        return kind.role == "positive" and kind.weight > 0

    def positives(self, user: str) -> list[Event]:
        """A user's events that count."""
        return [e for e in self.not_undone(user) if self._is_positive(e)]

    def _with_share(self, user: str) -> list[tuple[Event, bool]]:
        """A user's events that count, and whether each counts for others: the first ones of each day do."""
        found: list[tuple[Event, bool]] = []
        of_day: Counter[int] = Counter()
        of_item: Counter[tuple[int, str, str]] = Counter()
        most, most_of_item = (cap or 10**9 for cap in (self._settings.user_cap, self._settings.user_item_cap))
        for event, stands in self._standing(user):
            if not self._is_positive(event):
                continue
            day = event.ts // DAY_MS
            early, of_day[day] = of_day[day] < most, of_day[day] + 1
            if stands:
                key = day, event.item, event.kind
                shared = early and of_item[key] < most_of_item
                of_item[key] += shared
                found.append((event, shared))
        return found

    def shared(self, user: str) -> list[Event]:
        """A user's events that count for others."""
        return [event for event, shared in self._with_share(user) if shared]

    def _users(self) -> set[str]:
        return {e.user for e in self.events}

    def popularity(self, item: str, t: int, since: int = 0, half_life_s: float | None = None) -> float:
        """The decayed weights of the item's events that count for others, at a time."""
        half_life_ms = (half_life_s or self._settings.popularity_half_life_s) * 1000
        return sum(
            self._settings.kinds[e.kind].weight * 2 ** ((e.ts - t) / half_life_ms)
            for user in self._users()
            for e in self.shared(user)
            if e.item == item and e.ts >= since
        )

    def times(self, item: str, since: int = 0) -> tuple[int, int]:
        """The times of the item's oldest and newest event of any kind, from a time on; 0 without one."""
        times = [e.ts for e in self.events if e.item == item and e.ts >= since]
        return min(times, default=0), max(times, default=0)

    def followers(self, item: str, t: int, since: int = 0, within: int | None = None) -> dict[str, float]:
        """The decayed counts of the items that came after an item, at a time.

        `within` so many steps: 1 counts the very next items only.
        """
        half_life_ms, found = self._settings.pair_half_life_s * 1000, defaultdict(float)
        for user in self._users():
            steps = [step for step in self._with_share(user) if step[0].ts >= since]
            for at, (left, of_left) in enumerate(steps):
                nearest = steps[at + 1 : at + 1 + (within or self._settings.pair_window_events)]
                for lag, (right, of_right) in enumerate(nearest, 1):
                    if left.item == item and of_left and of_right:
                        weight = self._settings.kinds[left.kind].weight * self._settings.kinds[right.kind].weight
                        found[right.item] += weight / lag * 2 ** ((right.ts - t) / half_life_ms)
        return dict(found)

    def hidden(self, user: str) -> set[str]:
        """Items that the user does not want to see."""
        kinds = self._settings.kinds
        alive = [e for e in self.not_undone(user) if e.ts >= self.horizon]
        return {e.item for e in alive if kinds[e.kind].role == "negative"}

    def degree(self, item: str, since: int = 0) -> int:
        """Events of the item that count for others, from a time on."""
        return sum(e.item == item and e.ts >= since for user in self._users() for e in self.shared(user))


def assert_rows_are_right(store: Store, oracle: Oracle, items: Sequence[str], since: int = 0) -> None:
    """Check every count of the items' rows; `since`: the event time from which events are still in the store."""
    rows = store.rows(np.array([hash_id(item) for item in items], np.uint64))
    names = {hash_id(item): item for item in items}
    for row, item in enumerate(items):
        at = int(rows.ts[row])
        assert rows.degree[row] == oracle.degree(item, since)
        assert (rows.first_ts[row], rows.last_ts[row]) == oracle.times(item, since)
        recent = [oracle.popularity(item, at, since, half_life_s) for half_life_s in store.settings.half_lives_s]
        assert rows.recent[row].tolist() == pytest.approx(recent, abs=1e-3)
        nodes = rows.nodes[row].tolist()
        after, following = (
            {names[node]: n for node, n in zip(nodes, counts.tolist(), strict=True) if node and n > 1e-3}
            for counts in (rows.after[row], rows.next[row])
        )
        assert after == pytest.approx(over(oracle.followers(item, at, since), 1e-3), abs=2e-3)
        assert following == pytest.approx(over(oracle.followers(item, at, since, within=1), 1e-3), abs=2e-3)


def over(counts: dict[str, float], least: float) -> dict[str, float]:
    """The counts that are larger."""
    return {name: count for name, count in counts.items() if count > least}


def hashed(events: list[Event], end: str) -> list[tuple[int, int, int]]:
    """Events as (other end, time, kind) of the records."""
    return [(hash_id(getattr(e, end)), e.ts, code_of(e.kind)) for e in events]
