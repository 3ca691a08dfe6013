"""Examples of the ranker: candidate items with the features they were ranked by, and the item that the user took next.

Features are kept when the list is made and joined with the user's next event. They are never computed again, so an
example cannot know anything that came later.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from state.events import Floats, Ids, Ints

Features = npt.NDArray[np.float16]

NEGATIVES = 40
"""Candidate items of an example beside the one that was taken, at most."""


class Shown(NamedTuple):
    """The candidate items of one user's ranking."""

    items: Ids
    """[n] in no order."""
    features: Features
    """[n, F] as the ranker read them."""
    moment: int
    """Event time, ms, at which they were ranked."""


class Example(NamedTuple):
    """A choice: one of the candidate items was the user's next one."""

    user: int
    """Hash of the user."""
    moment: int
    """Event time, ms, at which the items were ranked."""
    ts: int
    """Event time, ms, of the next event."""
    version: str
    """The version that ranked; empty in an evaluation."""
    items: Ids
    """[n] the item that was taken first, then the drawn others."""
    features: Features
    """[n, F]."""
    stands_for: Floats
    """[n] how many candidate items each row stands for: more than 1 where others were drawn from many."""
    propensity: float = 1.0
    """Probability with which the list showed the item; 1 where nothing was explored."""


def example_of(shown: Shown, taken: int, user: int, ts: int, version: str, draw: np.random.Generator) -> Example | None:
    """The example of a user who took the item `taken` next; None if it was no candidate item."""
    at = np.flatnonzero(shown.items == np.uint64(taken))
    if not len(at):
        return None
    others = np.delete(np.arange(len(shown.items)), at[0])
    stands_for = 1.0
    if len(others) > NEGATIVES:
        stands_for = len(others) / NEGATIVES
        others = draw.choice(others, NEGATIVES, replace=False)
    rows = np.concatenate([at[:1], others])
    counts = np.full(len(rows), stands_for, np.float32)
    counts[0] = 1.0
    return Example(user, shown.moment, ts, version, shown.items[rows], shown.features[rows], counts)


def examples_of(
    shown: Sequence[Shown | None], taken: Ids, users: Ids, times: Ints, draw: np.random.Generator
) -> list[Example]:
    """The examples of rankings in an evaluation or a cycle, of the users [B] who took these items next [B].

    `times` [B] are those of the next events. A ranking without candidate items, or without the taken one, makes none.
    """
    rows = zip(shown, taken.tolist(), users.tolist(), times.tolist(), strict=True)
    made = [example_of(one, item, user, ts, "", draw) for one, item, user, ts in rows if one is not None]
    return [example for example in made if example is not None]


class Ring:
    """The newest examples, at most `capacity` of them, as arrays [capacity, 1 + NEGATIVES, F]."""

    def __init__(self, features: int, capacity: int) -> None:
        self.capacity = capacity
        self._features = np.zeros((min(capacity, 64), 1 + NEGATIVES, features), np.float16)
        self._stands_for = np.zeros(self._features.shape[:2], np.float32)
        self._users = np.zeros(len(self._features), np.uint64)
        self.ts = np.zeros(len(self._features), np.int64)
        """Event time, ms, of the next event of each example."""
        self.count = 0
        """Number of examples that were ever added."""

    def __len__(self) -> int:
        return min(self.count, self.capacity)

    def add(self, examples: Sequence[Example]) -> None:
        """Add examples; the oldest leave."""
        for example in examples:
            at = self.count % self.capacity
            if at >= len(self._features):
                self._grow()
            n = len(example.items)
            self._features[at, :n], self._features[at, n:] = example.features, 0
            self._stands_for[at, :n], self._stands_for[at, n:] = example.stands_for, 0
            self._users[at], self.ts[at] = example.user, example.ts
            self.count += 1

    def newest(self, count: int) -> npt.NDArray[np.int64]:
        """Places of the newest examples, oldest first."""
        first = max(self.count - min(count, len(self)), 0)
        return np.arange(first, self.count) % self.capacity

    def take(self, places: npt.NDArray[np.int64]) -> tuple[Features, Floats]:
        """Features [n, 1 + NEGATIVES, F] and `stands_for` [n, 1 + NEGATIVES]; 0 marks an empty row."""
        return self._features[places], self._stands_for[places]

    def forget(self, user: int) -> None:
        """Remove a user's examples. Their places hold no choice any more."""
        gone = self._users == np.uint64(user)
        self._stands_for[gone], self._features[gone], self._users[gone], self.ts[gone] = 0, 0, 0, 0

    def _grow(self) -> None:
        size = min(self.capacity, 2 * len(self._features))
        for name in ("_features", "_stands_for", "_users", "ts"):
            old = getattr(self, name)
            grown = np.zeros((size, *old.shape[1:]), old.dtype)
            grown[: len(old)] = old
            setattr(self, name, grown)
