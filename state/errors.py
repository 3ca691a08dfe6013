"""What can be wrong with a store.

StateError
├── StoreInUse       another process owns the directory
├── WrongLog         built from another cluster, topic or partition, or beyond the end of this log
├── WrongLayout      built with other settings than these
├── Repartitioned    the topic has another number of partitions than when the store was built
└── StoreUnreadable  RocksDB cannot open or write it (corruption, no permission, disk full)
"""


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


class StoreUnreadable(StateError):
    """RocksDB cannot open, read or write the store."""
