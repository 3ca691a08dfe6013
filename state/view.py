"""A read-only view over all partitions in a data directory, while workers run or not."""

import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from rocksdict import AccessType

from state.errors import StateError, StoreUnreadable
from state.events import EVENT, Ids, Records
from state.graph import Rows, combine
from state.id_hash import UNKEYED, IdHash
from state.partition import EDGE, POPULAR, Partition
from state.sequences import STEP, Sequences
from state.settings import StateSettings
from state.timeline import ALL_TIME

SCRATCH_PREFIX = "anabranch-view-"
"""Prefix of a view's folder in the directory for temporary files; the process id follows."""
CREATED_WITHIN_S = 2.0
"""A worker has created a store after this time: one that cannot be opened by then is damaged."""
RETRY_EVERY_S = 0.1


def partition_path(data: Path, topic: str, partition: int) -> Path:
    """The directory of a partition's store."""
    return data / f"{topic}-{partition}"


def partitions_in(data: Path, topic: str) -> list[int]:
    """Partitions that have a store in the data directory."""
    numbers = (p.name.removeprefix(f"{topic}-") for p in data.glob(f"{topic}-*") if (p / "CURRENT").exists())
    return sorted(int(n) for n in numbers if n.isdecimal())


def id_keys_in(data: Path, topic: str, settings: StateSettings) -> dict[int, str]:
    """The key of each partition's ids in the data directory. Damaged stores are left out.

    Raises a StateError for a store that is sound and cannot be opened now.
    """
    found = {n: id_key_at(partition_path(data, topic, n), settings) for n in partitions_in(data, topic)}
    return {number: key for number, key in found.items() if key is not None}


def id_key_at(path: Path, settings: StateSettings) -> str | None:
    """The key of a store's ids, also while a worker writes it; None where no store is, or a damaged one.

    Raises a StateError for a store that is sound and cannot be opened now.
    """
    until = time.monotonic() + CREATED_WITHIN_S
    while (path / "CURRENT").exists():
        try:
            partition = Partition(path, settings, AccessType.read_only(False))
        except StoreUnreadable:  # its worker may have removed a file in the meantime
            if time.monotonic() > until:
                return None
            time.sleep(RETRY_EVERY_S)
            continue
        try:
            return partition.identity.id_key if partition.identity is not None else None
        finally:
            partition.close()
    return None


class View:
    """Read access to every partition's store through RocksDB secondaries.

    A secondary shows what the worker had written at the last `refresh`.
    """

    def __init__(self, data: Path, topic: str, settings: StateSettings) -> None:
        self._data, self._topic, self._settings = data, topic, settings
        # A secondary writes its info log to a folder of its own, and nothing of the state.
        remove_leftovers()
        self._scratch = Path(tempfile.mkdtemp(prefix=f"{SCRATCH_PREFIX}{os.getpid()}-"))
        self.partitions: dict[int, Partition] = {}
        self._inodes: dict[int, int] = {}
        """The directories that the partitions were opened in: an upgrade or a rebuild replaces one."""
        self.unreadable: dict[int, StateError] = {}
        """Partitions whose store could not be opened at the last `refresh`, and why."""
        self.refresh()

    def __enter__(self) -> "View":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def refresh(self) -> None:
        """Read the workers' new writes and open new partitions; `unreadable` lists stores that cannot be opened."""
        self.unreadable.clear()
        for number, partition in list(self.partitions.items()):
            try:
                replaced = partition.path.stat().st_ino != self._inodes[number]
                if not replaced:
                    partition.database.default.try_catch_up_with_primary()
            except Exception:  # the store was moved aside or rebuilt: open the one there now
                replaced = True
            if replaced:
                partition.close()
                del self.partitions[number]
        for number in partitions_in(self._data, self._topic):
            if number not in self.partitions:
                path = partition_path(self._data, self._topic, number)
                access = AccessType.secondary(str(self._scratch / str(number)))
                try:
                    inode = path.stat().st_ino
                    self.partitions[number] = Partition(path, self._settings, access)
                    self._inodes[number] = inode
                except FileNotFoundError:  # moved in the meantime
                    continue
                except StateError as error:  # a worker may be creating it; the next refresh sees it
                    self.unreadable[number] = error

    @property
    def ids(self) -> IdHash:
        """The hash of the stores' ids. Raises a StateError where two stores have different keys."""
        by_number = {n: p.ids for n, p in self.partitions.items() if p.identity is not None}  # else being created
        if len(set(by_number.values())) > 1:
            keys = ", ".join(f"{n}: {ids.fingerprint or 'none'}" for n, ids in sorted(by_number.items()))
            raise StateError(
                f"the partitions in {self._data} hash their ids with different keys ({keys}): one of them is left over "
                f"from before a change of the key. A worker started on this --data moves it aside"
            )
        return next(iter(by_number.values()), UNKEYED)

    def settle(self, within_s: float = CREATED_WITHIN_S) -> None:
        """Wait for workers to create their stores. A store that is `unreadable` afterwards is damaged."""
        until = time.monotonic() + within_s
        while self.unreadable and time.monotonic() < until:
            time.sleep(RETRY_EVERY_S)
            self.refresh()

    def check_all_open(self) -> None:
        """Check that every store was opened. Raises the StateError of a store that was not."""
        self.settle()
        for error in self.unreadable.values():
            raise error

    def sequences(self, users: Ids) -> Sequences:
        """The users' sequences, in the order asked for."""
        return merge_sequences([p.sequences(users) for p in self.partitions.values()], users)

    def positives(self, users: Ids) -> Sequences:
        """The users' steps that count: of a positive kind and not undone, in the order asked for."""
        return merge_sequences([p.positives(users) for p in self.partitions.values()], users)

    def steps(self, user: int, limit: int, before: int = ALL_TIME) -> Records:
        """The newest STEPs of a user before a time, oldest first."""
        found = [p.steps(user, limit, before) for p in self.partitions.values()]
        return newest_of([np.empty(0, STEP), *found], limit)

    def edges(self, item: int, limit: int, before: int = ALL_TIME) -> Records:
        """The newest EDGEs of an item before a time, oldest first."""
        return newest_of([np.empty(0, EDGE), *(p.edges(item, limit, before) for p in self.partitions.values())], limit)

    def degree(self, item: int, t: int) -> int:
        """Edges of an item before a time, of every kind."""
        return sum(p.degree(item, t) for p in self.partitions.values())

    def popularity(self, item: int, t: int) -> float:
        """The sum of the weights of an item's events before t, each halved for every half-life of its age."""
        return sum(p.popularity(item, t) for p in self.partitions.values())

    def transitions(self, item: int, t: int, limit: int) -> dict[int, float]:
        """Items that followed an item before t, from the newest `limit` edges of each partition, with weights."""
        weights: dict[int, float] = {}
        for partition in self.partitions.values():
            for after, weight in partition.transitions(item, t, limit).items():
                weights[after] = weights.get(after, 0.0) + weight
        return weights

    def window(self, start: int, end: int) -> Records:
        """Applied EVENTs with start < time <= end from the journals, in order of time."""
        events = np.concatenate([np.empty(0, EVENT), *(p.window(start, end) for p in self.partitions.values())])
        return events[np.argsort(events["ts"], kind="stable")]

    def rows(self, items: Ids) -> Rows:
        """Rows of the item-item graph with the counts of all partitions. Raises a StateError without any partition."""
        parts = [p.rows(items) for p in self.partitions.values()]
        if not parts:
            raise StateError(
                f"no state in {self._data}: start a worker with this --data, or name another data directory"
            )
        return combine(parts, self._settings)

    def item_ids(self, items: Ids) -> list[bytes | None]:
        """The ids behind item hashes."""
        names: list[bytes | None] = [None] * len(items)
        for partition in self.partitions.values():
            names = [a or b for a, b in zip(names, partition.item_ids(items), strict=True)]
        return names

    def user_ids(self, users: Ids) -> list[bytes | None]:
        """The ids behind user hashes."""
        names: list[bytes | None] = [None] * len(users)
        for partition in self.partitions.values():
            names = [a or b for a, b in zip(names, partition.user_ids(users), strict=True)]
        return names

    def all_items(self) -> Ids:
        """Hashes of every item, ascending."""
        return np.unique(np.concatenate([np.empty(0, np.uint64), *(p.all_items() for p in self.partitions.values())]))

    def some_users(self, count: int, seed: int) -> Ids:
        """Up to `count` users, spread evenly over the partitions."""
        share = -(-count // max(1, len(self.partitions)))
        drawn = [p.some_users(share, seed) for p in self.partitions.values()]
        return np.unique(np.concatenate([np.empty(0, np.uint64), *drawn]))

    def recommended(self, user: int) -> bytes | None:
        """The last recommendation message sent for a user."""
        return next((m for p in self.partitions.values() if (m := p.recommended(user))), None)

    def close(self) -> None:
        """Close every store."""
        for partition in self.partitions.values():
            partition.close()
        self.partitions.clear()
        shutil.rmtree(self._scratch, ignore_errors=True)


def remove_leftovers() -> None:
    """Remove the folders of views whose processes are gone: a killed process leaves its folder behind."""
    for left in Path(tempfile.gettempdir()).glob(f"{SCRATCH_PREFIX}*-*"):
        process = left.name.removeprefix(SCRATCH_PREFIX).partition("-")[0]
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except (ValueError, OSError):
            continue


def newest_of(parts: list[Records], limit: int) -> Records:
    """The newest `limit` of several partitions' records, by time."""
    both = np.concatenate(parts)
    return both[np.argsort(both["ts"], kind="stable")][-limit:]


def merge_sequences(parts: list[Sequences], users: Ids) -> Sequences:
    """The same users' sequences from several partitions; each user lives in the first that has any steps."""
    none = np.empty(0, STEP)
    found = [next((s for part in parts if len(s := part.of(row))), none) for row in range(len(users))]
    indptr = np.concatenate([[0], np.cumsum([len(steps) for steps in found])]).astype(np.int64)
    return Sequences(users, indptr, np.concatenate([np.empty(0, STEP), *found]))


def most_popular(lists: list[Records], count: int) -> Ids:
    """The `count` most popular items of several partitions' POPULAR records."""
    both = np.concatenate([np.empty(0, POPULAR), *lists])
    if not len(both):
        return np.empty(0, np.uint64)
    items, entry = np.unique(both["item"], return_inverse=True)
    clicks = np.bincount(entry, np.exp2(both["score"] - both["score"].max()), minlength=len(items))
    return items[np.argsort(-clicks, kind="stable")[:count]]
