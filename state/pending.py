"""Users owed a recommendation: who was touched by an event that no answer reflects yet.

The marks are not written a user at a time: the journal, written in the same batch as the state, already says which
users each offset touched. What is stored is one number, `answered`, before which nothing is owed; after a crash the
owed users are read back from the journal between it and the next offset. A crash can repeat an answer, never lose one.

Only so many users are kept at hand, those with the newest events; the others are put off, and read back from the
journal in the same way, a part at a time and the newest first, when all at hand are answered.
"""

from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from state.events import Ids, Ints, Records
from state.kinds import Mask

IN_MEMORY_USERS = 100_000
"""Users kept in memory, some 350 bytes each."""
READ_AT_ONCE = 50_000
"""Offsets read back from the journal at once."""
SORTED_AT_ONCE = 10_000


class Unanswered(NamedTuple):
    """What one user is owed."""

    first_offset: int
    """The oldest event that no answer reflects."""
    offset: int
    """The newest event."""
    ts: int
    """Event time of the newest event, ms."""


class Pending:
    """The owed users of one partition, newest last."""

    def __init__(
        self, journal: Callable[[int, int], Records], start: int, end: int, in_memory: int = IN_MEMORY_USERS
    ) -> None:
        """`journal` reads EVENTs with start <= offset < end; of those from `start` to `end` nobody is answered yet."""
        self._journal, self._at_hand = journal, in_memory
        self._debts: dict[int, Unanswered] = {}
        self._taken: dict[int, Unanswered] = {}
        self._put_off = start, end
        """Offsets whose events' users may be owed besides."""
        self._answered = Answered()

    @property
    def waiting(self) -> int:
        """Users nobody is answering yet; those put off, however many, are one."""
        return len(self._debts) + (self._put_off[0] < self._put_off[1])

    @property
    def empty(self) -> bool:
        """Whether no user is owed anything, not even what is on its way."""
        return not self.waiting and not self._taken

    @property
    def in_memory(self) -> int:
        """Users in memory whom nobody is answering yet."""
        return len(self._debts)

    def apply(self, events: Records) -> None:
        """Mark the users of these EVENTs, which ascend by offset."""
        if not len(events):
            return
        unanswered = self._debts
        # Each user's first and last event in the batch; users in the order of their last, so that the newest end last.
        users, first = np.unique(events["user"], return_index=True)
        last = len(events) - 1 - np.unique(events["user"][::-1], return_index=True)[1]
        order = np.argsort(last)
        first, last = first[order], last[order]
        columns = (users[order], events["offset"][first], events["offset"][last], events["ts"][last])
        for user, first_offset, offset, ts in zip(*(c.tolist() for c in columns), strict=True):
            older = unanswered.pop(user, None)
            unanswered[user] = Unanswered(older.first_offset if older else first_offset, offset, ts)
        if len(unanswered) > self._at_hand:
            self._put_off_oldest(len(unanswered) - self._at_hand)

    def claim(self, count: int) -> dict[int, Unanswered]:
        """Up to `count` users to answer now, those with the newest events first; they stay owed until cleared.

        A user whose answer is on its way is not taken a second time before that is cleared. Where none are at hand a
        part of the journal is read, in which nobody may be owed anything: then there are none, and more `waiting`.
        """
        if not self._debts:
            self._read_back()
        chosen: dict[int, Unanswered] = {}
        for user in reversed(self._debts):
            if len(chosen) == count:
                break
            if user not in self._taken:
                chosen[user] = self._debts[user]
        for user in chosen:
            del self._debts[user]
        self._taken |= chosen
        return chosen

    def complete(self, users: Iterable[int]) -> set[int]:
        """The answers taken for these users have been sent; those of them who were still owed one."""
        cleared = {user: unanswered for user in users if (unanswered := self._taken.pop(user, None)) is not None}
        self._answered.add([(user, unanswered.offset) for user, unanswered in cleared.items()])
        return set(cleared)

    def forget(self, users: Iterable[int]) -> None:
        """These users are owed nothing, not even what is on its way to them."""
        for user in users:
            self._debts.pop(user, None)
            self._taken.pop(user, None)

    def release(self, users: Iterable[int]) -> None:
        """The answers taken for these users will not be sent: they wait again, behind those with newer events."""
        again: dict[int, Unanswered] = {}
        for user in users:
            taken = self._taken.pop(user, None)
            if taken is None:
                continue
            newer = self._debts.get(user)
            if newer is None:
                again[user] = taken
            else:
                self._debts[user] = newer._replace(first_offset=taken.first_offset)
        self._debts = again | self._debts

    def watermark(self, next_offset: int) -> int:
        """The offset before which nothing is owed."""
        start, end = self._put_off
        owed = (unanswered.first_offset for unanswered in chain(self._debts.values(), self._taken.values()))
        self._answered.floor = min(chain(owed, [start] if start < end else []), default=next_offset)
        return self._answered.floor

    def _put_off_oldest(self, count: int) -> None:
        start, end = self._put_off
        if start >= end:
            start, end = 2**63 - 1, 0
        for user, unanswered in list(islice(self._debts.items(), count)):
            del self._debts[user]
            start, end = min(start, unanswered.first_offset), max(end, unanswered.offset + 1)
        self._put_off = start, end

    def _read_back(self) -> None:
        """Put the users of the newest events that were put off at hand again, but for those who have an answer."""
        start, end = self._put_off
        if start >= end:
            return
        begin = max(start, end - READ_AT_ONCE)
        events = self._journal(begin, end)
        self._put_off = start, begin
        on_their_way = Answered()
        on_their_way.add([(user, unanswered.offset) for user, unanswered in self._taken.items()])
        self.apply(events[~self._answered.reflect(events) & ~on_their_way.reflect(events)])


class Answered:
    """Users who have been answered, each with the newest event that an answer reflects."""

    def __init__(self) -> None:
        self.floor = 0
        """Answers up to events before this offset may be forgotten: nobody is owed anything there."""
        self._users: Ids = np.empty(0, np.uint64)
        self._offsets: Ints = np.empty(0, np.int64)
        self._since: list[tuple[int, int]] = []
        """What was added since the columns were sorted."""

    def add(self, answers: list[tuple[int, int]]) -> None:
        """Users, and the offsets that they have been answered up to."""
        self._since += answers
        if len(self._since) >= SORTED_AT_ONCE:
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
        users = np.concatenate([self._users, np.array([user for user, _ in self._since], np.uint64)])
        offsets = np.concatenate([self._offsets, np.array([offset for _, offset in self._since], np.int64)])
        order = np.lexsort((offsets, users))
        users, offsets = users[order], offsets[order]
        kept = np.append(users[1:] != users[:-1], True)[: len(order)] & (offsets >= self.floor)
        self._users, self._offsets, self._since = users[kept], offsets[kept], []
