"""What is left to do after a user's state was erased: the journal, the tombstone, and the bytes themselves.

The state is erased at once, with the forget event. An `Erasure` stands in the store until the journal's chunks of the
user's days were written anew, a few between two batches, and a tombstone was sent for the user's recommendation. Then
compaction rewrites the files, so that the bytes are gone too.
"""

from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from rocksdict import BottommostLevelCompaction, CompactOptions, Rdict, WriteBatch

from state.journal import Journal
from state.partition import KEY
from state.rocksdb import rocksdb

CHUNKS_AT_ONCE = 200

ERASING = b"erasing/"
"""What is still to do for one user stands behind this and the user's key."""
BEFORE_EACH_HAD_ITS_OWN = b"erasing"
"""Where a list of all stood."""
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
        # Thousands may be open, and who is untold or unswept is asked with every batch.
        self._open = {e.user: e for e in unfinished(db)}
        self._unswept = {user: e for user, e in self._open.items() if e.days}
        self._untold = {user: e for user, e in self._open.items() if not e.told}
        self._chunks: Iterator[bytes] | None = None
        self._compaction_due = db.get(COMPACTING) is not None
        self._compaction: Future[None] | None = None

    def begin(self, user: int, name: str, offset: int, days: list[int], write: WriteBatch) -> None:
        """A user's state is erased with this write; the journal may name the user in chunks of these days."""
        if (known := self._open.get(user)) is not None:
            self._chunks = None  # of the days known until now, perhaps of this very user
        erasure = Erasure(user, name, offset, sorted({*days, *(known.days if known else [])}))
        self._open[user] = self._untold[user] = erasure
        if erasure.days:
            self._unswept[user] = erasure
        self._put(erasure, write)

    @property
    def users(self) -> list[int]:
        """Who is being forgotten."""
        return list(self._open)

    def untold(self) -> list[Erasure]:
        """Erased users whose last recommendation still stands in the topic."""
        return list(self._untold.values())

    def told(self, users: Collection[int], write: WriteBatch) -> None:
        """The last recommendation of these users, of whom many were never forgotten, is not that of before any more."""
        for erasure in [self._untold.pop(user) for user in users if user in self._untold] if self._untold else ():
            erasure.told = True
            self._put(erasure, write)

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
        if self._unswept:
            self._sweep_journal()
        elif self._open and not self._untold:
            write = WriteBatch(raw_mode=True)
            for user in self._open:
                write.delete(ERASING + KEY.pack(user))
            write.delete(BEFORE_EACH_HAD_ITS_OWN)
            self._open = {}
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
            if (broken_off := compaction.exception()) is not None:
                broken_off.__traceback__ = None  # the thread may hold it a moment longer, and it the frame

    def _sweep_journal(self) -> None:
        """Write some of the journal's chunks without their users; an erasure has no days once there are no more."""
        left = CHUNKS_AT_ONCE
        while left > 0 and self._unswept:
            erasure = next(iter(self._unswept.values()))
            self._chunks = self._chunks or self._days_of(erasure)
            write, seen = WriteBatch(raw_mode=True), 0
            with rocksdb("read", self._path):
                for key in islice(self._chunks, left):
                    seen += 1
                    self._journal.forget(erasure.user, erasure.offset, key, write)
            if seen < left:
                self._chunks, erasure.days = None, []
                self._put(erasure, write)
            # One user after the other: two of them may stand in one chunk, and a batch does not read its own writes.
            self._write(write)
            if not erasure.days:
                del self._unswept[erasure.user]
            left -= seen + 1

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

    def _put(self, erasure: Erasure, write: WriteBatch) -> None:
        write.put(ERASING + KEY.pack(erasure.user), msgspec.json.encode(erasure))


def unfinished(db: Rdict) -> list[Erasure]:
    """What a store has still to do for users who are to be forgotten."""
    found = msgspec.json.decode(db.get(BEFORE_EACH_HAD_ITS_OWN) or b"[]", type=list[Erasure])
    it = db.iter()
    it.seek(ERASING)
    while it.valid() and it.key().startswith(ERASING):
        found.append(msgspec.json.decode(it.value(), type=Erasure))
        it.next()
    it.status()
    return found
