"""A recorded stream as it arrives: all that has come so far, and nothing of what comes."""

from typing import NamedTuple

import numpy as np

from state.events import EVENT, Ids, Ints, Records
from state.graph import MemoryGraph
from state.sequences import STEP, Sequences
from state.settings import StateSettings


class Tests(NamedTuple):
    """Each event whose user has a history by then."""

    before: Sequences
    """That history."""
    targets: Ids
    """[T] the item that came."""
    ts: Ints
    """[T] when, ms."""
    last: np.ndarray
    """[T] whether it is the user's last."""


class RecordedStream:
    """Histories, graph and events up to now."""

    def __init__(self, state: StateSettings) -> None:
        self.graph = MemoryGraph(state)
        self._limit = state.sequence_events
        self._steps: dict[int, Records] = {}
        self._events: list[Records] = [np.empty(0, EVENT)]
        self.count = 0
        """Events that have come."""

    @property
    def users(self) -> Ids:
        """All users so far, the one met first at the front."""
        return np.fromiter(self._steps, np.uint64, len(self._steps))

    def append(self, events: Records) -> None:
        """What came next, in the order it came."""
        steps = np.empty(len(events), STEP)
        for name in ("item", "ts", "kind"):
            steps[name] = events[name]
        order = np.argsort(events["user"], kind="stable")
        users, starts = np.unique(events["user"][order], return_index=True)
        nothing = np.empty(0, STEP)
        for user, own in zip(users.tolist(), np.split(steps[order], starts[1:]), strict=True):
            self._steps[user] = np.concatenate([self._steps.get(user, nothing), own])[-self._limit :]
        self.graph.apply(events)
        self._events.append(events)
        self.count += len(events)

    def events(self, since: int = 0) -> Records:
        """Those that have come, from the one numbered `since` on."""
        self._events = [np.concatenate(self._events)]
        return self._events[0][since:]

    def sequences(self, users: Ids) -> Sequences:
        """Newest steps of these users, empty for one who is not known."""
        nothing = np.empty(0, STEP)
        steps = [self._steps.get(user, nothing) for user in users.tolist()]
        indptr = np.concatenate([[0], np.cumsum([len(s) for s in steps])]).astype(np.int64)
        return Sequences(users, indptr, np.concatenate([nothing, *steps]))

    def tests(self, events: Records) -> Tests:
        """The next events as tests; each knows its user's events before it, those among `events` too."""
        return successive(self.sequences(np.unique(events["user"])), events, self._limit)


def successive(before: Sequences, events: Records, limit: int) -> Tests:
    """Each of these events as a test of its user's history until then; users without one are left out."""
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
