"""One partition's store: the only writer of its state.

Everything that a batch of events changes, the next offset included, is written in one RocksDB WriteBatch. The
write-ahead log is not synced: state and offset are lost or kept together, and Kafka has the rest.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from rocksdict import WriteBatch

from state import crash_points as steps
from state.admission import drop_duplicates, drop_too_old
from state.erasure import Erasure, Erasures
from state.errors import StoreBlocked
from state.events import EventBatch, Ids, Records
from state.folding import fold_events
from state.identity import Identity, check_identity
from state.journal import DAY_MS, Journal
from state.partition import KEY, Partition
from state.pending import Pending
from state.progress import Progress
from state.removal import Removed, erase, expire
from state.rocksdb import open_rocksdb, rocksdb
from state.sequences import STEP
from state.settings import StateSettings
from state.timeline import Timelines

EXPIRED_AT_ONCE = 4096
"""Events behind the horizon that leave with a batch, at least; twice as many as it brings where that is more."""


class Applied(NamedTuple):
    """What became of a batch."""

    events: Records
    """Those applied, in log order."""
    duplicate: int
    gained: Records
    """STEPs that count from now on: those of the events to learn from, and what is counted again."""
    lost: Records
    """STEPs that count no longer: undone, expired or erased."""
    gone: Ids
    """Items without any edge left."""
    forgotten: Ids
    """Users erased."""


class Store(Partition):
    """The state of one partition, owned by this process."""

    def __init__(self, path: Path, identity: Identity, settings: StateSettings) -> None:
        """Open or create the store at `path`. Raises a StateError."""
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreBlocked(f"cannot create the store {path}: {error.strerror}", path) from None
        super().__init__(open_rocksdb(path, settings), settings, path)
        try:
            with rocksdb("open", path):
                stored = self.identity
                check_identity(stored, identity, path)
                if stored is None or (identity.topic_id and not stored.topic_id):
                    self._db.put(b"identity", msgspec.json.encode(identity))
                self.progress = self.read_progress()
                self.erasures = Erasures(self._db, self._column, self._journal, path)
                self._answered = self.answered()
                self.pending = Pending(
                    partial(unforgotten, self._journal, self.users, self.erasures, path),
                    self._answered,
                    self.progress.next_offset,
                )
        except Exception:
            super().close()
            raise

    def close(self) -> None:
        """Close the store; it cannot be used afterwards. What rewriting it needs begins anew when it is opened."""
        self.erasures.close()
        super().close()

    def apply(
        self,
        batch: EventBatch,
        next_offset: int,
        *,
        dead: int = 0,
        key_mismatch: int = 0,
        prequential: bytes | None = None,
    ) -> Applied:
        """Fold a batch into the state and write it, with `next_offset`, atomically.

        Events are in log order at logical offsets below `next_offset`; `dead` and `key_mismatch` count what the
        decoder found besides. What leaves the state is written before, in WriteBatches of its own. Raises
        StoreUnreadable or StoreBlocked when RocksDB cannot; nothing more is changed then.
        """
        expired = self._expire(len(batch.events))
        write = WriteBatch(raw_mode=True)
        # Before the forgets: what a user does before one counts as it would have in a batch of its own.
        fresh, duplicate = drop_duplicates(self, batch, self.progress.next_offset, next_offset, write)
        fresh, too_old, newest_ts = drop_too_old(self, fresh, self.progress.newest_ts)
        fresh, dropped, forgotten, erased = self._forget(fresh)
        marks = msgspec.structs.replace(self.progress, newest_ts=newest_ts)
        marks.next_offset = next_offset
        marks.applied += len(fresh.events) + dropped
        marks.erased += dropped
        marks.dead += dead
        marks.duplicate += duplicate
        marks.too_old += too_old
        marks.key_mismatch += key_mismatch
        gained = lost = np.empty(0, STEP)
        if len(fresh.events):
            with rocksdb("read", self.path):
                gained, lost = fold_events(self, fresh, marks, write)
        write.put(b"marks", msgspec.json.encode(marks))
        if prequential is not None:
            write.put(b"prequential", prequential)
        steps.reached(2)
        self._write(write)
        steps.reached(3)
        self.progress = marks
        self.pending.apply(fresh.events)
        removed = [*([expired] if expired else []), *erased]
        gone = np.concatenate([np.empty(0, np.uint64), *(r.items for r in removed)])
        return Applied(
            fresh.events,
            duplicate,
            gained,
            np.concatenate([lost, *(r.steps for r in removed)]),
            np.setdiff1d(gone, fresh.events["item"]),
            forgotten,
        )

    def record_answers(self, answers: list[tuple[int, bytes]]) -> None:
        """Record (user, message sent) of users taken from `owed`, and how far everything is answered."""
        cleared = self.pending.complete(user for user, _ in answers)
        write = WriteBatch(raw_mode=True)
        for user, message in answers:
            if user in cleared:  # else forgotten since
                write.put(KEY.pack(user), message, self._handle["recommended"])
        self.erasures.told(cleared, write)
        watermark = self.pending.watermark(self.progress.next_offset)
        write.put(b"answered", KEY.pack(watermark))
        self._write(write)
        self._answered = watermark

    def record_all_answered(self) -> None:
        """Where nobody is, record it: of duplicates, or of who was forgotten since, no answer comes that would."""
        if self.pending.empty and self._answered < self.progress.next_offset:
            self.record_answers([])

    def tombstones(self) -> list[Erasure]:
        """Who was forgotten, has not come back, and has yet to be told so.

        To who came back a tombstone might be repeated after an answer by another owner of the partition, and stand.
        """
        untold = self.erasures.untold()
        ids = self.user_ids(np.array([e.user for e in untold], np.uint64))
        return [e for e, name in zip(untold, ids, strict=True) if name is None]

    def record_tombstones(self, sent: list[Erasure]) -> None:
        """Record that these were sent."""
        write = WriteBatch(raw_mode=True)
        self.erasures.told({e.user for e in sent}, write)
        self._write(write)

    def begin_new_log(self) -> None:
        """Keep the state and read a new log from its offset 0 (an embedded broker keeps its log in memory only)."""
        self._mark(msgspec.structs.replace(self.progress, base=self.progress.next_offset))

    def skip_to(self, next_offset: int) -> None:
        """Go on from a later logical offset: what lies between was deleted from the log before it was read."""
        lost = self.progress.lost + next_offset - self.progress.next_offset
        self._mark(msgspec.structs.replace(self.progress, next_offset=next_offset, lost=lost))

    def take_over(self, answered: int, prequential: bytes) -> None:
        """Go on for another store of the same log: nothing before `answered` is owed; its prequential counts stand."""
        write = WriteBatch(raw_mode=True)
        self._answered = min(answered, self.progress.next_offset)
        write.put(b"answered", KEY.pack(self._answered))
        write.put(b"prequential", prequential)
        self._write(write)

    def _mark(self, marks: Progress) -> None:
        with rocksdb("write", self.path):
            self._db.put(b"marks", msgspec.json.encode(marks))
        self.progress = marks

    def _expire(self, arriving: int) -> Removed | None:
        """Let what lies behind the horizon leave, in a WriteBatch of its own."""
        horizon = self.progress.horizon(self._settings)
        if horizon // DAY_MS <= self.progress.oldest_ts // DAY_MS:
            return None
        write, marks = WriteBatch(raw_mode=True), msgspec.structs.replace(self.progress)
        with rocksdb("read", self.path):
            removed = expire(self, marks, horizon, max(EXPIRED_AT_ONCE, 2 * arriving), write)
        if removed is None:
            self.progress.oldest_ts = marks.oldest_ts
            return None
        write.put(b"marks", msgspec.json.encode(marks))
        self._write(write)
        self.progress = marks
        self.pending.forget(removed.users.tolist())
        return removed

    def _forget(self, batch: EventBatch) -> "tuple[EventBatch, int, Ids, list[Removed]]":
        """Erase the users who are to be forgotten, each in a WriteBatch of its own.

        What is left of the batch, how many of its events they did before, they, and what left the state with them.

        A batch that is read again after a crash erases them again, which changes nothing.
        """
        forgets = np.flatnonzero(self.kinds.forget[batch.events["kind"]])
        if not len(forgets):
            return batch, 0, np.empty(0, np.uint64), []
        last = dict(zip(batch.events["user"][forgets].tolist(), forgets.tolist(), strict=True))
        removed = []
        for user, row in last.items():
            write, marks = WriteBatch(raw_mode=True), msgspec.structs.replace(self.progress)
            with rocksdb("read", self.path):
                gone, days = erase(self, marks, user, write)
            name, offset = batch.users[row].decode(), int(batch.events["offset"][row])
            self.erasures.begin(user, name, offset, days, write)
            write.put(b"marks", msgspec.json.encode(marks))
            self._write(write)
            self.progress = marks
            self.pending.forget([user])
            removed.append(gone)
        forgotten = np.array(list(last), np.uint64)
        before = np.array([row <= last.get(u, -1) for row, u in enumerate(batch.events["user"].tolist())])
        dropped = int((before & ~self.kinds.forget[batch.events["kind"]]).sum())
        return batch.take(np.flatnonzero(~before)), dropped, forgotten, removed

    def _write(self, write: WriteBatch) -> None:
        with rocksdb("write", self.path):
            self._db.write(write)


def unforgotten(journal: Journal, users: Timelines, erasures: Erasures, path: Path, start: int, end: int) -> Records:
    """The journal from offset to offset, without users whose events are only to be taken out of it yet."""
    with rocksdb("read", path):
        events = journal.read(start, end)
        erased = np.array(erasures.users, np.uint64)
        gone = [head is None for head in users.heads(erased)]
    return events[~np.isin(events["user"], erased[gone])]
