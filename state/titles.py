"""Readable names of items, folded from the `items` topic; kept beside the partitions, one store a data directory."""

import contextlib
from pathlib import Path
from typing import Any

import msgspec
from rocksdict import AccessType, Options, Rdict, WriteBatch

from state.errors import StateError
from state.events import Ids
from state.partition import KEY
from state.rocksdb import explained, rocksdb

OFFSETS = b"offsets"


class Read(msgspec.Struct):
    """How far which topic was read."""

    topic_id: str = ""
    offsets: dict[int, int] = {}


class Titles:
    """Item hash -> title. One process writes; others open it with `read_only`."""

    def __init__(self, data: Path, *, read_only: bool = False) -> None:
        """Open `<data>/titles`, made where missing unless read only. Raises a StateError."""
        self._path, self._read_only = data / "titles", read_only
        self._open()

    def _open(self) -> None:
        options = Options(raw_mode=True)
        options.create_if_missing(not self._read_only)
        options.set_keep_log_file_num(2)
        access = AccessType.read_only(False) if self._read_only else AccessType.read_write()
        try:
            self._db = Rdict(str(self._path), options, access_type=access)
        except Exception as error:  # rocksdict raises bare Exception for all it has to say
            raise explained("open", self._path, str(error)) from None

    def reopen(self) -> None:
        """Begin anew after a fault: RocksDB writes no more after an error of the disk. Raises a StateError."""
        self.close()
        self._open()

    def offsets(self, topic_id: str) -> dict[int, int]:
        """Next offset of each partition of the items topic; nothing was read of one with another id.

        Raises a StateError.
        """
        with rocksdb("read", self._path):
            value = self._db.get(OFFSETS)
        read = msgspec.json.decode(value or b"{}", type=Read)
        return read.offsets if read.topic_id == topic_id else {}

    def apply(self, titles: dict[int, str | None], topic_id: str, offsets: dict[int, int]) -> None:
        """Write titles by item hash (None removes one) with the next offsets, atomically. Raises a StateError."""
        write = WriteBatch(raw_mode=True)
        for item, title in titles.items():
            if title is None:
                write.delete(KEY.pack(item))
            else:
                write.put(KEY.pack(item), title.encode())
        write.put(OFFSETS, msgspec.json.encode(Read(topic_id, self.offsets(topic_id) | offsets)))
        with rocksdb("write", self._path):
            self._db.write(write)

    def get(self, items: Ids) -> list[str | None]:
        """Titles of the items; None where there is none. Raises a StateError."""
        with rocksdb("read", self._path):
            found: Any = self._db.get([KEY.pack(i) for i in items.tolist()])
        return [value.decode() if value is not None else None for value in found]

    def close(self) -> None:
        """Close the store."""
        with contextlib.suppress(StateError), rocksdb("close", self._path):
            self._db.close()
