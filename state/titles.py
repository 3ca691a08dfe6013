"""Titles of items and withdrawn items, from the `items` topic: one store for each data directory.

"offsets"                   how far the topic was read
item                        -> title; keyed by the item's hash
"withdrawn/", the item's id -> nothing
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rocksdict import AccessType, Options, Rdict, WriteBatch

from state.errors import StateError
from state.events import Ids
from state.id_hash import UNKEYED, IdHash
from state.partition import UINT64
from state.rocksdb import state_error, state_errors

OFFSETS_KEY = b"offsets"
WITHDRAWN_PREFIX = b"withdrawn/"


class TitleOffsets(msgspec.Struct):
    """How far the items topic with this id was read."""

    topic_id: str = ""
    offsets: dict[int, int] = {}
    """Next offset of each partition."""


class Titles:
    """Titles by item hash. One process writes; others open the store with `read_only`."""

    def __init__(self, data: Path, ids: IdHash = UNKEYED, *, read_only: bool = False) -> None:
        """Open `<data>/titles`; create it unless `read_only`. Raises a StateError."""
        self._path, self._ids, self._read_only = data / "titles", ids, read_only
        self._open()

    def _open(self) -> None:
        options = Options(raw_mode=True)
        options.create_if_missing(not self._read_only)
        options.set_keep_log_file_num(2)
        access = AccessType.read_only(False) if self._read_only else AccessType.read_write()
        try:
            self._db = Rdict(str(self._path), options, access_type=access)
        except Exception as error:  # rocksdict raises bare Exception for every error of RocksDB
            raise state_error("open", self._path, str(error)) from None
        with state_errors("read", self._path):
            self._set_withdrawn(set(self._read_withdrawn()))

    def _read_withdrawn(self) -> Iterator[bytes]:
        it = self._db.iter()
        it.seek(WITHDRAWN_PREFIX)
        while it.valid() and it.key().startswith(WITHDRAWN_PREFIX):
            yield it.key().removeprefix(WITHDRAWN_PREFIX)
            it.next()
        it.status()

    def _set_withdrawn(self, items: set[bytes]) -> None:
        self.withdrawn_ids = items
        """Ids of the withdrawn items."""
        self.withdrawn = np.sort(self._ids.of_many(list(items)))
        """Hashes of the withdrawn items. A change replaces the array: another thread may read it."""

    def reopen(self) -> None:
        """Open again after a fault: RocksDB stops writing after a disk error. Raises a StateError."""
        self.close()
        self._open()

    def offsets(self, topic_id: str) -> dict[int, int]:
        """Next offset of each partition of the items topic; empty when another topic was read. Raises a StateError."""
        with state_errors("read", self._path):
            value = self._db.get(OFFSETS_KEY)
        read = msgspec.json.decode(value or b"{}", type=TitleOffsets)
        return read.offsets if read.topic_id == topic_id else {}

    def apply(
        self,
        titles: dict[int, str | None],
        topic_id: str,
        offsets: dict[int, int],
        withdrawn: Mapping[bytes, bool] | None = None,
    ) -> None:
        """Write titles by item hash, and the next offsets, atomically; None removes a title.

        `withdrawn`: by item id, whether the item is withdrawn from now on. Raises a StateError.
        """
        write = WriteBatch(raw_mode=True)
        for item, title in titles.items():
            if title is None:
                write.delete(UINT64.pack(item))
            else:
                write.put(UINT64.pack(item), title.encode())
        changes = withdrawn or {}
        for identifier, is_withdrawn in changes.items():
            key = WITHDRAWN_PREFIX + identifier
            write.put(key, b"") if is_withdrawn else write.delete(key)
        write.put(OFFSETS_KEY, msgspec.json.encode(TitleOffsets(topic_id, self.offsets(topic_id) | offsets)))
        with state_errors("write", self._path):
            self._db.write(write)
        if changes:
            back = {identifier for identifier, is_withdrawn in changes.items() if not is_withdrawn}
            self._set_withdrawn((self.withdrawn_ids | changes.keys()) - back)

    def get(self, items: Ids) -> list[str | None]:
        """Titles of the items; None for an item without one. Raises a StateError."""
        with state_errors("read", self._path):
            found: Any = self._db.get([UINT64.pack(i) for i in items.tolist()])
        return [value.decode() if value is not None else None for value in found]

    def close(self) -> None:
        """Close the store."""
        with contextlib.suppress(StateError), state_errors("close", self._path):
            self._db.close()
