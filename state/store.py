"""One partition's store: the only writer of its state.

Everything that a batch of events changes, the next offset included, is written in one RocksDB WriteBatch. The
write-ahead log is not synced: state and offset are lost or kept together, and Kafka has the rest.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import xxhash
from rocksdict import BottommostLevelCompaction, CompactOptions, WriteBatch

from state import steps
from state.erasure import COMPACTING, ERASING, Erasure, days_of, sweep
from state.errors import Repartitioned, StoreBlocked, WrongLayout, WrongLog
from state.events import EventBatch, Ids, Ints, Records
from state.graph import fold, pairs_in
from state.journal import DAY_MS
from state.owed import Owed
from state.partition import EDGE, HIDDEN, KEY, POPULAR, Identity, Marks, Partition, open_rocksdb, rocksdb
from state.removal import Counted, Removed, erase, expire, put_hidden, take_out
from state.sequences import STEP
from state.settings import StateSettings
from state.timeline import Merged

EXPIRED_AT_ONCE = 4096
"""Events behind the horizon that leave with a batch, at least; twice as many as it brings where that is more."""


_compactions = ThreadPoolExecutor(1, "compaction")
"""One store after the other is rewritten: each wants the disk for itself."""


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
        self._chunks: Iterator[bytes] | None = None
        self._compaction: Future[None] | None = None
        try:
            with rocksdb("open", path):
                stored = self.identity
                check_identity(stored, identity, path)
                if stored is None or (identity.topic_id and not stored.topic_id):
                    self._db.put(b"identity", msgspec.json.encode(identity))
                self.state = self.marks()
                self.erasures = msgspec.json.decode(self._db.get(ERASING) or b"[]", type=list[Erasure])
                self._compaction_due = self.compacting
                self.owed = Owed()
                self.owed.mark(self.journal(self.answered(), self.state.next_offset))
                erased = [e.user for e in self.erasures]
                there = self.users.heads(np.array(erased, np.uint64))
                self.owed.forget(user for user, head in zip(erased, there, strict=True) if head is None)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Close the store; it cannot be used afterwards. What rewriting it needs begins anew when it is opened."""
        self._chunks = None
        if self._compaction is not None and not self._compaction.cancel():
            self._db.cancel_all_background(True)
            wait([self._compaction])
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
        batch, dropped, forgotten, erased = self._forget(batch)
        write = WriteBatch(raw_mode=True)
        marks = msgspec.structs.replace(self.state)
        fresh, duplicate = self._drop_duplicates(batch, next_offset, write)
        fresh, too_old = self._drop_too_old(fresh, marks)
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
                gained, lost = self._fold_events(fresh, marks, write)
        write.put(b"marks", msgspec.json.encode(marks))
        if prequential is not None:
            write.put(b"prequential", prequential)
        steps.reached(2)
        self._write(write)
        steps.reached(3)
        self.state = marks
        self.owed.mark(fresh.events)
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
        cleared = self.owed.clear(user for user, _ in answers)
        write = WriteBatch(raw_mode=True)
        for user, message in answers:
            if user in cleared:  # else forgotten since
                write.put(KEY.pack(user), message, self._handle["recommended"])
        write.put(b"answered", KEY.pack(self.owed.watermark(self.state.next_offset)))
        with rocksdb("write", self.path):
            self._db.write(write)

    def begin_new_log(self) -> None:
        """Keep the state and read a new log from its offset 0 (an embedded broker keeps its log in memory only)."""
        self._mark(msgspec.structs.replace(self.state, base=self.state.next_offset))

    def skip_to(self, next_offset: int) -> None:
        """Go on from a later logical offset: what lies between was deleted from the log before it was read."""
        lost = self.state.lost + next_offset - self.state.next_offset
        self._mark(msgspec.structs.replace(self.state, next_offset=next_offset, lost=lost))

    def take_over(self, answered: int, prequential: bytes) -> None:
        """Go on for another store of the same log: nothing before `answered` is owed; its prequential counts stand."""
        write = WriteBatch(raw_mode=True)
        write.put(b"answered", KEY.pack(min(answered, self.state.next_offset)))
        write.put(b"prequential", prequential)
        with rocksdb("write", self.path):
            self._db.write(write)

    def _mark(self, marks: Marks) -> None:
        with rocksdb("write", self.path):
            self._db.put(b"marks", msgspec.json.encode(marks))
        self.state = marks

    def _fold_events(self, batch: EventBatch, marks: Marks, write: WriteBatch) -> tuple[Records, Records]:
        """Write what the events change; the steps that count from now on, and those that do no longer."""
        events = batch.events
        oldest, newest = int(events["ts"].min()), int(events["ts"].max())
        marks.oldest_ts = min(marks.oldest_ts, oldest) if marks.applied > len(events) else oldest
        marks.newest_ts = max(marks.newest_ts, newest)
        plus, minus = self._fold_sequences(batch, marks, write)
        self._fold_edges(batch, marks, write)
        self._journal.append(events, write)

        counted, new, owner = plus.all()
        lost, marked, _ = minus.all()
        touched = np.unique(np.concatenate([counted["item"], lost["item"], events["item"]]))
        rows = self.row_records(touched)
        take_out(minus, touched, rows, self._settings)
        # An item may be gone although a user's step, which is not reached yet, still names it.
        there = (rows["ts"] > 0) | np.isin(touched, events["item"])
        place = np.searchsorted(touched, counted["item"])
        if not there.all():
            known = there[place]
            counted, new, owner, place = counted[known], new[known], owner[known], place[known]
        weight = self.kinds.weight[counted["kind"]]
        pairs = pairs_in(place, counted["ts"], weight, owner, new, self._settings.pair_window_events)
        fold(touched, rows, place[new], counted["ts"][new], weight[new], pairs, self._settings)
        keys, values, size = touched.astype(">u8").tobytes(), rows.tobytes(), self._row.itemsize
        column = self._handle["rows"]
        for at in np.flatnonzero(there).tolist():
            write.put(keys[at * 8 : at * 8 + 8], values[at * size : (at + 1) * size], column)
        self._put_popular(touched, rows, write)
        return counted[new], lost[marked]

    def _fold_sequences(self, batch: EventBatch, marks: Marks, write: WriteBatch) -> tuple[Counted, Counted]:
        """Write the touched users' sequences; the steps to fold into the item-item graph, and those to take out."""
        ordered, users, starts, ends = _grouped(batch.events, "user")
        new = np.empty(len(ordered), STEP)
        for name in ("item", "ts", "kind"):
            new[name] = ordered[name]
        merged = self.users.append(users, new, starts, ends, write, int(batch.events["offset"][0]))
        unknown = users[np.array(merged.before) == 0]
        self._put_names(b"u", unknown, batch.events["user"], batch.users, write)
        marks.users += len(unknown)

        changing = np.logical_or.reduceat((self.kinds.undo | self.kinds.negative)[new["kind"]], starts)
        odd = set(np.flatnonzero(changing).tolist()) | merged.deep
        for row in merged.late:  # a step before an undo may be what it takes back
            if self.kinds.undo[np.frombuffer(merged.heads[row], STEP)["kind"]].any():
                odd.add(row)
        plus, minus = Counted(self), Counted(self)
        self._count_plain(merged, starts, ends, odd, plus)
        for row in sorted(odd):
            self._count_odd(int(users[row]), new[starts[row] : ends[row]], plus, minus, write)
        return plus, minus

    def _count_plain(self, merged: Merged, starts: Ints, ends: Ints, odd: set[int], plus: Counted) -> None:
        """Of users whose new events change nothing about older ones: the new steps, with those that they pair with."""
        width, window = STEP.itemsize, self._settings.pair_window_events
        count = ends - starts
        tails = [
            head if row in merged.late else head[-(window + n) * width :]
            for row, (head, n) in enumerate(zip(merged.heads, count.tolist(), strict=True))
        ]
        rows = np.arange(len(tails))
        if odd:
            rows = np.setdiff1d(rows, list(odd))
            tails = [tails[row] for row in rows]
        if not tails:
            return
        lengths = np.array([len(t) // width for t in tails])
        bounds = np.cumsum(lengths)
        within = np.arange(bounds[-1]) - np.repeat(bounds - lengths, lengths)
        new = within >= np.repeat(lengths - count[rows], lengths)
        for at, row in enumerate(rows.tolist()) if merged.late else ():
            if row in merged.late:
                new[bounds[at] - lengths[at] : bounds[at]] = merged.late[row]
        tail = np.frombuffer(b"".join(tails), STEP)
        counts = self.kinds.counts[tail["kind"]]
        if counts.all():
            plus.add_many(tail, new, lengths)
            return
        # Steps that do not count lie between those that pair: such users' heads are read whole.
        mixed = np.logical_or.reduceat(~counts, bounds - lengths)
        plain = np.repeat(~mixed, lengths)
        plus.add_many(tail[plain], new[plain], lengths[~mixed])
        for row in rows[mixed].tolist():
            head = np.frombuffer(merged.heads[row], STEP)
            is_new = merged.late[row] if row in merged.late else np.arange(len(head)) >= len(head) - count[row]
            stands = self.kinds.standing(head) & self.kinds.counts[head["kind"]]
            plus.add(head[stands], is_new[stands])

    def _count_odd(self, user: int, new: Records, plus: Counted, minus: Counted, write: WriteBatch) -> None:
        """Of a user whose new events may change what older ones count for: what is gained, lost and hidden."""
        kinds, old = self.kinds, self.users.between(user)
        both = np.concatenate([old, new])
        order = np.argsort(both["ts"], kind="stable")
        after = both[order]
        stands = kinds.standing(after)
        counts = stands & kinds.counts[after["kind"]]
        counted = np.zeros(len(both), bool)
        counted[: len(old)] = kinds.standing(old) & kinds.counts[old["kind"]]
        counting = np.zeros(len(both), bool)
        counting[order] = counts
        plus.add(after[counts], (~counted)[order][counts])
        minus.add(old[counted[: len(old)]], (~counting)[: len(old)][counted[: len(old)]])
        negative = after[stands & kinds.negative[after["kind"]]]
        hidden = np.empty(len(negative), HIDDEN)
        hidden["item"], hidden["ts"] = negative["item"], negative["ts"]
        put_hidden(self, user, hidden, kinds.negative[old["kind"]].any(), write)

    def _put_names(self, prefix: bytes, unknown: Ids, hashes: Ids, names: list[bytes], write: WriteBatch) -> None:
        if not len(unknown):
            return
        known, first = np.unique(hashes, return_index=True)
        rows = first[np.searchsorted(known, unknown)].tolist()
        keys, column = unknown.astype(">u8").tobytes(), self._handle["ids"]
        for at, row in enumerate(rows):
            write.put(prefix + keys[at * 8 : at * 8 + 8], names[row], column)

    def _fold_edges(self, batch: EventBatch, marks: Marks, write: WriteBatch) -> None:
        """Write the other direction of the graph."""
        ordered, items, starts, ends = _grouped(batch.events, "item")
        edges = np.empty(len(ordered), EDGE)
        for name in ("user", "ts", "kind"):
            edges[name] = ordered[name]
        merged = self.items.append(items, edges, starts, ends, write, int(batch.events["offset"][0]))
        unknown = items[np.array(merged.before) == 0]
        self._put_names(b"i", unknown, batch.events["item"], batch.items, write)
        marks.items += len(unknown)

    def _put_popular(self, touched: Ids, rows: Records, write: WriteBatch) -> None:
        """Keep the most popular at hand: popularities decay alike, so an item's rank rises only when it is touched."""
        clicked = rows["popularity"] > 0
        scored = np.empty(int(clicked.sum()), POPULAR)
        scored["item"] = touched[clicked]
        scored["score"] = (
            np.log2(rows["popularity"][clicked]) + rows["ts"][clicked] / 1000.0 / self._settings.popularity_half_life_s
        )
        before = self.popular()
        kept = before[~np.isin(before["item"], touched)]
        both = np.concatenate([kept, scored])
        best = both[np.argsort(-both["score"], kind="stable")[: self._settings.popular_items]]
        write.put(b"popular", best.tobytes())

    def _drop_duplicates(self, batch: EventBatch, next_offset: int, write: WriteBatch) -> tuple[EventBatch, int]:
        """Drop events whose id was seen; ids are forgotten a whole generation of offsets at a time.

        What an event's own generation and the one before it know depends on the log alone, not on how it is cut into
        batches.
        """
        if not batch.ids:
            return batch, 0
        every = self._settings.dedup_window_events
        rows = list(batch.ids)
        digests = [xxhash.xxh3_128_digest(batch.ids[row]) for row in rows]
        generations = (batch.events["offset"][rows] // every).tolist()
        now = [KEY.pack(g) + d for g, d in zip(generations, digests, strict=True)]
        before = [KEY.pack(max(g - 1, 0)) + d for g, d in zip(generations, digests, strict=True)]
        stored = [
            a is not None or b is not None for a, b in zip(*map(self._column["seen"].get, (now, before)), strict=True)
        ]
        met: set[bytes] = set()
        dropped: list[int] = []
        for row, was, key, key_before in zip(rows, stored, now, before, strict=True):
            if was or key in met or key_before in met:
                dropped.append(row)
            else:
                met.add(key)
                write.put(key, b"", self._handle["seen"])
        if next_offset // every >= 2:
            write.delete_range(KEY.pack(0), KEY.pack(next_offset // every - 1), self._handle["seen"])
        if not dropped:
            return batch, 0
        return batch.take(np.setdiff1d(np.arange(len(batch.events)), dropped)), len(dropped)

    def _drop_too_old(self, batch: EventBatch, marks: Marks) -> tuple[EventBatch, int]:
        """Drop events that were behind the horizon when they arrived."""
        window_ms = int(self._settings.window_s * 1000)
        if not window_ms or not len(batch.events):
            return batch, 0
        ts = batch.events["ts"]
        newest = np.maximum(np.maximum.accumulate(ts), marks.newest_ts)
        kept = np.flatnonzero(ts >= newest - window_ms)
        if len(kept) == len(ts):
            return batch, 0
        return batch.take(kept), len(ts) - len(kept)

    def _expire(self, arriving: int) -> Removed | None:
        """Let what lies behind the horizon leave, in a WriteBatch of its own."""
        horizon = self.state.horizon(self._settings)
        if horizon // DAY_MS <= self.state.oldest_ts // DAY_MS:
            return None
        write, marks = WriteBatch(raw_mode=True), msgspec.structs.replace(self.state)
        with rocksdb("read", self.path):
            removed = expire(self, marks, horizon, max(EXPIRED_AT_ONCE, 2 * arriving), write)
        if removed is None:
            self.state.oldest_ts = marks.oldest_ts
            return None
        write.put(b"marks", msgspec.json.encode(marks))
        self._write(write)
        self.state = marks
        self.owed.forget(removed.users.tolist())
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
            write, marks = WriteBatch(raw_mode=True), msgspec.structs.replace(self.state)
            with rocksdb("read", self.path):
                gone, days = erase(self, marks, user, write)
            known = next((e for e in self.erasures if e.user == user), None)
            days = sorted({*days, *(known.days if known else [])})
            offset = int(batch.events["offset"][row])
            others = [e for e in self.erasures if e.user != user]
            self._put_erasures([*others, Erasure(user, batch.users[row].decode(), offset, days)], write)
            write.put(b"marks", msgspec.json.encode(marks))
            self._write(write)
            self.state = marks
            self.owed.forget([user])
            removed.append(gone)
        forgotten = np.array(list(last), np.uint64)
        before = np.array([row <= last.get(u, -1) for row, u in enumerate(batch.events["user"].tolist())])
        dropped = int((before & ~self.kinds.forget[batch.events["kind"]]).sum())
        return batch.take(np.flatnonzero(~before)), dropped, forgotten, removed

    def untold(self) -> list[Erasure]:
        """Erased users whose last recommendation still stands in the topic."""
        return [e for e in self.erasures if not e.told]

    def told(self, erasure: Erasure) -> None:
        """The tombstone was sent."""
        erasure.told = True
        write = WriteBatch(raw_mode=True)
        self._put_erasures(self.erasures, write)
        self._write(write)

    def sweep(self) -> None:
        """Do a little of what erasures left to do; to be called now and then.

        The rewriting of the files takes as long as the store is large, and happens in a thread of its own.
        """
        if self._compaction is not None:
            if not self._compaction.done():
                return
            compaction, self._compaction = self._compaction, None
            with rocksdb("write", self.path):
                compaction.result()
                self._db.delete(COMPACTING)
                self._db.flush()  # begins a new list of files, without the first and last keys of those that are gone
                self._db.put(b"marks", msgspec.json.encode(self.state))  # a secondary looks again only at a new write
            self._compaction_due = False
        write = WriteBatch(raw_mode=True)
        unswept = next((e for e in self.erasures if e.days), None)
        if unswept is not None:
            self._chunks = self._chunks or days_of(self, unswept)
            with rocksdb("read", self.path):
                sweep(self, unswept, self._chunks, write)
            if not unswept.days:
                self._chunks = None
                self._put_erasures(self.erasures, write)
            self._write(write)
        elif self.erasures and all(e.told for e in self.erasures):
            self._put_erasures([], write)
            write.put(COMPACTING, b"")
            self._write(write)
            self._compaction_due = True
        elif self._compaction_due:
            self._compaction = _compactions.submit(self._compact)

    def _compact(self) -> None:
        """Rewrite the files, so that of what was deleted no byte is left."""
        wholly = CompactOptions()
        wholly.set_bottommost_level_compaction(BottommostLevelCompaction.force())  # else a file is only moved down
        for column in (self._db, *self._column.values()):
            column.flush()
            column.compact_range(None, None, wholly)

    def _put_erasures(self, erasures: list[Erasure], write: WriteBatch) -> None:
        self.erasures = erasures
        if erasures:
            write.put(ERASING, msgspec.json.encode(erasures))
        else:
            write.delete(ERASING)

    def _write(self, write: WriteBatch) -> None:
        with rocksdb("write", self.path):
            self._db.write(write)


def _grouped(events: Records, by: str) -> tuple[Records, Ids, Ints, Ints]:
    """Events by one of their ends, in order of arrival within each: they, the ends, where each begins and stops."""
    ordered = events[np.argsort(events[by], kind="stable")]
    nodes, starts = np.unique(ordered[by], return_index=True)
    return ordered, nodes, starts, np.append(starts[1:], len(ordered))


def check_identity(stored: Identity | None, wanted: Identity, path: Path) -> None:
    """Raise WrongLog or WrongLayout where a store was built from, or with, something else."""
    if stored is None:
        return
    if stored.layout != wanted.layout:
        raise WrongLayout(
            f"{path} was written by another version of anabranch (layout {stored.layout} on disk, this one writes "
            f"{wanted.layout}) and cannot be read: remove the directory to rebuild it from the log, or run that version"
        )
    for key in ("sequence_events", "neighbours_per_item"):
        was, now = getattr(stored, key), getattr(wanted, key)
        if was != now:
            raise WrongLayout(
                f"{path} was built with state.{key} = {was}, the configuration says {now}: records of the one "
                f"cannot be read as the other. Set it back to {was}, or rebuild with `anabranch replay --from earliest`"
            )
    for key in ("topic", "partition", "cluster", "topic_id"):
        was, now = getattr(stored, key), getattr(wanted, key)
        if was != now and not (key == "topic_id" and "" in (was, now)):
            recreated = " (the topic was deleted and made again)" if key == "topic_id" else ""
            raise WrongLog(
                f"{path} was built from {key} {was!r}, this is {key} {now!r}{recreated}: its offsets mean nothing here"
            )
    if stored.partitions != wanted.partitions:
        raise Repartitioned(
            f"the topic {wanted.topic!r} had {stored.partitions} partitions when {path} was built and has "
            f"{wanted.partitions} now: users' clicks arrive in other partitions than their history. Give them a new "
            f"topic with {wanted.partitions} partitions, written anew by user (topics.clicks names it), or begin again "
            f"from what the log holds: `anabranch replay --from earliest`"
        )
