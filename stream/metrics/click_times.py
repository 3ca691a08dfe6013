"""When the broker got the records of one store, to tell for how long a click waited for its recommendation.

The state does not keep these times. So the worker remembers them for the records that are not answered yet: of a large
batch a sample, and of a long time a coarser one. A record between two remembered ones takes the time of the one before
it, so its wait is never shown too short.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from state.events import Ints

SAMPLED = 64
"""Records of one batch that are remembered, about."""
MAX_REMEMBERED = 65_536
"""A store's records that are remembered, 16 bytes each. When they are too many, every second one is dropped, and from
then on every second one is remembered."""


class Timed(Protocol):
    """The parts of a Kafka record that are read."""

    offset: int
    timestamp: int


class ClickTimes:
    """Times of records by their logical offset, both ascending."""

    def __init__(self) -> None:
        self._offsets: Ints = np.zeros(MAX_REMEMBERED, np.int64)
        self._times: Ints = np.zeros(MAX_REMEMBERED, np.int64)
        self._used = self._seen = 0
        self._every = 1
        """Of the sampled records, one in this many is remembered."""
        self.newest_ms = 0
        """Time of the newest record; 0: none was remembered."""

    def remember(self, records: Sequence[Timed], base: int, answered: int) -> None:
        """Remember records that were applied. Their logical offset is `base` larger than that in the log.

        Those below the logical offset `answered` are no longer needed.
        """
        if not records:
            return
        self.newest_ms = records[-1].timestamp
        sampled = records[:: max(len(records) // SAMPLED, 1)]
        if self._used + len(sampled) > MAX_REMEMBERED:
            self._forget(answered, len(sampled))
        some = sampled[-self._seen % self._every :: self._every]
        self._seen += len(sampled)
        end = self._used + len(some)
        self._offsets[self._used : end] = [record.offset + base for record in some]
        self._times[self._used : end] = [record.timestamp for record in some]
        self._used = end

    def of(self, offsets: Iterable[int]) -> list[int]:
        """The times of the records at these logical offsets; records from before the first remembered one have none."""
        known = self._offsets[: self._used]
        at = np.searchsorted(known, np.fromiter(offsets, np.int64), side="right") - 1
        times: list[int] = self._times[at[at >= 0]].tolist()
        return times

    def _forget(self, answered: int, room: int) -> None:
        """Make room: first drop what is answered, then every second record."""
        # The last one before it is the time of the records that follow it up to the next.
        start = max(int(np.searchsorted(self._offsets[: self._used], answered, side="right")) - 1, 0)
        enough = MAX_REMEMBERED - (self._used - start) >= room
        kept = slice(start, self._used, 1 if enough else 2)
        self._every = 1 if enough else 2 * self._every
        offsets, times = self._offsets[kept].copy(), self._times[kept].copy()
        self._used = len(offsets)
        self._offsets[: self._used], self._times[: self._used] = offsets, times
