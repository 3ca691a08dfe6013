"""The RocksDB database of one store: its options, its column families and its error messages."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    ColumnFamily,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteBufferManager,
)

from state.errors import StateError, StoreBlocked, StoreInUse, StoreUnreadable
from state.settings import StateSettings

COLUMN_FAMILIES = (
    "sequences", "sequence_leaves", "edges", "edge_leaves", "rows", "hidden", "journal", "days", "ids", "seen",
    "recommended",
)  # fmt: skip
"""The column families beside the default one. `state/partition.py` describes their content."""


class Database:
    """An open RocksDB database with the column families of a store.

    The modules of `state` read from `columns` and add to a WriteBatch through `handles`. Both are empty once the
    database is closed: a column family that is still referenced keeps the directory locked.
    """

    def __init__(self, path: Path, settings: StateSettings, access: AccessType | None = None) -> None:
        """Open the database at `path`, or create it. Raises a StateError."""
        self.path = path
        self.default = _open(path, settings, access or AccessType.read_write())
        """The default column family; also the database itself."""
        self.columns: dict[str, Any] = {name: self.default.get_column_family(name) for name in COLUMN_FAMILIES}
        """The other column families by name."""
        self.handles: dict[str, ColumnFamily] = {
            name: self.default.get_column_family_handle(name) for name in COLUMN_FAMILIES
        }
        """The other column families by name, as a WriteBatch takes them."""

    def families(self) -> list[Any]:
        """All column families, the default one first. Drop them before `close`: a reference keeps the lock."""
        return [self.default, *self.columns.values()]

    def get(self, key: bytes) -> bytes | None:
        """A value of the default column family. Raises a StateError."""
        with state_errors("read", self.path):
            value: bytes | None = self.default.get(key)
        return value

    def get_many(self, column: str, keys: list[bytes]) -> list[bytes | None]:
        """The values of these keys, in their order. Raises a StateError."""
        with state_errors("read", self.path):
            found: list[bytes | None] = self.columns[column].get(keys)
        return found

    def put(self, key: bytes, value: bytes) -> None:
        """Write one value to the default column family. Raises a StateError."""
        with state_errors("write", self.path):
            self.default.put(key, value)

    def write(self, batch: WriteBatch) -> None:
        """Write a batch atomically. Raises a StateError."""
        with state_errors("write", self.path):
            self.default.write(batch)

    def flush(self) -> None:
        """Write all memtables to files. Other threads run meanwhile. Raises a StateError."""
        with state_errors("write", self.path):
            for family in self.families():
                family.flush(True)

    def close(self) -> None:
        """Close the database. Raises a StateError when RocksDB cannot flush; the database is closed nevertheless."""
        self.columns.clear()
        self.handles.clear()
        with state_errors("close", self.path):
            self.default.close()


def _open(path: Path, settings: StateSettings, access: AccessType) -> Rdict:
    families = {name: _options(settings) for name in COLUMN_FAMILIES}
    try:
        return Rdict(str(path), _options(settings), column_families=families, access_type=access)
    except Exception as error:  # rocksdict raises bare Exception, and others where its own configuration is damaged
        raise state_error("open", path, str(error)) from None


@contextmanager
def state_errors(doing: str, path: Path) -> Iterator[None]:
    """Raise RocksDB's errors as a StateError. `doing` is the verb of the message: "open", "read", "write"."""
    try:
        yield
    except Exception as error:
        if type(error) is not Exception:  # rocksdict raises bare Exception for every error of RocksDB
            raise
        raise state_error(doing, path, str(error)) from None


REMEDIES = {
    "no space left on device": "the disk is full: make room on it",
    "disk quota exceeded": "the disk quota is used up: raise it or make room",
    "file too large": "the limit on file sizes is too low: raise it (ulimit -f unlimited)",
    "permission denied": "the user that runs anabranch must own the files (chown -R)",
    "read-only file system": "mount the file system writable",
    "too many open files": "raise the limit on open files (ulimit -n 65536; LimitNOFILE= of a systemd unit)",
}
"""Causes outside the store, as the system reports them, and the remedy for each."""


def state_error(doing: str, path: Path, message: str) -> StateError:
    """The error for RocksDB's message when it could not open, read or write a store."""
    lower = message.lower()
    for cause, remedy in REMEDIES.items():
        if cause in lower:
            return StoreBlocked(f"RocksDB cannot {doing} {path}: {message}; {remedy}", path)
    if "lock" in lower and "block" not in lower:
        return StoreInUse(f"{path} is in use by another process: give each worker its own data directory (--data DIR)")
    return StoreUnreadable(f"RocksDB cannot {doing} {path}: {message}", path)


@cache
def _block_cache(size: int) -> Cache:
    return Cache(size)


@cache
def _write_buffers(size: int) -> WriteBufferManager:
    return WriteBufferManager(size, False)


def _options(settings: StateSettings) -> Options:
    """RocksDB options of a store's column families."""
    blocks = BlockBasedOptions()
    blocks.set_block_cache(_block_cache(settings.block_cache_bytes))
    blocks.set_bloom_filter(10, False)
    chosen = Options(raw_mode=True)
    chosen.create_if_missing(True)
    chosen.create_missing_column_families(True)
    chosen.set_block_based_table_factory(blocks)
    chosen.set_write_buffer_size(settings.write_buffer_bytes)
    chosen.set_arena_block_size(256 << 10)  # many column families are almost empty
    chosen.set_write_buffer_manager(_write_buffers(settings.write_buffers_bytes))
    chosen.set_max_write_buffer_number(3)
    chosen.set_compression_type(DBCompressionType.lz4())
    chosen.set_max_open_files(512)
    chosen.set_keep_log_file_num(2)
    # The list of files holds their first and last keys, which may be an erased user's: every change rewrites it.
    chosen.set_max_manifest_file_size(1)
    # Otherwise a column family that is rarely written keeps the write-ahead log of the others alive.
    chosen.set_max_total_wal_size(256 << 20)
    chosen.set_paranoid_checks(True)  # opening the store finds a file whose size is wrong
    return chosen
