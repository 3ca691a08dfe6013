"""Whether anything of a user is left: every byte of every file, and every record as it is before compression."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from rocksdict import AccessType, Options, Rdict

from state.errors import StateError
from state.events import hash_id

READ_BYTES = 1 << 24
SHORT_BYTES = 8
"""A shorter id is met by chance: it is searched as JSON has it, between quotes."""


class Found(NamedTuple):
    """What was searched, and where the user was found."""

    files: int
    bytes: int
    records: int
    """Keys with their values, of every column family of every store."""
    places: list[str]
    """Files and column families that name the user."""


def search(data: Path, user: str) -> Found:
    """Search a data directory for a user's id and its 64-bit hash in both byte orders, while workers run or not."""
    name, key = user.encode(), hash_id(user)
    words = [
        name if len(name) >= SHORT_BYTES else b'"' + name + b'"',
        key.to_bytes(8, "little"),
        key.to_bytes(8, "big"),
    ]
    files = size = records = 0
    places = []
    for file in sorted(f for f in data.rglob("*") if f.is_file()):
        files += 1
        try:
            size += file.stat().st_size
            if _in_file(file, words):
                places.append(str(file.relative_to(data)))
        except FileNotFoundError:  # compacted away meanwhile
            continue
    for current in sorted(data.rglob("CURRENT")):
        for column, entries in _columns(current.parent):
            met = False
            for entry_key, value in entries:
                records += 1
                met = met or value == name or any(word in entry_key or word in value for word in words)
            if met:
                places.append(f"{current.parent.relative_to(data)}, column family {column}")
    return Found(files, size, records, places)


def _in_file(file: Path, words: list[bytes]) -> bool:
    longest = max(map(len, words))
    with file.open("rb") as opened:
        end = b""
        while block := opened.read(READ_BYTES):
            text = end + block
            if any(word in text for word in words):
                return True
            end = text[-longest:]
    return False


def _entries(column: Any) -> Iterator[tuple[bytes, bytes]]:
    yield from column.items()


def _columns(path: Path) -> Iterator[tuple[str, Iterator[tuple[bytes, bytes]]]]:
    """Every column family of a store, with its entries."""
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
        if type(error) is not Exception:  # rocksdict raises bare Exception for all it has to say
            raise
        raise StateError(f"{path} cannot be searched: {error}") from None
