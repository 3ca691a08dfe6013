"""What is left to do after a user's state was erased: the journal, the tombstone, and the bytes themselves.

The state is erased at once, with the forget event. An `Erasure` stands in the store until the journal's chunks of the
user's days were written anew, a few between two batches, and a tombstone was sent for the user's recommendation. Then
compaction rewrites the files, so that the bytes are gone too.
"""

from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from rocksdict import BottommostLevelCompaction, CompactOptions, Rdict, WriteBatch

from state.journal import Journal
from state.rocksdb import rocksdb

CHUNKS_AT_ONCE = 200

ERASING = b"erasing"
COMPACTING = b"compacting"

_compactions = ThreadPoolExecutor(1, "compaction")
"""One store after the other is rewritten: each wants the disk for itself."""


class Erasure(msgspec.Struct):
    """A user to be forgotten, and what is still to do."""

    user: int
    id: str
    offset: int
    """Of the forget event: what comes after it is a new beginning."""
    days: list[int]
    """Of event time, in which the journal may name the user; none once it does not."""
    told: bool = False
    """Whether the recommendation of before was taken back: by a tombstone, or by one to who came back since."""


class Erasures:
    """The erasures of one store that are not finished."""

    def __init__(self, db: Rdict, columns: dict[str, Any], journal: Journal, path: Path) -> None:
        """Of the store at `path`, whose `columns` are emptied when it closes."""
        self._db, self._columns, self._journal, self._path = db, columns, journal, path
        self.all = msgspec.json.decode(db.get(ERASING) or b"[]", type=list[Erasure])
        self._chunks: Iterator[bytes] | None = None
        self._compaction_due = db.get(COMPACTING) is not None
        self._compaction: Future[None] | None = None

    def begin(self, user: int, name: str, offset: int, days: list[int], write: WriteBatch) -> None:
        """A user's state is erased with this write; the journal may name the user in chunks of these days."""
        known = next((e for e in self.all if e.user == user), None)
        days = sorted({*days, *(known.days if known else [])})
        self._put([*(e for e in self.all if e.user != user), Erasure(user, name, offset, days)], write)

    def untold(self) -> list[Erasure]:
        """Erased users whose last recommendation still stands in the topic."""
        return [e for e in self.all if not e.told]

    def told(self, users: Collection[int], write: WriteBatch) -> None:
        """The last recommendation of these users, of whom many were never forgotten, is not that of before any more."""
        told = [e for e in self.untold() if e.user in users]
        for erasure in told:
            erasure.told = True
        if told:
            self._put(self.all, write)

    def sweep(self) -> None:
        """Do a little of what is left to do; to be called now and then.

        The rewriting of the files takes as long as the store is large, and happens in a thread of its own.
        """
        if self._compaction is not None:
            if not self._compaction.done():
                return
            compaction, self._compaction = self._compaction, None
            with rocksdb("write", self._path):
                compaction.result()
                self._db.delete(COMPACTING)
                self._db.flush()  # begins a new list of files, without the first and last keys of those that are gone
                self._db.put(b"marks", self._db.get(b"marks"))  # a secondary looks again only at a new write
            self._compaction_due = False
        write = WriteBatch(raw_mode=True)
        unswept = next((e for e in self.all if e.days), None)
        if unswept is not None:
            self._sweep_journal(unswept, write)
            self._write(write)
        elif self.all and all(e.told for e in self.all):
            self._put([], write)
            write.put(COMPACTING, b"")
            self._write(write)
            self._compaction_due = True
        elif self._compaction_due:
            self._compaction = _compactions.submit(self._compact)

    def close(self) -> None:
        """Let go of the store; what rewriting it needs begins anew when it is opened."""
        self._chunks = None
        # Kept, one that was broken off would hold its frame, and that a column: the store would stay locked.
        compaction, self._compaction = self._compaction, None
        if compaction is not None and not compaction.cancel():
            self._db.cancel_all_background(True)
            wait([compaction])

    def _sweep_journal(self, erasure: Erasure, write: WriteBatch) -> None:
        """Write some of the journal's chunks without the user; the erasure has no days once there are no more."""
        self._chunks = self._chunks or self._days_of(erasure)
        seen = 0
        with rocksdb("read", self._path):
            for key in islice(self._chunks, CHUNKS_AT_ONCE):
                seen += 1
                self._journal.forget(erasure.user, erasure.offset, key, write)
        if seen < CHUNKS_AT_ONCE:
            self._chunks, erasure.days = None, []
            self._put(self.all, write)

    def _days_of(self, erasure: Erasure) -> Iterator[bytes]:
        """The chunks in which the user may be named."""
        for day in list(erasure.days):
            yield from self._journal.chunks(day, day)

    def _compact(self) -> None:
        """Rewrite the files, so that of what was deleted no byte is left."""
        wholly = CompactOptions()
        wholly.set_bottommost_level_compaction(BottommostLevelCompaction.force())  # else a file is only moved down
        for column in (self._db, *self._columns.values()):
            column.flush()
            column.compact_range(None, None, wholly)

    def _write(self, write: WriteBatch) -> None:
        with rocksdb("write", self._path):
            self._db.write(write)

    def _put(self, erasures: list[Erasure], write: WriteBatch) -> None:
        self.all = erasures
        if erasures:
            write.put(ERASING, msgspec.json.encode(erasures))
        else:
            write.delete(ERASING)
