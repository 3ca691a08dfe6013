"""The expected content of a store, from plain lists: one event after the other, unbounded and unpacked."""

from typing import NamedTuple

import numpy as np

from state.events import EventBatch, hash_id, make_batch
from state.id_hash import UNKEYED, IdHash
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

    def not_undone(self, user: str) -> list[Event]:
        """A user's events that were not undone."""
        stack: list[Event | None] = []
        for event in sorted((e for e in self.events if e.user == user), key=lambda e: e.ts):
            if self._settings.kinds[event.kind].role != "undo":
                stack.append(event)
                continue
            for at in range(len(stack) - 1, -1, -1):
                if (before := stack[at]) is not None and before.item == event.item:
                    stack[at] = None
                    break
        return [e for e in stack if e is not None]

    def positives(self, user: str) -> list[Event]:
        """A user's events that count."""
        kinds = self._settings.kinds
        return [e for e in self.not_undone(user) if kinds[e.kind].role == "positive" and kinds[e.kind].weight > 0]

    def hidden(self, user: str) -> set[str]:
        """Items that the user does not want to see."""
        kinds = self._settings.kinds
        alive = [e for e in self.not_undone(user) if e.ts >= self.horizon]
        return {e.item for e in alive if kinds[e.kind].role == "negative"}

    def degree(self, item: str, since: int = 0) -> int:
        """Events of the item that count, from a time on."""
        users = {e.user for e in self.events}
        return sum(e.item == item and e.ts >= since for user in users for e in self.positives(user))


def hashed(events: list[Event], end: str) -> list[tuple[int, int, int]]:
    """Events as (other end, time, kind) of the records."""
    return [(hash_id(getattr(e, end)), e.ts, code_of(e.kind)) for e in events]
