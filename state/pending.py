"""Pending users: those touched by an event that no answer reflects yet.

No record of each user is written. The journal, written in the same WriteBatch as the state, records the user that each
offset touched. One number is stored: `answered`, the offset before which nobody is pending. After a crash the pending
users are read back from the journal, from `answered` on. A crash can repeat an answer and never loses one.

Only users with the newest events stay in memory. The others are deferred: they are read back from the journal when all
users in memory are answered, the newest part first.
"""

from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from state.events import Ids, Ints, Records
from state.kinds import Mask

MAX_USERS_IN_MEMORY = 100_000
"""Pending users kept in memory, about 350 bytes each."""
READ_BACK_OFFSETS = 50_000
"""Offsets read back from the journal at once."""
MAX_UNSORTED_ANSWERS = 10_000
"""Answers collected before they are sorted into the columns."""


class Unanswered(NamedTuple):
    """The events of one pending user."""

    first_offset: int
    """Logical offset of the oldest event that no answer reflects."""
    offset: int
    """Logical offset of the newest event."""
    ts: int
    """Event time of the newest event, ms."""


class Pending:
    """The pending users of one partition.

    `claim` hands users out to be answered. For each, `complete` must follow when the answer was sent, or `release` when
    it will not be sent.
    """

    def __init__(
        self,
        read_journal: Callable[[int, int], Records],
        start: int,
        end: int,
        max_in_memory: int = MAX_USERS_IN_MEMORY,
    ) -> None:
        """Begin with the users of the events from offset `start` to `end`, all of them deferred.

        `read_journal(start, end)` reads EVENTs with start <= offset < end.
        """
        self._read_journal, self._max_in_memory = read_journal, max_in_memory
        self._waiting: dict[int, Unanswered] = {}
        """Users in memory that are not claimed, the newest event last."""
        self._claimed: dict[int, Unanswered] = {}
        self._deferred = start, end
        """The offsets of the deferred users' events."""
        self._answered = Answered()

    @property
    def waiting(self) -> int:
        """Users to claim; all deferred users together count as one."""
        return len(self._waiting) + (self._deferred[0] < self._deferred[1])

    @property
    def users(self) -> int:
        """Users that wait or are claimed; all deferred users together count as one."""
        return self.waiting + len(self._claimed)

    @property
    def empty(self) -> bool:
        """Whether no user is pending, neither waiting nor claimed."""
        return not self.users

    @property
    def in_memory(self) -> int:
        """Users in memory that are not claimed."""
        return len(self._waiting)

    def apply(self, events: Records) -> None:
        """Make the users of these EVENTs pending. Offsets must ascend."""
        if not len(events):
            return
        waiting = self._waiting
        # Each user's first and last event in the batch; users in the order of their last, so that the newest end last.
        users, first = np.unique(events["user"], return_index=True)
        last = len(events) - 1 - np.unique(events["user"][::-1], return_index=True)[1]
        order = np.argsort(last)
        first, last = first[order], last[order]
        columns = (users[order], events["offset"][first], events["offset"][last], events["ts"][last])
        for user, first_offset, offset, ts in zip(*(c.tolist() for c in columns), strict=True):
            older = waiting.pop(user, None)
            waiting[user] = Unanswered(older.first_offset if older else first_offset, offset, ts)
        if len(waiting) > self._max_in_memory:
            self._defer_oldest(len(waiting) - self._max_in_memory)

    def claim(self, count: int) -> dict[int, Unanswered]:
        """Up to `count` users to answer now, the newest events first.

        A claimed user stays pending and is not claimed again before `complete` or `release`. When no user is in memory,
        a part of the journal is read back. It may hold no pending user: then nothing is claimed, although more are
        `waiting`.
        """
        if not self._waiting:
            self._read_back()
        chosen: dict[int, Unanswered] = {}
        for user in reversed(self._waiting):
            if len(chosen) == count:
                break
            if user not in self._claimed:
                chosen[user] = self._waiting[user]
        for user in chosen:
            del self._waiting[user]
        self._claimed |= chosen
        return chosen

    def complete(self, users: Iterable[int]) -> set[int]:
        """The answers of these claimed users were sent. Returns those that were still claimed."""
        completed = {user: claimed for user in users if (claimed := self._claimed.pop(user, None)) is not None}
        self._answered.add([(user, unanswered.offset) for user, unanswered in completed.items()])
        return set(completed)

    def forget(self, users: Iterable[int]) -> None:
        """These users are no longer pending, even where they are claimed."""
        for user in users:
            self._waiting.pop(user, None)
            self._claimed.pop(user, None)

    def release(self, users: Iterable[int]) -> None:
        """The answers of these claimed users will not be sent: they wait again, behind users with newer events."""
        again: dict[int, Unanswered] = {}
        for user in users:
            claimed = self._claimed.pop(user, None)
            if claimed is None:
                continue
            newer = self._waiting.get(user)
            if newer is None:
                again[user] = claimed
            else:
                self._waiting[user] = newer._replace(first_offset=claimed.first_offset)
        self._waiting = again | self._waiting

    def watermark(self, next_offset: int) -> int:
        """The offset before which every event is answered."""
        start, end = self._deferred
        first = (unanswered.first_offset for unanswered in chain(self._waiting.values(), self._claimed.values()))
        self._answered.floor = min(chain(first, [start] if start < end else []), default=next_offset)
        return self._answered.floor

    def _defer_oldest(self, count: int) -> None:
        start, end = self._deferred
        if start >= end:
            start, end = 2**63 - 1, 0
        for user, unanswered in list(islice(self._waiting.items(), count)):
            del self._waiting[user]
            start, end = min(start, unanswered.first_offset), max(end, unanswered.offset + 1)
        self._deferred = start, end

    def _read_back(self) -> None:
        """Bring the users of the newest deferred events into memory, except those answered since."""
        start, end = self._deferred
        if start >= end:
            return
        begin = max(start, end - READ_BACK_OFFSETS)
        events = self._read_journal(begin, end)
        self._deferred = start, begin
        claimed = Answered()
        claimed.add([(user, unanswered.offset) for user, unanswered in self._claimed.items()])
        self.apply(events[~self._answered.reflect(events) & ~claimed.reflect(events)])


class Answered:
    """Answered users, each with the newest event that an answer reflects."""

    def __init__(self) -> None:
        self.floor = 0
        """Answers up to events before this offset may be dropped: every event there is answered."""
        self._users: Ids = np.empty(0, np.uint64)
        self._offsets: Ints = np.empty(0, np.int64)
        self._unsorted: list[tuple[int, int]] = []
        """Answers added since the columns were sorted."""

    def add(self, answers: list[tuple[int, int]]) -> None:
        """Add users with the offset that each is answered up to."""
        self._unsorted += answers
        if len(self._unsorted) >= MAX_UNSORTED_ANSWERS:
            self._sort()

    def reflect(self, events: Records) -> Mask:
        """Which of the EVENTs an answer reflects."""
        self._sort()
        if not len(self._users):
            return np.zeros(len(events), bool)
        at = np.minimum(np.searchsorted(self._users, events["user"]), len(self._users) - 1)
        reflected: Mask = (self._users[at] == events["user"]) & (self._offsets[at] >= events["offset"])
        return reflected

    def _sort(self) -> None:
        users = np.concatenate([self._users, np.array([user for user, _ in self._unsorted], np.uint64)])
        offsets = np.concatenate([self._offsets, np.array([offset for _, offset in self._unsorted], np.int64)])
        order = np.lexsort((offsets, users))
        users, offsets = users[order], offsets[order]
        newest = np.append(users[1:] != users[:-1], True)[: len(order)] & (offsets >= self.floor)
        self._users, self._offsets, self._unsorted = users[newest], offsets[newest], []
