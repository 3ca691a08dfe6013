"""Reading one partition's state, in the worker that writes it and in processes that only read.

The column families. Users and items are keyed by their hash. Keys are big-endian, so RocksDB sorts them by number:

    default            "identity", "caps", "marks", "answered", "popular", "prequential", "compacting"; "erasing/", user
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

"marks" is the progress (`state/progress.py`).
"""

import struct
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
from rocksdict import AccessType

from state.caps import CAPS_KEY, CapsByDay
from state.errors import StateError
from state.events import Ids, Records, packed_keys
from state.graph import Rows, as_rows, row_dtype
from state.id_hash import UNKEYED, IdHash
from state.identity import FIRST_LAYOUT, Identity, check_rows
from state.journal import DAY_MS, Journal
from state.kinds import Mask, kinds_of
from state.progress import PROGRESS_KEY, Progress
from state.rocksdb import Database, state_errors
from state.sequences import STEP, Sequences, positives, unpack, where
from state.settings import StateSettings
from state.timeline import ALL_TIME, Timelines

EDGE = np.dtype([("user", "<u8"), ("ts", "<i8"), ("kind", "<u2")])
"""One event of an item: user hash, event time in ms, code of the kind."""
HIDDEN = np.dtype([("item", "<u8"), ("ts", "<i8")])
"""An item that a user does not want to see, and the event time, ms, since when."""
POPULAR = np.dtype([("item", "<u8"), ("score", "<f8")])
"""`score` = log2(popularity) + time in half-lives: it orders items correctly at any later time, without decay."""
HEAD_EDGES = 32
"""Newest edges of an item in its head record, at least."""
NEGLIGIBLE_HALF_LIVES = 20
"""An event this many half-lives old counts for less than a millionth."""

UINT64 = struct.Struct(">Q")
"""Eight bytes, big-endian: the hash of a user or item, a generation of ids, or an offset."""


class Partition:
    """Read access to one partition's store."""

    def __init__(self, path: Path, settings: StateSettings, access: AccessType | None = None) -> None:
        """Open the store at `path`. Raises a StateError."""
        self.path = path
        self.settings = settings
        self.kinds = kinds_of(settings)
        self.database = Database(path, settings, access)
        self.users = Timelines(self.database, "sequences", "sequence_leaves", STEP, settings.sequence_events)
        """Each user's steps: one direction of the graph."""
        self.items = Timelines(self.database, "edges", "edge_leaves", EDGE, HEAD_EDGES)
        """Each item's edges: the other direction."""
        self.events = Journal(self.database)
        """Every applied event in order of arrival."""
        self._row = row_dtype(settings.neighbours_per_item)
        self._rows_checked = False
        self._ids: IdHash | None = None

    @property
    def identity(self) -> Identity | None:
        """The log the store was built from; None before its first batch."""
        value = self.database.get(b"identity")
        if value is None:
            return None
        return msgspec.convert({"layout": FIRST_LAYOUT} | msgspec.json.decode(value), Identity)

    @property
    def ids(self) -> IdHash:
        """The hash of this store's ids."""
        if self._ids is None and (identity := self.identity) is not None:
            self._ids = IdHash(identity.id_key)
        return self._ids or UNKEYED

    def read_progress(self) -> Progress:
        """How far the store has read its log, and its counts."""
        value = self.database.get(PROGRESS_KEY)
        return msgspec.json.decode(value, type=Progress) if value else Progress()

    @property
    def caps(self) -> CapsByDay:
        """The caps on how much one user's steps count for others."""
        return CapsByDay.read(self.database.get(CAPS_KEY))

    def shared(self, steps: Records, counting: Mask) -> Mask:
        """Which of one user's steps count for others: of those that are `counting`, the ones within the caps.

        The steps begin with a day.
        """
        return self.caps.within(steps, counting, np.array([len(steps)]), self.kinds)

    def prequential(self) -> bytes:
        """The prequential counts as the worker wrote them; empty before the first test."""
        return self.database.get(b"prequential") or b""

    def answered(self) -> int:
        """The logical offset before which every event has had its recommendation."""
        value = self.database.get(b"answered")
        return UINT64.unpack(value)[0] if value else 0

    @property
    def erasing(self) -> bool:
        """Whether bytes of forgotten users are still in the files."""
        with state_errors("read", self.path):
            it = self.database.default.iter()
            it.seek(b"erasing")
            return (it.valid() and it.key().startswith(b"erasing")) or self.compacting

    @property
    def compacting(self) -> bool:
        """Whether the files are to be rewritten."""
        return self.database.get(b"compacting") is not None

    def popular(self) -> Records:
        """POPULAR records, most popular first."""
        return np.frombuffer(self.database.get(b"popular") or b"", POPULAR)

    def horizon(self) -> int:
        """Event time, ms, before which everything has expired, even where it is still on disk."""
        return self.read_progress().horizon(self.settings)

    def sequences(self, users: Ids) -> Sequences:
        """The users' newest steps of every kind, in the order of `users`; empty for a user without events."""
        limit = self.settings.sequence_events * STEP.itemsize
        with state_errors("read", self.path):
            heads = self.users.heads(users)
        found = unpack(users, [head[-limit:] if head else None for head in heads])
        alive = found.steps["ts"] >= self.horizon()
        return found if alive.all() else where(found, alive)

    def positives(self, users: Ids) -> Sequences:
        """The steps to learn from and recommend by: the newest of a positive kind that were not undone."""
        return positives(self.sequences(users), self.kinds)

    def hidden_records(self, users: Ids) -> list[Records]:
        """Each user's HIDDEN records, also those that have expired."""
        return [np.frombuffer(value or b"", HIDDEN) for value in self.database.get_many("hidden", packed_keys(users))]

    def hidden(self, users: Ids) -> list[Ids]:
        """Items that each user does not want to see."""
        horizon = self.horizon()
        return [hidden["item"][hidden["ts"] >= horizon] for hidden in self.hidden_records(users)]

    def row_records(self, items: Ids) -> Records:
        """Packed rows of the item-item graph, writable, in the order asked for; zeros for an unknown item."""
        return self.row_records_known(items)[0]

    def row_records_known(self, items: Ids) -> tuple[Records, Mask]:
        """As `row_records`, and which items are known. Raises EarlierLayout where the rows have another layout."""
        if not self._rows_checked:
            identity = self.identity
            check_rows(identity, self.path)
            self._rows_checked = identity is not None
        empty = bytes(self._row.itemsize)
        values = self.database.get_many("rows", packed_keys(items))
        known = np.array([value is not None for value in values]) if None in values else np.ones(len(values), bool)
        return np.frombuffer(bytearray().join([v or empty for v in values]), self._row), known

    def rows(self, items: Ids) -> Rows:
        """Rows of the item-item graph."""
        return as_rows(self.row_records(items))

    def degree(self, item: int, t: int = ALL_TIME) -> int:
        """Edges of an item before a time, of every kind; counted by the keys of its leaves."""
        with state_errors("read", self.path):
            return self.items.count(item, self.horizon(), t)

    def popularity(self, item: int, t: int) -> float:
        """The weights of an item's events before t that count for others, each halved for every half-life of its age.

        Events older than NEGLIGIBLE_HALF_LIVES are not read.
        """
        half_life_ms, horizon = self.settings.popularity_half_life_s * 1000.0, self.horizon()
        since = max(horizon, t - int(NEGLIGIBLE_HALF_LIVES * half_life_ms))
        with state_errors("read", self.path):
            edges = self.items.between(item, since // DAY_MS * DAY_MS, t)
            edges = edges[self._shared_edges(item, edges, t)]
        edges = edges[edges["ts"] >= since]
        return float((self.kinds.weight[edges["kind"]] * np.exp2((edges["ts"] - t) / half_life_ms)).sum())

    def _shared_edges(self, item: int, edges: Records, t: int) -> Mask:
        """Which of an item's EDGEs before t count for others; they are all from the beginning of a day on."""
        order = np.argsort(edges["user"], kind="stable")
        users, starts, lengths = np.unique(edges["user"][order], return_index=True, return_counts=True)
        steps = np.zeros(len(edges), STEP)
        steps["item"] = item
        for name in ("ts", "kind"):
            steps[name] = edges[name][order]
        shared = self.caps.within(steps, self.kinds.counting(edges)[order], lengths, self.kinds)
        # A shorter head holds all steps of its user, and too few of them for the cap on all steps of a day.
        suspect = min(self.settings.sequence_events, self.caps.lowest_user_cap + 1) * STEP.itemsize
        for row, head in enumerate(self.users.heads(users)):
            if head is not None and len(head) >= suspect:
                own = slice(starts[row], starts[row] + lengths[row])
                of_user = self.users.between(int(users[row]), int(steps["ts"][starts[row]]) // DAY_MS * DAY_MS, t)
                its = self.shared(of_user, self.kinds.counting(of_user))
                shared[own] = its[of_user["item"] == item][: lengths[row]]
        found = np.zeros(len(edges), bool)
        found[order] = shared
        return found

    def transitions(self, item: int, t: int, limit: int) -> dict[int, float]:
        """Items that followed an item before t, from its newest `limit` edges; weights as in the item-item graph."""
        weights: dict[int, float] = {}
        with state_errors("read", self.path):
            edges = self.items.before(item, t, limit, self.horizon())
            for user in dict.fromkeys(edges["user"].tolist()):
                times = edges["ts"][edges["user"] == user]
                steps = self.users.between(user, int(times[0]) // DAY_MS * DAY_MS, t)
                counting = self.kinds.counting(steps)
                steps, shared = steps[counting], self.shared(steps, counting)[counting]
                for at in np.flatnonzero(shared & (steps["item"] == item) & np.isin(steps["ts"], times)).tolist():
                    self._add_followers(steps, shared, at, t, weights)
        return weights

    def _add_followers(self, steps: Records, shared: Mask, at: int, t: int, weights: dict[int, float]) -> None:
        """Add the pairs of the step at this place with the steps after it."""
        for lag in range(1, min(self.settings.pair_window_events, len(steps) - 1 - at) + 1):
            after = steps[at + lag]
            if shared[at + lag]:
                weight = float(self.kinds.weight[steps["kind"][at]] * self.kinds.weight[after["kind"]]) / lag
                age_s = (t - int(after["ts"])) / 1000.0
                faded = weight * 2.0 ** (-age_s / self.settings.pair_half_life_s)
                weights[int(after["item"])] = weights.get(int(after["item"]), 0.0) + faded

    def edges(self, item: int, limit: int, before: int = ALL_TIME) -> Records:
        """The newest EDGEs of an item before a time, oldest first."""
        with state_errors("read", self.path):
            return self.items.before(item, before, limit, self.horizon())

    def steps(self, user: int, limit: int, before: int = ALL_TIME) -> Records:
        """The newest STEPs of a user before a time, oldest first."""
        with state_errors("read", self.path):
            return self.users.before(user, before, limit, self.horizon())

    def journal(self, start: int, end: int) -> Records:
        """Applied EVENTs with start <= offset < end, in arrival order; nothing older is read."""
        with state_errors("read", self.path):
            return self.events.read(start, end)

    def window(self, start: int, end: int) -> Records:
        """Applied EVENTs with start < time <= end, in order of time; nothing of other days is read."""
        with state_errors("read", self.path):
            return self.events.window(max(start, self.horizon() - 1), end)

    def user_ids(self, users: Ids) -> list[bytes | None]:
        """The ids behind user hashes."""
        return self.database.get_many("ids", [b"u" + key for key in packed_keys(users)])

    def item_ids(self, items: Ids) -> list[bytes | None]:
        """The ids behind item hashes."""
        return self.database.get_many("ids", [b"i" + key for key in packed_keys(items)])

    def recommended(self, user: int) -> bytes | None:
        """The last recommendation message sent for a user."""
        return self.database.get_many("recommended", [UINT64.pack(user)])[0]

    def all_items(self) -> Ids:
        """Hashes of every item in the graph, ascending."""
        keys = list(self.database.columns["rows"].keys())
        return np.frombuffer(b"".join(keys), ">u8").astype(np.uint64)

    def some_users(self, count: int, seed: int) -> Ids:
        """Hashes of up to `count` users, sampled uniformly."""
        with state_errors("read", self.path):
            return self.users.some(count, seed)

    def close(self) -> None:
        """Close the store; it cannot be used afterwards."""
        # On a full disk RocksDB cannot flush. It is closed nevertheless, and its write-ahead log has the rest.
        with suppress(StateError):
            self.database.close()
