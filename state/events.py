"""Events as the state sees them: fixed-width records, ids as 64-bit hashes."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

EVENT = np.dtype([("user", "<u8"), ("item", "<u8"), ("ts", "<i8"), ("offset", "<i8"), ("kind", "<u2")])
"""One event: hashes of user and item, event time in ms, offset in its partition's log, code of its kind."""

Ids = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Records = npt.NDArray[np.void]


def hash_id(identifier: str | bytes) -> int:
    """The 64-bit hash of a user or item id; never 0, which means "empty" in every record.

    >>> hash_id("milk") == hash_id(b"milk")
    True
    """
    if isinstance(identifier, str):
        identifier = identifier.encode()
    return xxhash.xxh3_64_intdigest(identifier) or 1


def hash_ids(identifiers: list[bytes]) -> Ids:
    """Hashes of many ids at once, in their order."""
    digest = xxhash.xxh3_64_intdigest
    hashes = np.fromiter(map(digest, identifiers), np.uint64, len(identifiers))
    hashes[hashes == 0] = 1
    return hashes


def packed_keys(hashes: Ids) -> list[bytes]:
    """Big-endian keys of hashes.

    >>> packed_keys(np.array([1], np.uint64))
    [b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01']
    """
    packed = hashes.astype(">u8").tobytes()
    return [packed[at : at + 8] for at in range(0, len(packed), 8)]


class EventBatch(NamedTuple):
    """Valid events of one partition in log order, with their ids for the dictionary."""

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
