"""Users owed a recommendation: who was touched by an event that no answer reflects yet.

The marks are not written a user at a time: the journal, written in the same batch as the state, already says which
users each offset touched. What is stored is one number, `answered`, before which nothing is owed; after a crash the
owed users are read back from the journal between it and the next offset. A crash can repeat an answer, never lose one.
"""

from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

import numpy as np

from state.events import Records


class Debt(NamedTuple):
    """What one user is owed."""

    first_offset: int
    """The oldest event that no answer reflects."""
    offset: int
    """The newest event."""
    ts: int
    """Event time of the newest event, ms."""


class Owed:
    """The owed users of one partition, newest last."""

    def __init__(self) -> None:
        self._debts: dict[int, Debt] = {}
        self._taken: dict[int, Debt] = {}

    def __len__(self) -> int:
        return len(self._debts) + len(self._taken)

    @property
    def waiting(self) -> int:
        """Users nobody is answering yet."""
        return len(self._debts)

    def mark(self, events: Records) -> None:
        """Mark the users of these EVENTs, which ascend by offset."""
        if not len(events):
            return
        debts = self._debts
        # Each user's first and last event in the batch; users in the order of their last, so that the newest end last.
        users, first = np.unique(events["user"], return_index=True)
        last = len(events) - 1 - np.unique(events["user"][::-1], return_index=True)[1]
        order = np.argsort(last)
        first, last = first[order], last[order]
        columns = (users[order], events["offset"][first], events["offset"][last], events["ts"][last])
        for user, first_offset, offset, ts in zip(*(c.tolist() for c in columns), strict=True):
            older = debts.pop(user, None)
            debts[user] = Debt(older.first_offset if older else first_offset, offset, ts)

    def take(self, count: int) -> dict[int, Debt]:
        """Up to `count` users to answer now, those with the newest events first; they stay owed until cleared.

        A user whose answer is on its way is not taken a second time before that is cleared.
        """
        chosen: dict[int, Debt] = {}
        for user in reversed(self._debts):
            if len(chosen) == count:
                break
            if user not in self._taken:
                chosen[user] = self._debts[user]
        for user in chosen:
            del self._debts[user]
        self._taken |= chosen
        return chosen

    def clear(self, users: Iterable[int]) -> set[int]:
        """The answers taken for these users have been sent; those of them who were still owed one."""
        return {user for user in users if self._taken.pop(user, None) is not None}

    def forget(self, users: Iterable[int]) -> None:
        """These users are owed nothing, not even what is on its way to them."""
        for user in users:
            self._debts.pop(user, None)
            self._taken.pop(user, None)

    def give_back(self, users: Iterable[int]) -> None:
        """The answers taken for these users will not be sent: they wait again, behind those with newer events."""
        again: dict[int, Debt] = {}
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
        owed = chain(self._debts.values(), self._taken.values())
        return min((debt.first_offset for debt in owed), default=next_offset)
