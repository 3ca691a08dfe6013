"""Readable names of items, folded from the `items` topic; kept beside the partitions, one store a data directory."""

from pathlib import Path
from typing import Any

import msgspec
from rocksdict import AccessType, Options, Rdict, WriteBatch

from state.events import Ids
from state.partition import KEY
from state.rocksdb import explained

OFFSETS = b"offsets"


class Titles:
    """Item hash -> title. One process writes; others open it with `read_only`."""

    def __init__(self, data: Path, *, read_only: bool = False) -> None:
        """Open `<data>/titles`, made where missing unless read only. Raises a StateError."""
        options = Options(raw_mode=True)
        options.create_if_missing(not read_only)
        options.set_keep_log_file_num(2)
        access = AccessType.read_only(False) if read_only else AccessType.read_write()
        try:
            self._db = Rdict(str(data / "titles"), options, access_type=access)
        except Exception as error:  # rocksdict raises bare Exception for all it has to say
            raise explained("open", data / "titles", str(error)) from None

    def offsets(self) -> dict[int, int]:
        """Next offset of each partition of the items topic."""
        value = self._db.get(OFFSETS)
        return msgspec.json.decode(value, type=dict[int, int]) if value else {}

    def apply(self, titles: dict[int, str | None], offsets: dict[int, int]) -> None:
        """Write titles by item hash (None removes one) with the next offsets, atomically."""
        write = WriteBatch(raw_mode=True)
        for item, title in titles.items():
            if title is None:
                write.delete(KEY.pack(item))
            else:
                write.put(KEY.pack(item), title.encode())
        write.put(OFFSETS, msgspec.json.encode(self.offsets() | offsets))
        self._db.write(write)

    def get(self, items: Ids) -> list[str | None]:
        """Titles of the items; None where there is none."""
        found: Any = self._db.get([KEY.pack(i) for i in items.tolist()])
        return [value.decode() if value is not None else None for value in found]

    def close(self) -> None:
        """Close the store."""
        self._db.close()
