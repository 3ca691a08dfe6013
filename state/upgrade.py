"""A store of an earlier layout is built again in today's, out of what it holds: its journal is folded once more.

The log is not read: it may no longer have the events. The new store lies beside the old one until it is complete, and
then takes its place. A process that dies on the way begins again at the next opening.

    upgrading-<name>    the new store, while it is built
    replaced-<name>     the old one, from the moment the new one is complete
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
from rocksdict import WriteBatch

from state.erasure import ERASING_PREFIX, read_erasures
from state.errors import StateError, StoreBlocked
from state.identity import KEYED_LAYOUT, LAYOUT, Identity
from state.partition import UINT64, Partition
from state.rehash import fold_journal
from state.rocksdb import state_errors
from state.settings import StateSettings
from state.store import Store

COPIED_COLUMNS = ("seen", "recommended")
"""Column families that no event of the journal brings back: ids for de-duplication, and the messages sent."""
COPIED_AT_ONCE = 10_000
SPACE_FACTOR = 2
"""Free bytes for each byte of the old store: rows grow by a third, and RocksDB needs room to sort."""


def upgrade(path: Path, wanted: Identity, settings: StateSettings, report: Callable[[int, int, int], None]) -> int:
    """Replace the store at `path`, which has an earlier layout and is not open, by one of today's layout.

    Returns how many events it holds. `report` gets the offset reached, the last one, and the number of events. Raises a
    StateError; StoreBlocked where the disk is too small for both stores. The old store is as it was then.
    """
    beside = upgrading_path(path)
    _check_space(path)
    served = Partition(path, settings)  # from here on no other process has the store open
    try:
        shutil.rmtree(beside, ignore_errors=True)
        stored, progress = served.identity, served.read_progress()
        assert stored is not None
        report(0, progress.next_offset, progress.edges)
        layout = KEYED_LAYOUT if served.ids.keyed else LAYOUT
        identity = msgspec.structs.replace(stored, layout=layout, topic_id=stored.topic_id or wanted.topic_id)
        store = Store(beside, identity, settings)
        try:
            folded = build_again(served, store, lambda at: report(at, progress.next_offset, progress.edges))
        finally:
            store.close()
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    finally:
        served.close()
    try:
        path.rename(replaced_path(path))
    except OSError as error:
        raise StateError(
            f"cannot replace {path} by its upgrade: {error.strerror}; the user that runs anabranch must be able to "
            f"write in {path.parent} (chown -R)"
        ) from None
    finish(path)
    return folded


def build_again(served: Partition, store: Store, report: Callable[[int], None] = lambda _: None) -> int:
    """Fold the events of a store into an empty one with the same id key, and take over all that is not in an event.

    Returns how many events. `report` gets offsets. The new store is synced to the disk. Raises a StateError.
    """
    store.cap_as(served)
    folded = fold_journal(served, store, report)
    for column in COPIED_COLUMNS:
        _copy(served, store, column)
    write = WriteBatch(raw_mode=True)
    for erasure in read_erasures(served.database.default):
        write.put(ERASING_PREFIX + UINT64.pack(erasure.user), msgspec.json.encode(erasure))
    store.database.write(write)
    store.stand_in_for(served)
    store.database.flush()
    return folded


def finish(path: Path) -> None:
    """Complete a replacement of the store at `path` that has begun, also after a crash; else do nothing."""
    replaced, beside = replaced_path(path), upgrading_path(path)
    if not replaced.exists():
        return
    if not path.exists() and beside.exists():
        beside.rename(path)
    shutil.rmtree(replaced, ignore_errors=True)


def upgrading_path(path: Path) -> Path:
    """Where the new store lies until it replaces the one at `path`."""
    return path.with_name(f"upgrading-{path.name}")


def replaced_path(path: Path) -> Path:
    """Where the old store lies until it is removed."""
    return path.with_name(f"replaced-{path.name}")


def _check_space(path: Path) -> None:
    size = sum(file.stat().st_size for file in path.iterdir())
    free = shutil.disk_usage(path).free
    if free < SPACE_FACTOR * size:
        raise StoreBlocked(
            f"{path} was written by an earlier version and is built again beside the old one, which needs "
            f"{SPACE_FACTOR * size:,} free bytes on this disk until the old one is removed; {free:,} are free: make "
            f"room",
            path,
        )


def _copy(served: Partition, store: Store, column: str) -> None:
    """Copy a column family."""
    it, write, copied = served.database.columns[column].iter(), WriteBatch(raw_mode=True), 0
    with state_errors("read", served.path):
        it.seek_to_first()
        while it.valid():
            write.put(it.key(), it.value(), store.database.handles[column])
            copied += 1
            if copied % COPIED_AT_ONCE == 0:
                store.database.write(write)
                write = WriteBatch(raw_mode=True)
            it.next()
        it.status()
    store.database.write(write)
