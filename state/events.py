"""Events in the state: fixed-width records, with 64-bit hashes for ids (`state/id_hash.py`).

`make_events` and `make_batch` are the only places that build them, field by field."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

EVENT = np.dtype([("user", "<u8"), ("item", "<u8"), ("ts", "<i8"), ("offset", "<i8"), ("kind", "<u2")])
"""One event: hashes of user and item, event time in ms, logical offset in its partition, code of its kind."""

Ids = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Records = npt.NDArray[np.void]


def hash_id(identifier: str | bytes) -> int:
    """The 64-bit hash of an id without a key. Never 0, because 0 means "empty" in records.

    >>> hash_id("milk") == hash_id(b"milk")
    True
    """
    if isinstance(identifier, str):
        identifier = identifier.encode()
    return xxhash.xxh3_64_intdigest(identifier) or 1


def hash_ids(identifiers: list[bytes]) -> Ids:
    """Hashes of many ids without a key, in their order."""
    digest = xxhash.xxh3_64_intdigest
    hashes = np.fromiter(map(digest, identifiers), np.uint64, len(identifiers))
    hashes[hashes == 0] = 1
    return hashes


def packed_keys(hashes: Ids) -> list[bytes]:
    """The big-endian keys of hashes, so that RocksDB's order is theirs.

    >>> packed_keys(np.array([1], np.uint64))
    [b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01']
    """
    packed = hashes.astype(">u8").tobytes()
    return [packed[at : at + 8] for at in range(0, len(packed), 8)]


def make_events(
    user: npt.ArrayLike,
    item: npt.ArrayLike,
    *,
    ts: npt.ArrayLike = 0,
    offset: npt.ArrayLike = 0,
    kind: npt.ArrayLike = 0,
) -> Records:
    """EVENT records from columns; a single number fills its column. `user` must be a column.

    >>> make_events([7, 7], [1, 2], ts=10)[["item", "ts"]].tolist()
    [(1, 10), (2, 10)]
    """
    events = np.zeros(len(user), EVENT)  # type: ignore[arg-type]
    events["user"], events["item"] = user, item
    events["ts"], events["offset"], events["kind"] = ts, offset, kind
    return events


class EventBatch(NamedTuple):
    """Valid events of one partition in log order, with the ids of their users and items."""

    events: Records
    """EVENT records, ascending offsets."""
    users: list[bytes]
    """The user id of each event."""
    items: list[bytes]
    """The item id of each event."""
    ids: dict[int, bytes]
    """De-duplication ids, by row, of the events that carry one."""

    def take(self, rows: npt.NDArray[np.intp]) -> "EventBatch":
        """Only these rows, which must ascend."""
        at = rows.tolist()
        return EventBatch(
            self.events[rows],
            [self.users[r] for r in at],
            [self.items[r] for r in at],
            {new: self.ids[old] for new, old in enumerate(at) if old in self.ids},
        )


def make_batch(
    users: list[bytes],
    items: list[bytes],
    *,
    ts: npt.ArrayLike,
    offset: npt.ArrayLike,
    kind: npt.ArrayLike = 0,
    ids: dict[int, bytes] | None = None,
    hashed_by: Callable[[list[bytes]], Ids] = hash_ids,
) -> EventBatch:
    """A batch from the ids of its users and items, which are hashed, and columns as in `make_events`.

    `ids` are de-duplication ids by row.
    """
    events = make_events(hashed_by(users), hashed_by(items), ts=ts, offset=offset, kind=kind)
    return EventBatch(events, users, items, ids or {})
