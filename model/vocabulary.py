"""Items by index: row 0 is padding, an item keeps its index in every later version."""

import numpy as np
import numpy.typing as npt

from state.events import Ids

Indices = npt.NDArray[np.int64]


class Vocabulary:
    """Item hashes and ids; `hashes[i - 1]` is the item of index i."""

    def __init__(self, hashes: Ids, ids: list[str]) -> None:
        if len(hashes) != len(ids):
            raise ValueError(f"{len(hashes)} hashes for {len(ids)} ids")
        self.hashes = hashes
        self.ids = ids
        self._order = np.argsort(hashes)
        self._sorted = hashes[self._order]

    def __len__(self) -> int:
        return len(self.hashes)

    def lookup(self, hashes: Ids) -> Indices:
        """Indices of the items, any shape; 0 for an unknown one.

        >>> Vocabulary(np.array([30, 10], np.uint64), ["c", "a"]).lookup(np.array([10, 30, 99], np.uint64)).tolist()
        [2, 1, 0]
        """
        if not len(self.hashes):
            return np.zeros(hashes.shape, np.int64)
        place = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        return np.where(self._sorted[place] == hashes, self._order[place] + 1, 0)

    def grow(self, hashes: Ids, ids: list[str]) -> "Vocabulary":
        """With new items behind the old ones."""
        return Vocabulary(np.concatenate([self.hashes, hashes]), self.ids + ids)
