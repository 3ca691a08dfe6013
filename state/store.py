"""One partition's store: the only writer of its state.

All changes by a batch of events, the next offset included, are written in one RocksDB WriteBatch. The write-ahead log
is not synced: state and offset are lost or kept together, and Kafka has the rest.
"""

import time
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from rocksdict import WriteBatch

from state import crash_points
from state.admission import drop_duplicates, drop_too_old
from state.caps import CAPS_KEY, CapsByDay
from state.erasure import Erasure, Erasures
from state.errors import StoreBlocked
from state.events import EventBatch, Ids, Records, packed_keys
from state.folding import fold_events
from state.identity import Identity, check_identity, check_rows
from state.journal import DAY_MS, Journal
from state.partition import UINT64, Partition
from state.pending import Pending
from state.progress import PROGRESS_KEY, Progress
from state.removal import Removed, erase, expire
from state.rocksdb import state_errors
from state.sequences import STEP
from state.settings import StateSettings
from state.timeline import Timelines

MIN_EXPIRED_EVENTS = 4096
"""Expired events removed with each batch, at least; twice the size of the batch where that is more."""
ERASED_AT_ONCE = 1000
"""Users erased in one WriteBatch."""


class Applied(NamedTuple):
    """The effect of a batch."""

    events: Records
    """The EVENTs that were applied, in log order."""
    duplicate: int
    """How many events were dropped as duplicates."""
    gained: Records
    """STEPs that count for others from now on: of new events, and of older ones that an undo made room for."""
    lost: Records
    """STEPs that no longer count for others: undone, pushed beyond a cap, expired or erased."""
    gone: Ids
    """Items without any edge left."""
    forgotten: Ids
    """Users who were erased."""
    write_s: float = 0.0
    """How long RocksDB took to write the batch."""


class Store(Partition):
    """The state of one partition, owned by this process."""

    def __init__(self, path: Path, identity: Identity, settings: StateSettings) -> None:
        """Open or create the store at `path`. Raises a StateError; EarlierLayout for one that is to be upgraded."""
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreBlocked(
                f"cannot create the store {path}: {error.strerror}; the disk needs room, and the user that runs "
                f"anabranch the right to write there (chown -R)",
                path,
            ) from None
        super().__init__(path, settings)
        try:
            with state_errors("open", path):
                stored = self.identity
                check_identity(stored, identity, path)
                check_rows(stored, path)
                if stored is None or (identity.topic_id and not stored.topic_id):
                    self.database.put(b"identity", msgspec.json.encode(identity))
                self.progress = self.read_progress()
                self._follow_caps()
                self.erasures = Erasures(self.database, self.events)
                self._answered = self.answered()
                # No bound method: a cycle would keep a store that is dropped unclosed locked until it is collected.
                read_journal = partial(_journal_without_erased, self.events, self.users, self.erasures, path)
                self.pending = Pending(read_journal, self._answered, self.progress.next_offset)
        except Exception:
            super().close()
            raise

    @property
    def caps(self) -> CapsByDay:
        """The caps on how much one user's steps count for others."""
        return self._caps

    @property
    def answered_before(self) -> int:
        """The logical offset before which every event has had its recommendation, without a read of the disk."""
        return self._answered

    def close(self) -> None:
        """Close the store; it cannot be used afterwards. An unfinished compaction begins again at the next open."""
        self.erasures.close()
        super().close()

    def apply(
        self,
        batch: EventBatch,
        next_offset: int,
        *,
        dead: int = 0,
        key_mismatch: int = 0,
        keyless: int = 0,
        foreign_partition: int = 0,
        prequential: bytes | None = None,
        unknown: Collection[str] = (),
    ) -> Applied:
        """Fold a batch into the state and write it, with `next_offset`, atomically.

        `unknown` are those `unknown_forgotten` whose tombstones were sent: their forgets change nothing.

        Events are in log order, at logical offsets below `next_offset`. `dead`, `key_mismatch`, `keyless` and
        `foreign_partition` are counts of their records. Expired and forgotten events are removed first, in WriteBatches
        of their own. Raises StoreUnreadable or StoreBlocked when RocksDB fails; nothing more is changed then.
        """
        expired = self._expire(len(batch.events))
        write = WriteBatch(raw_mode=True)
        # Before the forgets: what a user does before one counts as it would have in a batch of its own.
        fresh, duplicate = drop_duplicates(self, batch, self.progress.next_offset, next_offset, write)
        fresh, too_old, newest_ts = drop_too_old(self, fresh, self.progress.newest_ts)
        fresh, dropped, forgotten, erased = self._forget(fresh, unknown)
        progress = msgspec.structs.replace(self.progress, newest_ts=newest_ts)
        progress.next_offset = next_offset
        progress.applied += len(fresh.events) + dropped
        progress.erased += dropped
        progress.dead += dead
        progress.duplicate += duplicate
        progress.too_old += too_old
        progress.key_mismatch += key_mismatch
        progress.keyless += keyless
        progress.foreign_partition += foreign_partition
        gained = lost = np.empty(0, STEP)
        if len(fresh.events):
            with state_errors("read", self.path):
                gained, lost = fold_events(self, fresh, progress, write)
        if prequential is not None:
            write.put(b"prequential", prequential)
        crash_points.reached(2)
        began = time.perf_counter()
        self._write(write, progress)
        write_s = time.perf_counter() - began
        crash_points.reached(3)
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
            write_s,
        )

    def record_answers(self, answers: list[tuple[int, bytes]]) -> None:
        """Record the messages sent to claimed users, as (user, message), and how far every event is answered."""
        completed = self.pending.complete(user for user, _ in answers)
        write = WriteBatch(raw_mode=True)
        for user, message in answers:
            if user in completed:  # else forgotten since
                write.put(UINT64.pack(user), message, self.database.handles["recommended"])
        self.erasures.record_tombstones(completed, write)
        watermark = self.pending.watermark(self.progress.next_offset)
        write.put(b"answered", UINT64.pack(watermark))
        self.database.write(write)
        self._answered = watermark

    def record_all_answered(self) -> None:
        """Record that no user is pending where no answer records it: after duplicates, or when they were forgotten."""
        if self.pending.empty and self._answered < self.progress.next_offset:
            self.record_answers([])

    def unknown_forgotten(self, batch: EventBatch) -> list[str]:
        """Users whom the batch forgets and of whom the store holds nothing."""
        forgets = self._forgets(batch)
        users = np.array(list(forgets), np.uint64)
        if not len(users) or next(self.events.chunks(0, self.horizon() // DAY_MS), None) is not None:
            return []  # days behind the horizon may name users whose state has expired
        for column in ("sequences", "hidden", "recommended"):
            found = self.database.get_many(column, packed_keys(users))
            users = users[np.array([value is None for value in found], bool)]
        return [batch.users[forgets[user]].decode() for user in users.tolist()]

    def tombstones(self, count: int) -> list[Erasure]:
        """Up to `count` forgotten users who need a tombstone: none was sent, and they have not come back.

        A tombstone for a user who came back could be repeated after an answer by another owner of the partition, and
        would then stay the last message.
        """
        erasures = self.erasures.without_tombstone(count)
        ids = self.user_ids(np.array([e.user for e in erasures], np.uint64))
        return [e for e, name in zip(erasures, ids, strict=True) if name is None]

    def record_tombstones(self, sent: list[Erasure]) -> None:
        """Record that these tombstones were sent."""
        write = WriteBatch(raw_mode=True)
        self.erasures.record_tombstones({e.user for e in sent}, write)
        self.database.write(write)

    def begin_new_log(self) -> None:
        """Keep the state and read a new log from its offset 0: an embedded broker keeps its log in memory only."""
        self._put_progress(msgspec.structs.replace(self.progress, base=self.progress.next_offset))

    def log_ends_at(self, end: int) -> None:
        """Keep the state where the log has lost its end, and read what comes from its offset `end` on."""
        progress = self.progress
        truncated = progress.truncated + progress.log_offset - end
        self._put_progress(msgspec.structs.replace(progress, base=progress.next_offset - end, truncated=truncated))

    def skip_to(self, next_offset: int, lost: int | None = None) -> None:
        """Continue from a later logical offset, with `lost` more lost offsets; None: all between."""
        progress = self.progress
        lost = progress.lost + (next_offset - progress.next_offset if lost is None else lost)
        self._put_progress(msgspec.structs.replace(progress, next_offset=next_offset, lost=lost))

    def pass_over(self, next_offset: int) -> None:
        """Continue from a later logical offset: the ones between hold no event, but the broker's own records."""
        self.skip_to(next_offset, lost=0)

    def take_over(self, answered: int, prequential: bytes, truncated: int) -> None:
        """Take the place of another store of the same log, with its `answered` offset and its counts."""
        self._put_progress(msgspec.structs.replace(self.progress, truncated=truncated))
        write = WriteBatch(raw_mode=True)
        self._answered = min(answered, self.progress.next_offset)
        write.put(b"answered", UINT64.pack(self._answered))
        write.put(b"prequential", prequential)
        self.database.write(write)

    def cap_as(self, other: Partition) -> None:
        """Count the steps of every day with the caps that another store has for it. This store must be empty."""
        self._caps = other.caps
        self.database.put(CAPS_KEY, self._caps.packed())

    def stand_in_for(self, other: Partition) -> None:
        """Take the place of a store of the same events, with its offsets, counts and answers."""
        theirs, mine, write = other.read_progress(), self.progress, WriteBatch(raw_mode=True)
        removed = theirs.expired + theirs.erased
        self._answered = other.answered()
        write.put(b"answered", UINT64.pack(self._answered))
        write.put(b"prequential", other.prequential())
        progress = msgspec.structs.replace(
            theirs,
            applied=mine.applied + removed,
            expired=theirs.expired + mine.expired,
            users=mine.users,
            items=mine.items,
            oldest_ts=mine.oldest_ts,
        )
        self._write(write, progress)

    def _follow_caps(self) -> None:
        """Record the configured caps. What was counted with other caps stays as it is: they begin with the next day."""
        stored = super().caps
        self._caps = stored.followed_by(self.settings, self.progress.newest_ts)
        if not self.progress.applied:
            self._caps = CapsByDay.of(self.settings)
        if self._caps != stored:
            self.database.put(CAPS_KEY, self._caps.packed())

    def _expire(self, arriving: int) -> Removed | None:
        """Remove what is behind the horizon, in a WriteBatch of its own."""
        horizon = self.progress.horizon(self.settings)
        if horizon // DAY_MS <= self.progress.oldest_ts // DAY_MS:
            return None
        write, progress = WriteBatch(raw_mode=True), msgspec.structs.replace(self.progress)
        with state_errors("read", self.path):
            removed = expire(self, progress, horizon, max(MIN_EXPIRED_EVENTS, 2 * arriving), write)
        if removed is None:
            self.progress.oldest_ts = progress.oldest_ts
            return None
        self._write(write, progress)
        self.pending.forget(removed.users.tolist())
        return removed

    def _forgets(self, batch: EventBatch) -> dict[int, int]:
        """The users whom the batch forgets, each with the row of the last forget."""
        rows = np.flatnonzero(self.kinds.forget[batch.events["kind"]])
        return dict(zip(batch.events["user"][rows].tolist(), rows.tolist(), strict=True))

    def _forget(self, batch: EventBatch, unknown: Collection[str]) -> "tuple[EventBatch, int, Ids, list[Removed]]":
        """Erase the users that the batch's forget events name, except `unknown` ones, some in each WriteBatch.

        Returns the rest of the batch, how many of its events came before a forget of their user, the forgotten users,
        and what left the state. A batch that is read again after a crash erases them again, which changes nothing.
        """
        last, unknown = self._forgets(batch), set(unknown)
        if not last:
            return batch, 0, np.empty(0, np.uint64), []
        erased = [user for user, row in last.items() if batch.users[row].decode() not in unknown]
        removed = []
        for start in range(0, len(erased), ERASED_AT_ONCE):
            users = erased[start : start + ERASED_AT_ONCE]
            write, progress = WriteBatch(raw_mode=True), msgspec.structs.replace(self.progress)
            with state_errors("read", self.path):
                gone, days = erase(self, progress, np.array(users, np.uint64), write)
            for user in users:
                name, offset = batch.users[last[user]].decode(), int(batch.events["offset"][last[user]])
                self.erasures.begin(user, name, offset, days[user], write)
            self._write(write, progress)
            self.pending.forget(users)
            removed.append(gone)
        forgotten = np.array(list(last), np.uint64)
        before = np.array([row <= last.get(u, -1) for row, u in enumerate(batch.events["user"].tolist())])
        dropped = int((before & ~self.kinds.forget[batch.events["kind"]]).sum())
        return batch.take(np.flatnonzero(~before)), dropped, forgotten, removed

    def _write(self, write: WriteBatch, progress: Progress) -> None:
        """Write a batch together with the progress."""
        write.put(PROGRESS_KEY, msgspec.json.encode(progress))
        self.database.write(write)
        self.progress = progress

    def _put_progress(self, progress: Progress) -> None:
        self.database.put(PROGRESS_KEY, msgspec.json.encode(progress))
        self.progress = progress


def _journal_without_erased(
    journal: Journal, users: Timelines, erasures: Erasures, path: Path, start: int, end: int
) -> Records:
    """EVENTs with start <= offset < end, without those of erased users, which may still be in the journal."""
    with state_errors("read", path):
        events = journal.read(start, end)
        erased = np.array(erasures.users, np.uint64)
        gone = [head is None for head in users.heads(erased)]
    return events[~np.isin(events["user"], erased[gone])]
