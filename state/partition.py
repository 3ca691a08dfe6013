"""Reading one partition's state, whether this process writes it or only looks on.

Column families, users and items by their hash, all keys big-endian so that RocksDB's order is theirs:

    default            "identity", "marks", "answered", "popular", "prequential", "compacting"; "erasing/", user
    sequences          user                    -> the user's newest steps (STEP), one direction of the graph
    sequence_leaves    user, time, order, n    -> n older ones (`state/timeline.py`)
    edges              item                    -> the item's newest edges (EDGE), the other direction
    edge_leaves        item, time, order, n    -> n older ones
    rows               item                    -> one row of the item-item graph
    hidden             user                    -> items not to be recommended, and since when (HIDDEN)
    journal            batch, day, number      -> packed EVENT, in arrival order (`state/journal.py`)
    days               day, batch, number      -> nothing
    ids                "u" or "i", hash        -> the id's bytes
    seen               generation, id digest   -> nothing; de-duplication
    recommended        user                    -> the last recommendation message sent
"""

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rocksdict import ColumnFamily, Rdict

from state.errors import StateError
from state.events import Ids, Records, packed_keys
from state.graph import Rows, as_rows, row_dtype
from state.identity import FIRST_LAYOUT, Identity
from state.journal import Journal
from state.kinds import kinds_of
from state.progress import Progress
from state.rocksdb import COLUMNS, rocksdb
from state.sequences import STEP, Sequences, positives, unpack, where
from state.settings import StateSettings
from state.timeline import ALL_TIME, Timelines

EDGE = np.dtype([("user", "<u8"), ("ts", "<i8"), ("kind", "<u2")])
HIDDEN = np.dtype([("item", "<u8"), ("ts", "<i8")])
FAINT_HALF_LIVES = 20
FOLLOWING = 64
"""Steps of a user that are read to find what followed one of them, and whether it was undone."""
EDGES_AT_HAND = 32
"""Newest edges of an item that are kept in one record, at least."""
POPULAR = np.dtype([("item", "<u8"), ("score", "<f8")])
"""`score` = log2(popularity) + time in half-lives: it orders items rightly at any later time without decay."""

KEY = struct.Struct(">Q")


class Partition:
    """Read access to one partition's store."""

    def __init__(self, db: Rdict, settings: StateSettings, path: Path) -> None:
        self.path = path
        self._db = db
        self._settings = settings
        self._row = row_dtype(settings.neighbours_per_item)
        self._column: dict[str, Any] = {name: db.get_column_family(name) for name in COLUMNS}
        self._handle: dict[str, ColumnFamily] = {name: db.get_column_family_handle(name) for name in COLUMNS}
        stores = self._column, self._handle
        self.users = Timelines(*stores, "sequences", "sequence_leaves", STEP, settings.sequence_events)
        self.items = Timelines(*stores, "edges", "edge_leaves", EDGE, EDGES_AT_HAND)
        self._journal = Journal(*stores)
        self.kinds = kinds_of(settings)

    @property
    def identity(self) -> Identity | None:
        """The log the store was built from; None before its first batch."""
        value = self._value(b"identity")
        if value is None:
            return None
        return msgspec.convert({"layout": FIRST_LAYOUT} | msgspec.json.decode(value), Identity)

    def read_progress(self) -> Progress:
        """How far the state has come."""
        value = self._value(b"marks")
        return msgspec.json.decode(value, type=Progress) if value else Progress()

    def prequential(self) -> bytes:
        """The prequential counts as the worker wrote them; empty before the first test."""
        return self._value(b"prequential") or b""

    def answered(self) -> int:
        """Every event before this logical offset has had its recommendation."""
        value = self._value(b"answered")
        return KEY.unpack(value)[0] if value else 0

    @property
    def erasing(self) -> bool:
        """Whether users are being forgotten whose bytes are not gone yet."""
        with rocksdb("read", self.path):
            it = self._db.iter()
            it.seek(b"erasing")
            return (it.valid() and it.key().startswith(b"erasing")) or self.compacting

    @property
    def compacting(self) -> bool:
        """Whether the files are to be rewritten."""
        return self._value(b"compacting") is not None

    def popular(self) -> Records:
        """POPULAR records, most popular first."""
        return np.frombuffer(self._value(b"popular") or b"", POPULAR)

    def horizon(self) -> int:
        """Event time, ms, before which everything has expired, also where it still lies on disk."""
        return self.read_progress().horizon(self._settings)

    def sequences(self, users: Ids) -> Sequences:
        """The users' newest steps, whatever their kind, in the order asked for; empty for a user without events."""
        limit = self._settings.sequence_events * STEP.itemsize
        with rocksdb("read", self.path):
            heads = self.users.heads(users)
        found = unpack(users, [head[-limit:] if head else None for head in heads])
        alive = found.steps["ts"] >= self.horizon()
        return found if alive.all() else where(found, alive)

    def positives(self, users: Ids) -> Sequences:
        """What is learned from and recommended by: the users' newest steps of a positive kind that were not undone."""
        return positives(self.sequences(users), self.kinds)

    def hidden(self, users: Ids) -> list[Ids]:
        """Items that each user does not want to see."""
        horizon = self.horizon()
        hidden = [np.frombuffer(value or b"", HIDDEN) for value in self._get("hidden", users)]
        return [h["item"][h["ts"] >= horizon] for h in hidden]

    def row_records(self, items: Ids) -> Records:
        """Packed rows of the item-item graph, writable, in the order asked for; zeros for an unknown item."""
        empty = bytes(self._row.itemsize)
        values = self._get("rows", items)
        return np.frombuffer(bytearray().join([v or empty for v in values]), self._row)

    def rows(self, items: Ids) -> Rows:
        """Rows of the item-item graph."""
        return as_rows(self.row_records(items))

    def degree(self, item: int, t: int = ALL_TIME) -> int:
        """Edges of an item before a time, of whatever kind; counted by the keys of its leaves."""
        with rocksdb("read", self.path):
            return self.items.count(item, self.horizon(), t)

    def popularity(self, item: int, t: int) -> float:
        """What an item's events before t count for together, each halved for every half-life that it lies back.

        Read only as far back as a single event still counts for a millionth.
        """
        half_life_ms = self._settings.popularity_half_life_s * 1000.0
        with rocksdb("read", self.path):
            edges = self.items.between(item, max(self.horizon(), t - int(FAINT_HALF_LIVES * half_life_ms)), t)
        return float((self.kinds.weight[edges["kind"]] * np.exp2((edges["ts"] - t) / half_life_ms)).sum())

    def transitions(self, item: int, t: int, limit: int) -> dict[int, float]:
        """What followed an item before t, by the newest `limit` of its edges; weights as the item-item graph's."""
        horizon, window = self.horizon(), self._settings.pair_window_events
        said: dict[int, float] = {}
        with rocksdb("read", self.path):
            edges = self.items.before(item, t, limit, horizon)
            for user, ts in {(int(e["user"]), int(e["ts"])): None for e in edges}:
                steps = self.users.after(user, ts - 1, FOLLOWING, t)
                steps = steps[self.kinds.standing(steps) & self.kinds.counts[steps["kind"]]]
                for at in np.flatnonzero((steps["item"] == item) & (steps["ts"] == ts)).tolist():
                    for lag, after in enumerate(steps[at + 1 : at + 1 + window], 1):
                        weight = float(self.kinds.weight[steps["kind"][at]] * self.kinds.weight[after["kind"]]) / lag
                        age_s = (t - int(after["ts"])) / 1000.0
                        faded = weight * 2.0 ** (-age_s / self._settings.pair_half_life_s)
                        said[int(after["item"])] = said.get(int(after["item"]), 0.0) + faded
        return said

    def edges(self, item: int, limit: int, before: int = ALL_TIME) -> Records:
        """The newest EDGEs of an item before a time, oldest first."""
        with rocksdb("read", self.path):
            return self.items.before(item, before, limit, self.horizon())

    def steps(self, user: int, limit: int, before: int = ALL_TIME) -> Records:
        """The newest STEPs of a user before a time, oldest first."""
        with rocksdb("read", self.path):
            return self.users.before(user, before, limit, self.horizon())

    def journal(self, start: int, end: int) -> Records:
        """Applied EVENTs with start <= offset < end, in arrival order; nothing older is read."""
        with rocksdb("read", self.path):
            return self._journal.read(start, end)

    def window(self, start: int, end: int) -> Records:
        """Applied EVENTs with start < time <= end, in order of time; nothing of other days is read."""
        with rocksdb("read", self.path):
            return self._journal.window(max(start, self.horizon() - 1), end)

    def user_ids(self, users: Ids) -> list[bytes | None]:
        """The ids behind user hashes."""
        return self._names(b"u", users)

    def item_ids(self, items: Ids) -> list[bytes | None]:
        """The ids behind item hashes."""
        return self._names(b"i", items)

    def recommended(self, user: int) -> bytes | None:
        """The last recommendation message sent for a user."""
        with rocksdb("read", self.path):
            value: bytes | None = self._column["recommended"].get(KEY.pack(user))
        return value

    def all_items(self) -> Ids:
        """Hashes of every item in the graph, ascending."""
        keys = list(self._column["rows"].keys())
        return np.frombuffer(b"".join(keys), ">u8").astype(np.uint64)

    def some_users(self, count: int, seed: int) -> Ids:
        """Hashes of up to `count` users, drawn evenly."""
        with rocksdb("read", self.path):
            return self.users.some(count, seed)

    def close(self) -> None:
        """Close the store; it cannot be used afterwards."""
        self._column.clear()
        self._handle.clear()
        # On a full disk it cannot flush, and says so; it is closed then all the same, and its log has what is missing.
        with suppress(StateError), rocksdb("close", self.path):
            self._db.close()

    def _value(self, key: bytes) -> bytes | None:
        with rocksdb("read", self.path):
            value: bytes | None = self._db.get(key)
        return value

    def _get(self, column: str, hashes: Ids) -> list[bytes | None]:
        with rocksdb("read", self.path):
            found: list[bytes | None] = self._column[column].get(packed_keys(hashes))
        return found

    def _names(self, prefix: bytes, hashes: Ids) -> list[bytes | None]:
        with rocksdb("read", self.path):
            found: list[bytes | None] = self._column["ids"].get([prefix + key for key in packed_keys(hashes)])
        return found
