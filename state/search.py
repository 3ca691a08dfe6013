"""A search for the remains of a forgotten user, in every byte of every file and in every uncompressed record."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
from rocksdict import AccessType, Options, Rdict

from state.errors import StateError
from state.id_hash import IdHash
from state.identity import Identity

READ_BYTES = 1 << 24
"""Bytes of a file read at once."""
MIN_ID_BYTES = 8
"""A shorter id occurs by chance: it is searched between quotes, as in JSON."""


class Found(NamedTuple):
    """The extent of a search, and the places where the user was found."""

    files: int
    bytes: int
    records: int
    """Records of every column family of every store."""
    places: list[str]
    """Files and column families that name the user."""


def search(data: Path, user: str) -> Found:
    """Search a data directory for a user's id and its 64-bit hashes, in both byte orders. Workers may run meanwhile.

    The hashes are those with the key of each store, stores that were moved aside among them, and the one without a key.
    Raises a StateError when a store cannot be opened.
    """
    name = user.encode()
    stores = [current.parent for current in sorted(data.rglob("CURRENT"))]
    hashes = {IdHash(key).of(user) for key in {"", *map(_id_key, stores)}}
    patterns = [name if len(name) >= MIN_ID_BYTES else b'"' + name + b'"']
    patterns += [each.to_bytes(8, order) for each in sorted(hashes) for order in ("little", "big")]
    files = size = records = 0
    places = []
    for file in sorted(f for f in data.rglob("*") if f.is_file()):
        files += 1
        try:
            size += file.stat().st_size
            if _in_file(file, patterns):
                places.append(str(file.relative_to(data)))
        except FileNotFoundError:  # compaction removed it meanwhile
            continue
    for store in stores:
        for column, entries in _columns(store):
            is_found = False
            for entry_key, value in entries:
                records += 1
                is_found = is_found or value == name or any(p in entry_key or p in value for p in patterns)
            if is_found:
                places.append(f"{store.relative_to(data)}, column family {column}")
    return Found(files, size, records, places)


def _id_key(store: Path) -> str:
    """The key of a store's ids; empty for the store of titles, which has no users."""
    for column, entries in _columns(store):
        if column == "default":
            found = next((value for key, value in entries if key == b"identity"), b"")
            with suppress(msgspec.MsgspecError):  # no store of ours, or one without an identity
                return msgspec.json.decode(found, type=Identity).id_key
    return ""


def _in_file(file: Path, patterns: list[bytes]) -> bool:
    longest = max(map(len, patterns))
    with file.open("rb") as opened:
        end = b""
        while block := opened.read(READ_BYTES):
            text = end + block
            if any(pattern in text for pattern in patterns):
                return True
            end = text[-longest:]
    return False


def _entries(column: Any) -> Iterator[tuple[bytes, bytes]]:
    yield from column.items()


def _columns(path: Path) -> Iterator[tuple[str, Iterator[tuple[bytes, bytes]]]]:
    """Every column family of a store with its records."""
    options = Options(raw_mode=True)
    options.create_if_missing(False)
    try:
        names = Rdict.list_cf(str(path), options)
        with TemporaryDirectory(prefix="anabranch-search-") as scratch:
            db = Rdict(
                str(path),
                options,
                column_families={name: Options(raw_mode=True) for name in names},
                access_type=AccessType.secondary(scratch),
            )
            try:
                for name in names:
                    yield name, _entries(db.get_column_family(name))
            finally:
                db.close()
    except Exception as error:
        if type(error) is not Exception:  # rocksdict raises bare Exception for every error of RocksDB
            raise
        raise StateError(f"{path} cannot be searched: {error}") from None
