"""What can be wrong with a store.

StateError
├── StoreInUse       another process owns the directory
├── WrongLog         built from another cluster, topic or partition, or beyond the end of this log
├── WrongLayout      built with other settings than these
├── Repartitioned    the topic has another number of partitions than when the store was built
└── StoreFault       RocksDB cannot open, read or write it
    ├── StoreUnreadable  its files are damaged, and a rebuild mends that
    └── StoreBlocked     the machine stands in the way (disk full, no permission, open files): the store is sound
"""

from pathlib import Path


class StateError(Exception):
    """The state cannot be used as asked; the message says why and how to mend it."""


class StoreInUse(StateError):
    """Another process owns the directory."""


class WrongLog(StateError):
    """The store was built from another log than the one at hand."""


class WrongLayout(StateError):
    """The store was built with settings that fix another layout on disk."""


class Repartitioned(StateError):
    """The topic has another number of partitions now: users' clicks arrive elsewhere than their history."""


class StoreFault(StateError):
    """RocksDB cannot open, read or write the store at `path`."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


class StoreUnreadable(StoreFault):
    """The store's files are damaged: a rebuild mends that."""


class StoreBlocked(StoreFault):
    """The machine, not the store, stands in the way; it can be used again once that is mended."""
