"""Users owed a recommendation: who was touched by an event that no answer reflects yet.

The marks are not written a user at a time: the journal, written in the same batch as the state, already says which
users each offset touched. What is stored is one number, `answered`, before which nothing is owed; after a crash the
owed users are read back from the journal between it and the next offset. A crash can repeat an answer, never lose one.
"""

from collections.abc import Iterable
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

    def __len__(self) -> int:
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

    def newest(self, count: int) -> dict[int, Debt]:
        """Up to `count` users, those with the newest events first; they stay owed until answered."""
        chosen: dict[int, Debt] = {}
        for user in reversed(self._debts):
            if len(chosen) == count:
                break
            chosen[user] = self._debts[user]
        return chosen

    def clear(self, answered: Iterable[tuple[int, int]]) -> None:
        """Clear (user, offset answered); a user with a newer event stays owed that one."""
        for user, offset in answered:
            debt = self._debts.get(user)
            if debt is None:
                continue
            if debt.offset <= offset:
                del self._debts[user]
            else:
                self._debts[user] = Debt(offset + 1, debt.offset, debt.ts)

    def watermark(self, next_offset: int) -> int:
        """The offset before which nothing is owed."""
        return min((debt.first_offset for debt in self._debts.values()), default=next_offset)
