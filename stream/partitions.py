"""The stores of the partitions a worker owns: opened against the log they were built from, or moved aside."""

import logging
import time
from pathlib import Path

from state.errors import StateError, StoreUnreadable, WrongLog
from state.partition import Identity
from state.store import Store
from state.view import partition_path
from stream.config import Config

log = logging.getLogger("anabranch.partitions")

EMBEDDED = "embedded"
"""The cluster id given to an embedded broker, started with the worker: its log ends with it, the state does not."""


class Partitions:
    """Stores by partition number; a store is open while its partition is assigned."""

    def __init__(self, config: Config, cluster: str) -> None:
        self._config = config
        self._cluster = cluster
        self.stores: dict[int, Store] = {}
        self._begun: set[int] = set()

    def open(self, number: int, count: int, begin: int, end: int) -> Store:
        """Open a partition's store, of a topic of `count`, for a log that holds offsets begin <= offset < end.

        Raises StateError where it cannot be used for that log and a rebuild would not mend it.
        """
        if number in self.stores:
            return self.stores[number]
        path = partition_path(self._config.data, self._config.topics.clicks, number)
        try:
            store = self._open(path, number, count)
        except (WrongLog, StoreUnreadable) as reason:
            if not (path / "CURRENT").exists():
                raise
            self._move_aside(path, str(reason))
            store = self._open(path, number, count)
        offset = store.state.next_offset - store.state.base
        if self._cluster == EMBEDDED and number not in self._begun:
            self._begun.add(number)
            if offset:
                log.warning(
                    "partition %d: the embedded broker keeps its log in memory and began a new one; "
                    "the state is kept, and goes on from offset 0",
                    number,
                )
                store.begin_new_log()
        elif offset > end:
            store.close()
            self._move_aside(path, f"its offset {offset} lies beyond the end of the log, {end}: another log")
            store = self._open(path, number, count)
        elif offset < begin and offset > 0:
            log.warning(
                "partition %d: events %d to %d were deleted from the log before they were read (retention); "
                "the state is kept, and goes on from offset %d",
                number, offset, begin - 1, begin,
            )  # fmt: skip
        self.stores[number] = store
        return store

    def close(self, number: int) -> None:
        """Close a partition's store, if open."""
        store = self.stores.pop(number, None)
        if store is not None:
            store.close()

    def close_all(self) -> None:
        """Close every store."""
        for number in list(self.stores):
            self.close(number)

    def _open(self, path: Path, number: int, count: int) -> Store:
        settings = self._config.state
        identity = Identity(
            self._cluster,
            self._config.topics.clicks,
            number,
            count,
            settings.sequence_events,
            settings.neighbours_per_item,
        )
        return Store(path, identity, settings)

    def _move_aside(self, path: Path, reason: str) -> None:
        aside = path.with_name(f"aside-{path.name}-{time.time_ns() // 1_000_000}")
        try:
            path.rename(aside)
        except OSError as error:
            raise StateError(f"cannot move {path} aside: {error.strerror}") from None
        log.error("%s: moved to %s and rebuilt from the log", reason, aside)
