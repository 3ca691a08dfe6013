"""Items by index. Index 0 is padding. An item keeps its index in every later version.

An item that is no longer in any graph loses its index. The index is then free for a new item.
"""

import numpy as np
import numpy.typing as npt

from state.events import Ids
from state.id_hash import IdHash

Indices = npt.NDArray[np.int64]


class Vocabulary:
    """Item hashes and ids. `hashes[i - 1]` is the item of index i; 0 marks a free index."""

    def __init__(self, hashes: Ids, ids: list[str]) -> None:
        if len(hashes) != len(ids):
            raise ValueError(f"{len(hashes)} hashes for {len(ids)} ids")
        self.hashes = hashes
        self.ids = ids
        self._order = np.argsort(hashes)
        self._order = self._order[np.count_nonzero(hashes == 0) :]
        self._sorted = hashes[self._order]

    def __len__(self) -> int:
        return len(self.hashes)

    def lookup(self, hashes: Ids) -> Indices:
        """Indices of the items, in any shape; 0 for an unknown item.

        >>> Vocabulary(np.array([30, 10], np.uint64), ["c", "a"]).lookup(np.array([10, 30, 99], np.uint64)).tolist()
        [2, 1, 0]
        """
        if not len(self._sorted):
            return np.zeros(hashes.shape, np.int64)
        place = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        return np.where(self._sorted[place] == hashes, self._order[place] + 1, 0)

    def grow(self, hashes: Ids, ids: list[str]) -> "Vocabulary":
        """A vocabulary with new items appended."""
        return Vocabulary(np.concatenate([self.hashes, hashes]), self.ids + ids)

    def hashed_by(self, id_hash: IdHash) -> "Vocabulary":
        """The same items with the hashes of an installation's key. So a version outlives a change of the key."""
        hashes = id_hash.of_many([text.encode() for text in self.ids])
        hashes[self.hashes == 0] = 0
        return Vocabulary(hashes, self.ids)

    @property
    def free(self) -> Indices:
        """Indices without an item."""
        return np.flatnonzero(self.hashes == 0) + 1

    def release(self, gone: Ids) -> "Vocabulary":
        """A vocabulary without the items `gone`. Their indices are free."""
        found = self.lookup(gone)
        at = found[found > 0] - 1
        hashes, ids = self.hashes.copy(), list(self.ids)
        hashes[at] = 0
        for index in at.tolist():
            ids[index] = ""
        return Vocabulary(hashes, ids)

    def settle(self, hashes: Ids, ids: list[str]) -> "Vocabulary":
        """A vocabulary with new items: free indices are used first, the rest is appended.

        >>> first = Vocabulary(np.array([30, 10], np.uint64), ["c", "a"])
        >>> first.release(np.array([30], np.uint64)).settle(np.array([7, 8], np.uint64), ["x", "y"]).ids
        ['x', 'a', 'y']
        """
        free = self.free[: len(hashes)] - 1
        settled, names = self.hashes.copy(), list(self.ids)
        settled[free] = hashes[: len(free)]
        for index, name in zip(free.tolist(), ids, strict=False):
            names[index] = name
        return Vocabulary(settled, names).grow(hashes[len(free) :], ids[len(free) :])
