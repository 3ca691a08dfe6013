"""Errors of a store. Each message names the problem, the value and the remedy.

StateError
├── StoreInUse       another process has the directory open
├── WrongLog         built from another cluster, topic or partition, or beyond the end of this log
├── WrongLayout      its records have another layout: other settings, or another version
│   └── EarlierLayout    an earlier version wrote it; a worker upgrades it when it opens it
├── Repartitioned    the topic had another number of partitions when the store was built
└── StoreFault       RocksDB cannot open, read or write it
    ├── StoreUnreadable  its files are damaged; a rebuild repairs the store
    └── StoreBlocked     the store is sound, but the disk is full, a permission is missing or the like
"""

from pathlib import Path


class StateError(Exception):
    """The state cannot be used. The message names the reason and the remedy."""


class StoreInUse(StateError):
    """Another process has the store's directory open."""


class WrongLog(StateError):
    """The store was built from another log, so its offsets mean nothing in this one."""


class WrongLayout(StateError):
    """The store's records have a layout that this version with these settings cannot read."""


class EarlierLayout(WrongLayout):
    """An earlier version wrote the store. A worker upgrades it when it opens it (`state/upgrade.py`)."""


class Repartitioned(StateError):
    """The topic has another number of partitions now: users' clicks arrive in other partitions than their history."""


class StoreFault(StateError):
    """RocksDB cannot open, read or write the store at `path`."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


class StoreUnreadable(StoreFault):
    """The store's files are damaged. A rebuild repairs the store."""


class StoreBlocked(StoreFault):
    """The store is sound, but its files cannot be used: the disk is full, a permission is missing or the like."""
