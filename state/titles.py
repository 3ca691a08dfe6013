"""Titles of items, folded from the `items` topic: one store for each data directory, beside the partitions."""

import contextlib
from pathlib import Path
from typing import Any

import msgspec
from rocksdict import AccessType, Options, Rdict, WriteBatch

from state.errors import StateError
from state.events import Ids
from state.partition import UINT64
from state.rocksdb import state_error, state_errors

OFFSETS_KEY = b"offsets"


class TitleOffsets(msgspec.Struct):
    """How far the items topic with this id was read."""

    topic_id: str = ""
    offsets: dict[int, int] = {}
    """Next offset of each partition."""


class Titles:
    """Titles by item hash. One process writes; others open the store with `read_only`."""

    def __init__(self, data: Path, *, read_only: bool = False) -> None:
        """Open `<data>/titles`; create it unless `read_only`. Raises a StateError."""
        self._path, self._read_only = data / "titles", read_only
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

    def apply(self, titles: dict[int, str | None], topic_id: str, offsets: dict[int, int]) -> None:
        """Write titles by item hash, and the next offsets, atomically; None removes a title. Raises a StateError."""
        write = WriteBatch(raw_mode=True)
        for item, title in titles.items():
            if title is None:
                write.delete(UINT64.pack(item))
            else:
                write.put(UINT64.pack(item), title.encode())
        write.put(OFFSETS_KEY, msgspec.json.encode(TitleOffsets(topic_id, self.offsets(topic_id) | offsets)))
        with state_errors("write", self._path):
            self._db.write(write)

    def get(self, items: Ids) -> list[str | None]:
        """Titles of the items; None for an item without one. Raises a StateError."""
        with state_errors("read", self._path):
            found: Any = self._db.get([UINT64.pack(i) for i in items.tolist()])
        return [value.decode() if value is not None else None for value in found]

    def close(self) -> None:
        """Close the store."""
        with contextlib.suppress(StateError), state_errors("close", self._path):
            self._db.close()
