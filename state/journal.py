"""The journal: every applied event in the order of arrival, in chunks of one day of event time.

    journal    first offset of the batch, day, number    -> packed EVENT, in order of arrival
    days       day, first offset of the batch, number    -> nothing

The first column family finds the events since an offset without reading older ones. The second finds the events of a
window of event time, and the expired ones, without reading other days.
"""

import struct
from collections.abc import Iterator

import numpy as np
from rocksdict import WriteBatch

from state.events import EVENT, Ids, Ints, Records
from state.rocksdb import Database

DAY_MS = 86_400_000
CHUNK_EVENTS = 2048
"""Events in one chunk, at most."""
CHUNK_KEY = struct.Struct(">QIH")
"""First offset of the batch, day, number of the chunk."""
DAY_KEY = struct.Struct(">IQH")
"""Day, first offset of the batch, number of the chunk."""


class Journal:
    """The journal of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, events: Records, write: WriteBatch) -> None:
        """Add the EVENTs of a batch, in order of arrival."""
        days = events["ts"] // DAY_MS
        offset = int(events["offset"][0])
        for day in np.unique(days).tolist():
            part = events[days == day]
            for number, start in enumerate(range(0, len(part), CHUNK_EVENTS)):
                value = part[start : start + CHUNK_EVENTS].tobytes()
                write.put(CHUNK_KEY.pack(offset, day, number), value, self._database.handles["journal"])
                write.put(DAY_KEY.pack(day, offset, number), b"", self._database.handles["days"])

    def read(self, start: int, end: int) -> Records:
        """EVENTs with start <= offset < end, in order of arrival."""
        it = self._database.columns["journal"].iter()
        it.seek_for_prev(CHUNK_KEY.pack(start, 2**32 - 1, 2**16 - 1))
        if it.valid():
            it.seek(CHUNK_KEY.pack(CHUNK_KEY.unpack(it.key())[0], 0, 0))
        else:
            it.seek_to_first()
        chunks = [np.empty(0, EVENT)]
        while it.valid() and CHUNK_KEY.unpack(it.key())[0] < end:
            events = np.frombuffer(it.value(), EVENT)
            chunks.append(events[(events["offset"] >= start) & (events["offset"] < end)])
            it.next()
        it.status()  # an iterator ends at a damaged block; only its status shows the error
        events = np.concatenate(chunks)
        if (np.diff(events["offset"]) < 0).any():  # a batch of several days is stored day by day
            events = events[np.argsort(events["offset"], kind="stable")]
        return events

    def window(self, start: int, end: int) -> Records:
        """EVENTs with start < time <= end, by time, equal times as they arrived; only their days are read."""
        chunks = [np.empty(0, EVENT)]
        for key in self.chunks(max(start + 1, 0) // DAY_MS, max(end, 0) // DAY_MS):
            events = self.chunk(key)
            chunks.append(events[(events["ts"] > start) & (events["ts"] <= end)])
        events = np.concatenate(chunks)
        return events[np.lexsort((events["offset"], events["ts"]))]

    def chunks(self, first_day: int, last_day: int) -> Iterator[bytes]:
        """Keys of the chunks of these days, the oldest day first."""
        it = self._database.columns["days"].iter()
        it.seek(DAY_KEY.pack(min(first_day, 2**32 - 1), 0, 0))
        while it.valid():
            day, offset, number = DAY_KEY.unpack(it.key())
            if day > last_day:
                return
            yield CHUNK_KEY.pack(offset, day, number)
            it.next()
        it.status()

    def chunk(self, key: bytes) -> Records:
        """The EVENTs of a chunk."""
        return np.frombuffer(self._database.columns["journal"].get(key) or b"", EVENT)

    def replace(self, key: bytes, events: Records, write: WriteBatch) -> None:
        """Replace a chunk by other events, or remove it when there are none."""
        offset, day, number = CHUNK_KEY.unpack(key)
        if len(events):
            write.put(key, events.tobytes(), self._database.handles["journal"])
        else:
            write.delete(key, self._database.handles["journal"])
            write.delete(DAY_KEY.pack(day, offset, number), self._database.handles["days"])

    def forget(self, users: Ids, offsets: Ints, key: bytes, write: WriteBatch) -> None:
        """Remove the events of users from a chunk, each user's up to an offset. `users` are sorted and not empty."""
        events = self.chunk(key)
        at = np.minimum(np.searchsorted(users, events["user"]), len(users) - 1)
        kept = events[(users[at] != events["user"]) | (events["offset"] > offsets[at])]
        if len(kept) < len(events):
            self.replace(key, kept, write)
