"""The rest of the work after a user's state was erased: the journal, the tombstone, and the bytes in the files.

The state is erased at once, with the forget event. An `Erasure` stays in the store until two things are done: the
journal's chunks of the user's days are rewritten, a few between two batches, and a tombstone for the user's
recommendation is sent. Then compaction rewrites the files, so that the bytes are gone too.

Each erasure has a record of its own. One list of all erasures would be rewritten at every change, so thousands of
forgets in one batch would take quadratic time.
"""

from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import msgspec
from rocksdict import BottommostLevelCompaction, CompactOptions, Rdict, WriteBatch

from state.journal import Journal
from state.partition import UINT64
from state.progress import PROGRESS_KEY
from state.rocksdb import Database, state_errors

MAX_CHUNKS_PER_SWEEP = 200

ERASING_PREFIX = b"erasing/"
"""The key of one erasure is this prefix and the user's key."""
OLD_ERASING_KEY = b"erasing"
"""The key under which earlier versions kept a list of all erasures."""
COMPACTING_KEY = b"compacting"
"""This key exists until the files have been rewritten."""

_compactions = ThreadPoolExecutor(1, "compaction")
"""One store is rewritten at a time: each needs the whole disk."""


class Erasure(msgspec.Struct):
    """A forgotten user, and the work that is left."""

    user: int
    id: str
    offset: int
    """Logical offset of the forget event. Later events of the user are not erased."""
    days: list[int]
    """Days of event time in which the journal may name the user; empty when no chunk is left to rewrite."""
    tombstone_sent: bool = msgspec.field(name="told", default=False)
    """Whether the last recommendation was replaced: by a tombstone, or by a newer one if the user came back."""


class Erasures:
    """The unfinished erasures of one store."""

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database, self._journal = database, journal
        # There may be thousands, and every batch asks for those without a tombstone and those to sweep.
        self._open = {e.user: e for e in read_erasures(database.default)}
        self._unswept = {user: e for user, e in self._open.items() if e.days}
        self._without_tombstone = {user: e for user, e in self._open.items() if not e.tombstone_sent}
        self._chunks: Iterator[bytes] | None = None
        self._compaction_due = database.default.get(COMPACTING_KEY) is not None
        self._compaction: Future[None] | None = None

    def begin(self, user: int, name: str, offset: int, days: list[int], write: WriteBatch) -> None:
        """Add the record of an erasure to the write that erases the state.

        The journal may name the user on these days.
        """
        if (known := self._open.get(user)) is not None:
            self._chunks = None  # the iterator may not include the new days
        erasure = Erasure(user, name, offset, sorted({*days, *(known.days if known else [])}))
        self._open[user] = self._without_tombstone[user] = erasure
        if erasure.days:
            self._unswept[user] = erasure
        self._put(erasure, write)

    @property
    def users(self) -> list[int]:
        """Users whose erasure is unfinished."""
        return list(self._open)

    @property
    def compacting(self) -> bool:
        """Whether a thread is rewriting the files."""
        return self._compaction is not None

    def without_tombstone(self) -> list[Erasure]:
        """Erased users whose last recommendation is still in the topic."""
        return list(self._without_tombstone.values())

    def record_tombstones(self, users: Collection[int], write: WriteBatch) -> None:
        """Record that the last recommendation of these users was replaced. Most of them were never forgotten."""
        if not self._without_tombstone:
            return
        for user in users:
            erasure = self._without_tombstone.pop(user, None)
            if erasure is not None:
                erasure.tombstone_sent = True
                self._put(erasure, write)

    def sweep(self) -> None:
        """Do a part of the remaining work. The worker calls it between batches.

        Rewriting the files of a large store takes long, so it runs in a thread.
        """
        if self._compaction is not None:
            if not self._compaction.done():
                return
            self._finish_compaction(self._compaction)
        if self._unswept:
            self._sweep_journal()
        elif self._open and not self._without_tombstone:
            write = WriteBatch(raw_mode=True)
            for user in self._open:
                write.delete(ERASING_PREFIX + UINT64.pack(user))
            write.delete(OLD_ERASING_KEY)
            self._open = {}
            write.put(COMPACTING_KEY, b"")
            self._database.write(write)
            self._compaction_due = True
        elif self._compaction_due:
            self._compaction = _compactions.submit(self._compact)

    def close(self) -> None:
        """Release the database. A compaction is cancelled; it begins again when the store is opened."""
        self._chunks = None
        # A cancelled compaction keeps its frame, and the frame a column family: the directory would stay locked.
        compaction, self._compaction = self._compaction, None
        if compaction is not None and not compaction.cancel():
            self._database.default.cancel_all_background(True)
            if (error := compaction.exception()) is not None:
                error.__traceback__ = None  # the thread may keep the error, and so the frame, a moment longer

    def _sweep_journal(self) -> None:
        """Rewrite some of the journal's chunks without their erased users; an erasure without days is swept."""
        left = MAX_CHUNKS_PER_SWEEP
        while left > 0 and self._unswept:
            erasure = next(iter(self._unswept.values()))
            self._chunks = self._chunks or self._chunks_of(erasure)
            write, seen = WriteBatch(raw_mode=True), 0
            with state_errors("read", self._database.path):
                for key in islice(self._chunks, left):
                    seen += 1
                    self._journal.forget(erasure.user, erasure.offset, key, write)
            if seen < left:
                self._chunks, erasure.days = None, []
                self._put(erasure, write)
            # A WriteBatch does not see its own writes, and two users may be in one chunk: each user has one of its own.
            self._database.write(write)
            if not erasure.days:
                del self._unswept[erasure.user]
            left -= seen + 1

    def _chunks_of(self, erasure: Erasure) -> Iterator[bytes]:
        """Keys of the chunks that may name the user."""
        for day in list(erasure.days):
            yield from self._journal.chunks(day, day)

    def _compact(self) -> None:
        """Rewrite the files, so that no byte of deleted records is left."""
        options = CompactOptions()
        options.set_bottommost_level_compaction(BottommostLevelCompaction.force())  # else it may only move a file
        for column in self._database.families():
            column.flush()
            column.compact_range(None, None, options)

    def _finish_compaction(self, compaction: Future[None]) -> None:
        self._compaction = None
        with state_errors("write", self._database.path):
            compaction.result()
            default = self._database.default
            default.delete(COMPACTING_KEY)
            default.flush()  # begins a new list of files, without the first and last keys of the deleted ones
            default.put(PROGRESS_KEY, default.get(PROGRESS_KEY))  # a secondary refreshes only after a new write
        self._compaction_due = False

    def _put(self, erasure: Erasure, write: WriteBatch) -> None:
        write.put(ERASING_PREFIX + UINT64.pack(erasure.user), msgspec.json.encode(erasure))


def read_erasures(default: Rdict) -> list[Erasure]:
    """The unfinished erasures in a store's default column family."""
    found = msgspec.json.decode(default.get(OLD_ERASING_KEY) or b"[]", type=list[Erasure])
    it = default.iter()
    it.seek(ERASING_PREFIX)
    while it.valid() and it.key().startswith(ERASING_PREFIX):
        found.append(msgspec.json.decode(it.value(), type=Erasure))
        it.next()
    it.status()
    return found
