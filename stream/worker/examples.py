"""What was recommended last to each user, with its features: the user's next event makes an example of it.

Features are those that the list was ranked by, so nothing of an example is computed after the fact. Only memory holds
them until then: after a crash they are lost, and an event that is read again joins nothing.

Memory is bounded: beyond MAX_WAITING users a random one leaves, so that users who pause for long are as likely to stay
as others of their age. Cost is bounded: of the rankings beyond MAX_A_SECOND, a random sample of users is kept. With
100 candidate items a list has 12 kB.
"""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from model.ranker.examples import Example, Shown, example_of
from state.events import Records
from state.kinds import Kinds

MAX_WAITING = 4_096
"""Users whose last list is kept."""
MAX_A_SECOND = 50
"""Lists that are kept a second, on average."""


class Waiting(NamedTuple):
    """The last list of a user."""

    shown: Shown
    version: str
    """The version that ranked it."""


class Made(NamedTuple):
    """What events have made of the lists before them."""

    examples: list[Example]
    missed: int = 0
    """Events of an item that was no candidate item."""


class LastShown:
    """The last lists of one worker's users, with the features of their candidate items."""

    def __init__(self, seed: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._draw, self._clock = np.random.default_rng(seed), clock
        self._waiting: dict[int, Waiting] = {}
        self._users: list[int] = []
        self._place: dict[int, int] = {}
        """Where each user is in `_users`, from which the one that leaves is drawn."""
        self._forgotten: set[int] = set()
        """Users who were forgotten since the present ranking began."""
        self._allowed, self._allowed_at = float(MAX_A_SECOND), clock()

    def __len__(self) -> int:
        return len(self._waiting)

    def choose(self, users: Iterable[int]) -> set[int]:
        """Of users who are about to be ranked, those whose lists are to be kept: all of them, or a random sample."""
        self._forgotten.clear()
        now = self._clock()
        self._allowed = min(MAX_A_SECOND, self._allowed + MAX_A_SECOND * (now - self._allowed_at))
        self._allowed_at = now
        every, count = list(users), int(self._allowed)
        if len(every) > count:
            every = [every[at] for at in self._draw.choice(len(every), count, replace=False).tolist()]
        self._allowed -= len(every)
        return set(every)

    def remember(self, user: int, shown: Shown, version: str) -> None:
        """Replace the user's last list; not that of one who was forgotten while it was ranked."""
        if user in self._forgotten:
            return
        if user not in self._waiting:
            if len(self._users) >= MAX_WAITING:
                self._drop(self._users[int(self._draw.integers(len(self._users)))])
            self._place[user] = len(self._users)
            self._users.append(user)
        self._waiting[user] = Waiting(shown, version)

    def forget(self, users: Iterable[int]) -> None:
        """Drop the lists of these users."""
        for user in users:
            self._forgotten.add(user)
            if user in self._waiting:
                self._drop(user)

    def clear(self) -> None:
        """Drop all lists: another worker may have applied what their users did next."""
        self._waiting.clear()
        self._users.clear()
        self._place.clear()

    def join(self, events: Records, kinds: Kinds) -> Made:
        """The examples that these events make, which were just applied, in log order.

        The first event of a user that counts takes the user's list. One that is older than the list leaves it there.
        """
        examples: list[Example] = []
        missed = 0
        known = self._waiting.keys() & events["user"].tolist()
        if not known:
            return Made(examples)
        counted = events[kinds.counts[events["kind"]]]
        counted = counted[np.isin(counted["user"], np.fromiter(known, np.uint64, len(known)))]
        for user, item, ts in zip(*(counted[f].tolist() for f in ("user", "item", "ts")), strict=True):
            waiting = self._waiting.get(user)
            if waiting is None or ts < waiting.shown.moment:
                continue
            self._drop(user)
            example = example_of(waiting.shown, item, user, ts, waiting.version, self._draw)
            if example is None:
                missed += 1
            else:
                examples.append(example)
        return Made(examples, missed)

    def _drop(self, user: int) -> None:
        del self._waiting[user]
        at, last = self._place.pop(user), self._users.pop()
        if last != user:
            self._users[at], self._place[last] = last, at
