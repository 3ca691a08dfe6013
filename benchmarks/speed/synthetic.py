"""Synthetic events: users are equally likely, popular items occur more often, time increases."""

import numpy as np

from state.events import EventBatch, make_batch

START_MS = 1_600_000_000_000


class Synthetic:
    """A source of events for this many users and items. Each user's events are in one partition."""

    def __init__(self, users: int, items: int, partitions: int, seed: int = 0) -> None:
        self._users, self._items, self._partitions = users, items, partitions
        self._draw = np.random.default_rng(seed)
        self._drawn = 0

    def batch(self, partition: int, offset: int, size: int) -> EventBatch:
        """The next events of a partition, starting at this offset."""
        users = self._draw.integers(0, self._users // self._partitions, size) * self._partitions + partition
        items = (self._items * self._draw.random(size) ** 2).astype(np.int64)
        names = [[b"%s-%d" % (kind, n) for n in ids.tolist()] for kind, ids in ((b"u", users), (b"i", items))]
        n = np.arange(size)
        batch = make_batch(names[0], names[1], ts=START_MS + self._drawn + n, offset=offset + n)
        self._drawn += size
        return batch
