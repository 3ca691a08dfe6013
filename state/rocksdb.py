"""A store's RocksDB: its options, and what it has to say as errors for people."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBufferManager,
)

from state.errors import StateError, StoreBlocked, StoreInUse, StoreUnreadable
from state.settings import StateSettings

COLUMNS = (
    "sequences", "sequence_leaves", "edges", "edge_leaves", "rows", "hidden", "journal", "days", "ids", "seen",
    "recommended",
)  # fmt: skip
"""The column families; `state/partition.py` says what is in them."""


@cache
def _block_cache(size: int) -> Cache:
    return Cache(size)


@cache
def _buffers(size: int) -> WriteBufferManager:
    return WriteBufferManager(size, False)


def options(settings: StateSettings) -> Options:
    """RocksDB options of a store's column families."""
    blocks = BlockBasedOptions()
    blocks.set_block_cache(_block_cache(settings.block_cache_bytes))
    blocks.set_bloom_filter(10, False)
    chosen = Options(raw_mode=True)
    chosen.create_if_missing(True)
    chosen.create_missing_column_families(True)
    chosen.set_block_based_table_factory(blocks)
    chosen.set_write_buffer_size(settings.write_buffer_bytes)
    chosen.set_arena_block_size(256 << 10)  # many column families are all but empty
    chosen.set_write_buffer_manager(_buffers(settings.write_buffers_bytes))
    chosen.set_max_write_buffer_number(3)
    chosen.set_compression_type(DBCompressionType.lz4())
    chosen.set_max_open_files(512)
    chosen.set_keep_log_file_num(2)
    # The list of files has their first and last keys, an erased user's perhaps: it is written anew, not only added to.
    chosen.set_max_manifest_file_size(1)
    # Flushed column families would otherwise pin the write-ahead log of quiet ones for ever.
    chosen.set_max_total_wal_size(256 << 20)
    chosen.set_paranoid_checks(True)  # a file of another size than was written is found when the store is opened
    return chosen


def open_rocksdb(path: Path, settings: StateSettings, access: AccessType | None = None) -> Rdict:
    """Open the store's RocksDB. Raises StoreInUse or StoreUnreadable."""
    chosen = options(settings)
    try:
        return Rdict(
            str(path),
            chosen,
            column_families={name: options(settings) for name in COLUMNS},
            access_type=access or AccessType.read_write(),
        )
    except Exception as error:  # rocksdict raises bare Exception for all it has to say
        raise explained("open", path, str(error)) from None


MENDED_BY = {
    "no space left on device": "the disk is full: make room on it",
    "disk quota exceeded": "the disk quota is used up: raise it or make room",
    "file too large": "a limit on the size of files stands in the way: raise it (ulimit -f unlimited)",
    "permission denied": "give it to the user that runs anabranch (chown -R)",
    "read-only file system": "mount the file system writable",
    "too many open files": "raise the limit on open files (ulimit -n 65536; LimitNOFILE= of a systemd unit)",
}
"""What stands in the way of a sound store, as the system words it, and what mends it."""


def explained(doing: str, path: Path, said: str) -> StateError:
    """The error for what RocksDB said when it could not open, read or write a store."""
    lower = said.lower()
    for words, mended_by in MENDED_BY.items():
        if words in lower:
            return StoreBlocked(f"RocksDB cannot {doing} {path}: {said}; {mended_by}", path)
    if "lock" in lower and "block" not in lower:
        return StoreInUse(
            f"{path} is in use by another process: each worker needs a data directory of its own (--data DIR)"
        )
    return StoreUnreadable(f"RocksDB cannot {doing} {path}: {said}", path)


@contextmanager
def rocksdb(doing: str, path: Path) -> Iterator[None]:
    """Raise what RocksDB has to say as a StateError."""
    try:
        yield
    except Exception as error:
        if type(error) is not Exception:  # rocksdict raises bare Exception for all it has to say
            raise
        raise explained(doing, path, str(error)) from None
