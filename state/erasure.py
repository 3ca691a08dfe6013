"""The rest of the work after a user's state was erased: the journal, the tombstone, and the bytes in the files.

The state is erased at once, with the forget event. An `Erasure` stays in the store until two things are done: the
journal's chunks of the user's days are rewritten, a few between two batches, and a tombstone for the user's
recommendation is sent. Then compaction rewrites the files, so that the bytes are gone too.

Each erasure has a record of its own. One list of all erasures would be rewritten at every change, so thousands of
forgets in one batch would take quadratic time.
"""

import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import msgspec
import numpy as np
from rocksdict import BottommostLevelCompaction, CompactOptions, Rdict, WriteBatch

from state.journal import Journal
from state.partition import UINT64
from state.progress import PROGRESS_KEY
from state.rocksdb import Database, state_errors

MAX_CHUNKS_PER_SWEEP = 200
MAX_RECORDS_PER_SWEEP = 1000
COMPACT_EVERY_S = 60.0
"""Pause between two compactions of a store, at least: each rewrites all of it."""
COMPACT_PAUSES = 9
"""The pause is at least so many times as long as the last compaction: it takes a tenth of the time at most."""

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
        self._done = [user for user in self._open if self._is_done(user)]
        """Users with no work left but the compaction."""
        self._sweeping: dict[int, Erasure] = {}
        """The erasures whose users are taken out of the chunks that `_chunks` names."""
        self._chunks: Iterator[bytes] = iter(())
        self._due_since = time.monotonic() if database.default.get(COMPACTING_KEY) is not None else None
        """When bytes of forgotten users were first deleted that no compaction has rewritten; None: there are none."""
        self._compaction: Future[float] | None = None
        self._compact_after = 0.0

    def begin(self, user: int, name: str, offset: int, days: list[int], write: WriteBatch) -> None:
        """Add the record of an erasure to the write that erases the state.

        The journal may name the user on these days.
        """
        known = self._open.get(user)
        erasure = Erasure(user, name, offset, sorted({*days, *(known.days if known else [])}))
        self._open[user] = self._without_tombstone[user] = erasure
        if erasure.days:
            self._unswept[user] = erasure
        else:
            self._unswept.pop(user, None)
        self._put(erasure, write)

    @property
    def users(self) -> list[int]:
        """Users whose erasure is unfinished."""
        return list(self._open)

    @property
    def pending(self) -> int:
        """Users whose erasure is unfinished; at least 1 until the files are rewritten."""
        return max(len(self._open), self._due_since is not None)

    @property
    def compacting(self) -> bool:
        """Whether a thread is rewriting the files."""
        return self._compaction is not None

    @property
    def needs_tombstones(self) -> bool:
        """Whether the last recommendation of an erased user is still in the topic."""
        return bool(self._without_tombstone)

    def without_tombstone(self, count: int | None = None) -> list[Erasure]:
        """Up to `count` erased users whose last recommendation is still in the topic; next time, others."""
        some = dict(islice(self._without_tombstone.items(), count))
        for user in some if count is not None else ():
            self._without_tombstone[user] = self._without_tombstone.pop(user)
        return list(some.values())

    def record_tombstones(self, users: Collection[int], write: WriteBatch) -> None:
        """Record that the last recommendation of these users was replaced. Most of them were never forgotten."""
        if not self._without_tombstone:
            return
        for user in users:
            erasure = self._without_tombstone.pop(user, None)
            if erasure is not None:
                erasure.tombstone_sent = True
                self._put(erasure, write)
                if self._is_done(user):
                    self._done.append(user)

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
        if self._done:
            self._remove_records()
        if self._may_compact():
            self._compaction = _compactions.submit(self._compact)

    def close(self) -> None:
        """Release the database. A compaction is cancelled; it begins again when the store is opened."""
        self._chunks = iter(())
        # A cancelled compaction keeps its frame, and the frame a column family: the directory would stay locked.
        compaction, self._compaction = self._compaction, None
        if compaction is not None and not compaction.cancel():
            self._database.default.cancel_all_background(True)
            if (error := compaction.exception()) is not None:
                error.__traceback__ = None  # the thread may keep the error, and so the frame, a moment longer

    def _sweep_journal(self) -> None:
        """Rewrite some of the journal's chunks without the erased users. One pass takes all of them out."""
        if not self._sweeping:
            self._sweeping = dict(sorted(self._unswept.items()))
            self._chunks = self._chunks_of({day for erasure in self._sweeping.values() for day in erasure.days})
        users = np.array(list(self._sweeping), np.uint64)
        offsets = np.array([erasure.offset for erasure in self._sweeping.values()], np.int64)
        write, seen = WriteBatch(raw_mode=True), 0
        with state_errors("read", self._database.path):
            for key in islice(self._chunks, MAX_CHUNKS_PER_SWEEP):
                seen += 1
                self._journal.forget(users, offsets, key, write)
        ended = seen < MAX_CHUNKS_PER_SWEEP
        swept = [e for user, e in self._sweeping.items() if self._unswept.get(user) is e] if ended else []
        for erasure in swept:
            erasure.days = []
            self._put(erasure, write)
        self._database.write(write)
        for erasure in swept:
            del self._unswept[erasure.user]
            if self._is_done(erasure.user):
                self._done.append(erasure.user)
        if ended:
            self._sweeping = {}

    def _chunks_of(self, days: Collection[int]) -> Iterator[bytes]:
        """Keys of the chunks of these days."""
        for day in sorted(days):
            yield from self._journal.chunks(day, day)

    def _is_done(self, user: int) -> bool:
        return user in self._open and user not in self._unswept and user not in self._without_tombstone

    def _remove_records(self) -> None:
        """Remove records of erasures with no work left but the compaction."""
        some, self._done = self._done[:MAX_RECORDS_PER_SWEEP], self._done[MAX_RECORDS_PER_SWEEP:]
        done = [user for user in some if self._is_done(user)]  # else forgotten again since
        write = WriteBatch(raw_mode=True)
        for user in done:
            write.delete(ERASING_PREFIX + UINT64.pack(user))
            del self._open[user]
        if not self._open:
            write.delete(OLD_ERASING_KEY)
        write.put(COMPACTING_KEY, b"")
        self._database.write(write)
        self._due_since = time.monotonic() if self._due_since is None else self._due_since

    def _may_compact(self) -> bool:
        """Whether to rewrite the files now: not soon after the last time, and not while users wait to be included."""
        if self._due_since is None or (now := time.monotonic()) < self._compact_after:
            return False
        return not self._open or now > self._due_since + COMPACT_EVERY_S

    def _compact(self) -> float:
        """Rewrite the files, so that no byte of deleted records is left; return how many seconds it took."""
        began = time.monotonic()
        options = CompactOptions()
        options.set_bottommost_level_compaction(BottommostLevelCompaction.force())  # else it may only move a file
        for column in self._database.families():
            column.flush()
            column.compact_range(None, None, options)
        return time.monotonic() - began

    def _finish_compaction(self, compaction: Future[float]) -> None:
        self._compaction = None
        with state_errors("write", self._database.path):
            took_s = compaction.result()
            default = self._database.default
            default.delete(COMPACTING_KEY)
            default.flush()  # begins a new list of files, without the first and last keys of the deleted ones
            default.put(PROGRESS_KEY, default.get(PROGRESS_KEY))  # a secondary refreshes only after a new write
        self._due_since = None
        self._compact_after = time.monotonic() + max(COMPACT_EVERY_S, COMPACT_PAUSES * took_s)

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
