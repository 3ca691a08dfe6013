"""One partition's store: the only writer of its state.

Everything that a batch of events changes, the next offset included, is written in one RocksDB WriteBatch. The
write-ahead log is not synced: state and offset are lost or kept together, and Kafka has the rest.
"""

from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import xxhash
from rocksdict import WriteBatch

from state import steps
from state.errors import Repartitioned, StoreBlocked, WrongLayout, WrongLog
from state.events import EventBatch, Ids, Ints, Records
from state.graph import fold, pairs_in
from state.owed import Owed
from state.partition import EDGE, KEY, KEY_PAIR, POPULAR, Identity, Marks, Partition, open_rocksdb, rocksdb
from state.sequences import STEP
from state.settings import StateSettings


class Applied(NamedTuple):
    """What became of a batch."""

    events: Records
    """Those applied, in log order."""
    duplicate: int


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
                self.state = self.marks()
                self.owed = Owed()
                self.owed.mark(self.journal(self.answered(), self.state.next_offset))
        except Exception:
            self.close()
            raise

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
        decoder found besides. Raises StoreUnreadable or StoreBlocked when RocksDB cannot; nothing is changed then.
        """
        write = WriteBatch(raw_mode=True)
        fresh, duplicate = self._drop_duplicates(batch, next_offset, write)
        marks = msgspec.structs.replace(self.state)
        marks.next_offset = next_offset
        marks.applied += len(fresh.events)
        marks.dead += dead
        marks.duplicate += duplicate
        marks.key_mismatch += key_mismatch
        if len(fresh.events):
            self._fold_events(fresh, marks, write)
        write.put(b"marks", msgspec.json.encode(marks))
        if prequential is not None:
            write.put(b"prequential", prequential)
        steps.reached(2)
        with rocksdb("write", self.path):
            self._db.write(write)
        steps.reached(3)
        self.state = marks
        self.owed.mark(fresh.events)
        return Applied(fresh.events, duplicate)

    def record_answers(self, answers: list[tuple[int, bytes]]) -> None:
        """Record (user, message sent) of users taken from `owed`, and how far everything is answered."""
        self.owed.clear(user for user, _ in answers)
        write = WriteBatch(raw_mode=True)
        for user, message in answers:
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

    def _fold_events(self, batch: EventBatch, marks: Marks, write: WriteBatch) -> None:
        events = batch.events
        items, ts, sequence, new = self._fold_sequences(batch, marks, write)
        touched, place = np.unique(items, return_inverse=True)
        rows = self.row_records(touched)
        pairs = pairs_in(place, ts, sequence, new, self._settings.pair_window_events)
        unknown = rows["ts"] == 0
        fold(touched, rows, events["item"], events["ts"], pairs, self._settings)

        keys, values, size = touched.astype(">u8").tobytes(), rows.tobytes(), self._row.itemsize
        column = self._handle["rows"]
        for at in range(len(touched)):
            write.put(keys[at * 8 : at * 8 + 8], values[at * size : (at + 1) * size], column)
        self._put_names(b"i", touched[unknown], events["item"], batch.items, write)
        marks.items += int(unknown.sum())
        self._put_edges(events, write)
        self._put_popular(touched, rows, write)
        write.put(KEY.pack(int(events["offset"][0])), events.tobytes(), self._handle["journal"])
        oldest, newest = int(events["ts"].min()), int(events["ts"].max())
        marks.oldest_ts = min(marks.oldest_ts, oldest) if marks.applied > len(events) else oldest
        marks.newest_ts = max(marks.newest_ts, newest)

    def _fold_sequences(
        self, batch: EventBatch, marks: Marks, write: WriteBatch
    ) -> tuple[Ids, Ints, Ints, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
        """Write the touched users' sequences; return the steps to pair: items, times, sequence numbers, new or not."""
        events, width = batch.events, STEP.itemsize
        order = np.argsort(events["user"], kind="stable")
        ordered = events[order]
        users, starts = np.unique(ordered["user"], return_index=True)
        ends = np.append(starts[1:], len(ordered))
        steps = np.empty(len(ordered), STEP)
        for name in ("item", "ts", "kind"):
            steps[name] = ordered[name]
        packed = steps.tobytes()
        stored = self.sequence_values(users)

        last = np.frombuffer(b"".join(v[-width:] if v else bytes(width) for v in stored), STEP)["ts"]
        stepped_back = np.zeros(len(ordered), bool)
        stepped_back[1:] = (ordered["user"][1:] == ordered["user"][:-1]) & (ordered["ts"][1:] < ordered["ts"][:-1])
        known = np.array([v is not None for v in stored])
        late = np.logical_or.reduceat(stepped_back, starts) | (known & (ordered["ts"][starts] < last))

        limit = self._settings.sequence_events * width
        window = self._settings.pair_window_events * width
        keys, column = users.astype(">u8").tobytes(), self._handle["sequences"]
        to_pair: list[bytes] = []
        old_steps: list[int] = []
        late_new: list[tuple[int, np.ndarray[tuple[int], np.dtype[np.bool_]]]] = []
        for row, (old, start, end, is_late) in enumerate(
            zip(stored, (starts * width).tolist(), (ends * width).tolist(), late.tolist(), strict=True)
        ):
            value = (old + packed[start:end]) if old else packed[start:end]
            tail = value[-window - (end - start) :]
            if is_late:
                # Late events land where their time says; equal times keep the order of arrival.
                merged = np.frombuffer(value, STEP)
                by_time = np.argsort(merged["ts"], kind="stable")
                tail = value = merged[by_time].tobytes()
                late_new.append((row, by_time >= len(old or b"") // width))
            write.put(keys[row * 8 : row * 8 + 8], value[-limit:], column)
            to_pair.append(tail)
            old_steps.append((len(tail) - (end - start)) // width)
        self._put_names(b"u", users[~known], events["user"], batch.users, write)
        marks.users += int((~known).sum())

        lengths = np.array([len(t) // width for t in to_pair])
        bounds = np.cumsum(lengths)
        within = np.arange(bounds[-1]) - np.repeat(bounds - lengths, lengths)
        new = within >= np.repeat(old_steps, lengths)
        for row, is_new in late_new:
            new[bounds[row] - lengths[row] : bounds[row]] = is_new
        tails = np.frombuffer(b"".join(to_pair), STEP)
        return tails["item"], tails["ts"], np.repeat(np.arange(len(users)), lengths), new

    def _put_names(self, prefix: bytes, unknown: Ids, hashes: Ids, names: list[bytes], write: WriteBatch) -> None:
        if not len(unknown):
            return
        known, first = np.unique(hashes, return_index=True)
        rows = first[np.searchsorted(known, unknown)].tolist()
        keys, column = unknown.astype(">u8").tobytes(), self._handle["ids"]
        for at, row in enumerate(rows):
            write.put(prefix + keys[at * 8 : at * 8 + 8], names[row], column)

    def _put_edges(self, events: Records, write: WriteBatch) -> None:
        order = np.argsort(events["item"], kind="stable")
        ordered = events[order]
        items, starts = np.unique(ordered["item"], return_index=True)
        ends = np.append(starts[1:], len(ordered)).tolist()
        edges = np.empty(len(ordered), EDGE)
        for name in ("user", "ts", "kind"):
            edges[name] = ordered[name]
        packed, width, column = edges.tobytes(), EDGE.itemsize, self._handle["edges"]
        firsts = ordered["offset"][starts].tolist()
        for item, offset, start, end in zip(items.tolist(), firsts, starts.tolist(), ends, strict=True):
            write.put(KEY_PAIR.pack(item, offset), packed[start * width : end * width], column)

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
        """Drop events whose id was seen; ids are forgotten a whole generation of offsets at a time."""
        if not batch.ids:
            return batch, 0
        generation = next_offset // self._settings.dedup_window_events
        column = self._handle["seen"]
        rows = list(batch.ids)
        digests = [xxhash.xxh3_128_digest(batch.ids[row]) for row in rows]
        now, before = KEY.pack(generation), KEY.pack(max(generation - 1, 0))
        with rocksdb("read", self.path):
            seen_now = self._column["seen"].get([now + d for d in digests])
            seen_before = self._column["seen"].get([before + d for d in digests])
        met: set[bytes] = set()
        dropped: list[int] = []
        for row, digest, a, b in zip(rows, digests, seen_now, seen_before, strict=True):
            if a is not None or b is not None or digest in met:
                dropped.append(row)
            else:
                met.add(digest)
                write.put(now + digest, b"", column)
        if generation >= 2:
            write.delete_range(KEY.pack(0), before, column)
        if not dropped:
            return batch, 0
        kept = np.setdiff1d(np.arange(len(batch.events)), dropped)
        return batch.take(kept), len(dropped)


def check_identity(stored: Identity | None, wanted: Identity, path: Path) -> None:
    """Raise WrongLog or WrongLayout where a store was built from, or with, something else."""
    if stored is None:
        return
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
