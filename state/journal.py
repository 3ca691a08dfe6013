"""The journal: every applied event in the order of arrival, in chunks of one day of event time.

    journal    first offset of the batch, day, number    -> packed EVENT, in order of arrival
    days       day, first offset of the batch, number    -> nothing

So what is new since an offset is read without anything older, and what lies in a window of event time, or behind the
horizon, without anything newer.
"""

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from rocksdict import WriteBatch

from state.events import EVENT, Records

DAY_MS = 86_400_000
CHUNK_EVENTS = 2048
CHUNK = struct.Struct(">QIH")
DAY = struct.Struct(">IQH")


class Journal:
    """The journal of one store."""

    def __init__(self, columns: dict[str, Any], handles: dict[str, Any]) -> None:
        self._columns, self._handles = columns, handles

    def append(self, events: Records, write: WriteBatch) -> None:
        """Keep a batch."""
        days = events["ts"] // DAY_MS
        offset = int(events["offset"][0])
        for day in np.unique(days).tolist():
            part = events[days == day]
            for number, start in enumerate(range(0, len(part), CHUNK_EVENTS)):
                value = part[start : start + CHUNK_EVENTS].tobytes()
                write.put(CHUNK.pack(offset, day, number), value, self._handles["journal"])
                write.put(DAY.pack(day, offset, number), b"", self._handles["days"])

    def read(self, start: int, end: int) -> Records:
        """EVENTs with start <= offset < end, in order of arrival."""
        it = self._columns["journal"].iter()
        it.seek_for_prev(CHUNK.pack(start, 2**32 - 1, 2**16 - 1))
        if it.valid():
            it.seek(CHUNK.pack(CHUNK.unpack(it.key())[0], 0, 0))
        else:
            it.seek_to_first()
        chunks = [np.empty(0, EVENT)]
        while it.valid() and CHUNK.unpack(it.key())[0] < end:
            events = np.frombuffer(it.value(), EVENT)
            chunks.append(events[(events["offset"] >= start) & (events["offset"] < end)])
            it.next()
        it.status()  # a damaged block looks like the last one
        events = np.concatenate(chunks)
        if (np.diff(events["offset"]) < 0).any():  # a batch of several days
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
        it = self._columns["days"].iter()
        it.seek(DAY.pack(min(first_day, 2**32 - 1), 0, 0))
        while it.valid():
            day, offset, number = DAY.unpack(it.key())
            if day > last_day:
                return
            yield CHUNK.pack(offset, day, number)
            it.next()
        it.status()

    def chunk(self, key: bytes) -> Records:
        """The EVENTs of a chunk."""
        return np.frombuffer(self._columns["journal"].get(key) or b"", EVENT)

    def replace(self, key: bytes, events: Records, write: WriteBatch) -> None:
        """Keep other events, or none, in a chunk's place."""
        offset, day, number = CHUNK.unpack(key)
        if len(events):
            write.put(key, events.tobytes(), self._handles["journal"])
        else:
            write.delete(key, self._handles["journal"])
            write.delete(DAY.pack(day, offset, number), self._handles["days"])

    def forget(self, user: int, offset: int, key: bytes, write: WriteBatch) -> None:
        """Drop the user's events up to an offset from a chunk."""
        events = self.chunk(key)
        kept = events[(events["user"] != user) | (events["offset"] > offset)]
        if len(kept) < len(events):
            self.replace(key, kept, write)
