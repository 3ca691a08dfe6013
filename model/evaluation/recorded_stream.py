"""A recorded stream, event by event: it never holds an event that has not arrived yet."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from state.events import EVENT, Ids, Ints, Records, hash_ids, make_events
from state.graph import MemoryGraph, Rows
from state.sequences import STEP, Sequences, steps_of
from state.settings import StateSettings


def as_events(users: list[str], items: list[str], ts: np.ndarray) -> tuple[Records, dict[int, str]]:
    """EVENT records in arrival order, and item ids by hash.

    Ids are hashed without a key: the file is one's own, and nobody else is looked up by them.
    """
    user_hashes, item_hashes = (hash_ids([name.encode() for name in names]) for names in (users, items))
    events = make_events(user_hashes, item_hashes, ts=ts, offset=np.arange(len(ts)))
    return events, dict(zip(events["item"].tolist(), items, strict=True))


class Tests(NamedTuple):
    """Events to predict. The first event of a user is not a test: there is no history to predict it from."""

    before: Sequences
    """[T] the user's history before each event."""
    targets: Ids
    """[T] the item of the event."""
    ts: Ints
    """[T] the time of the event, ms."""
    last: np.ndarray
    """[T] whether the test is its user's last."""


class RecordedStream:
    """Histories, graph and events up to now. A `Source` of cycles, like the workers' state in production."""

    def __init__(self, state: StateSettings) -> None:
        self.graph = MemoryGraph(state)
        self._limit = state.sequence_events
        self._steps: dict[int, Records] = {}
        self._events: list[Records] = [np.empty(0, EVENT)]
        self.count = 0
        """Events so far."""

    @property
    def users(self) -> Ids:
        """All users so far, ordered by their first events."""
        return np.fromiter(self._steps, np.uint64, len(self._steps))

    def all_users(self) -> Ids:
        """All users so far, ordered by hash."""
        return np.sort(self.users)

    def some_users(self, count: int, seed: int) -> Ids:
        """Up to `count` users, sampled uniformly, ordered by hash."""
        return np.sort(np.random.default_rng(seed).permutation(self.all_users())[:count])

    def positives(self, users: Ids) -> Sequences:
        """The users' sequences. All recorded events are clicks and may be learned from."""
        return self.sequences(users)

    def item_ids(self, items: Ids) -> list[bytes | None]:
        """The item hashes as text: an evaluation needs no ids."""
        return [f"{item:016x}".encode() for item in items.tolist()]

    @property
    def rows(self) -> Callable[[Ids], Rows]:
        """Rows of the live item-item graph."""
        return self.graph.rows

    def append(self, events: Records) -> Records:
        """Append the next events, in arrival order; return those that count for others (`state/caps.py`)."""
        steps = steps_of(events)
        order = np.argsort(events["user"], kind="stable")
        users, starts = np.unique(events["user"][order], return_index=True)
        no_steps = np.empty(0, STEP)
        for user, own in zip(users.tolist(), np.split(steps[order], starts[1:]), strict=True):
            self._steps[user] = np.concatenate([self._steps.get(user, no_steps), own])[-self._limit :]
        shared = self.graph.apply(events)
        self._events.append(events)
        self.count += len(events)
        return shared

    def events(self, since: int = 0) -> Records:
        """The events so far, starting at event number `since`."""
        self._events = [np.concatenate(self._events)]
        return self._events[0][since:]

    def sequences(self, users: Ids) -> Sequences:
        """The newest steps of these users. An unknown user has none."""
        no_steps = np.empty(0, STEP)
        steps = [self._steps.get(user, no_steps) for user in users.tolist()]
        indptr = np.concatenate([[0], np.cumsum([len(s) for s in steps])]).astype(np.int64)
        return Sequences(users, indptr, np.concatenate([no_steps, *steps]))

    def tests(self, events: Records) -> Tests:
        """The next events as tests. Earlier events of the same batch are part of a user's history."""
        return successive(self.sequences(np.unique(events["user"])), events, self._limit)


def successive(before: Sequences, events: Records, limit: int) -> Tests:
    """Each event as a test with its user's history up to then. Events without a history are left out."""
    row_of = {user: row for row, user in enumerate(before.users.tolist())}
    history: dict[int, Records] = {}
    tested: list[int] = []
    histories: list[Records] = []
    last: dict[int, int] = {}
    for number, event in enumerate(events):
        user = int(event["user"])
        if user not in history:
            row = row_of.get(user)
            history[user] = before.of(row) if row is not None else np.empty(0, STEP)
        if len(history[user]):
            last[user] = len(tested)
            tested.append(number)
            histories.append(history[user])
        step = np.array([(event["item"], event["ts"], event["kind"])], STEP)
        history[user] = np.concatenate([history[user], step])[-limit:]
    indptr = np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64)
    steps = np.concatenate([np.empty(0, STEP), *histories])
    is_last = np.zeros(len(tested), bool)
    is_last[list(last.values())] = True
    chosen = events[tested]
    return Tests(Sequences(chosen["user"], indptr, steps), chosen["item"], chosen["ts"], is_last)
