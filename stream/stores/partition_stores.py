"""The stores of the partitions a worker owns: opened against the log they were built from, restored, or moved aside."""

import asyncio
import logging
import shutil
import time
from pathlib import Path

from state.checkpoint import CheckpointError, CheckpointStore
from state.errors import StateError, StoreUnreadable, WrongLog
from state.identity import Identity
from state.store import Store
from state.view import partition_path
from stream.config import Config
from stream.kafka.decode import Record
from stream.kafka.topics import Log

log = logging.getLogger("anabranch.partitions")

LOG_APPEND_TIME = 1
"""Kafka's number for times that are the broker's, in a record's `timestamp_type`."""
EMBEDDED = "embedded"
"""The cluster id given to an embedded broker, started with the worker: its log ends with it, the state does not."""
WORTH_A_RESTORE_EVENTS = 200_000
"""A store that is behind a checkpoint by less than this reads on from the log: that takes a few seconds."""


class PartitionStores:
    """Stores by partition number; a store is open while its partition is assigned."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.stores: dict[int, Store] = {}
        self.reading = asyncio.Lock()
        """Held while stores are copied or counted in a thread: none must close then."""
        self._begun: set[int] = set()

    def open(self, number: int, held: Log) -> Store:
        """Open a partition's store for a log; it is not yet among `stores`.

        The state goes on where it stopped, from a checkpoint where that is further, or anew where there is neither.
        Raises StateError where it cannot be used and a rebuild would not mend it.
        """
        path = partition_path(self._config.data, self._config.topics.clicks, number)
        identity = identity_of(self._config, number, held)
        swap(path)
        store = self._open_local(path, identity, held)
        store = self._from_checkpoint(path, identity, held, store) or store or self._store(path, identity)
        offset = store.progress.log_offset
        if held.cluster == EMBEDDED and number not in self._begun:
            self._begun.add(number)
            if offset:
                log.warning(
                    "partition %d: the embedded broker keeps its log in memory and began a new one; "
                    "the state is kept, and goes on from offset 0",
                    number,
                )
                store.begin_new_log()
        elif offset < held.begin and not offset:
            store.skip_to(store.progress.logical(held.begin))
            log.warning(
                "partition %d: the log begins at offset %d; what came before is not in the state", number, held.begin
            )
        elif offset < held.begin:
            skip(store, number, held.begin, self._config)
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

    def move_aside(self, number: int, reason: str) -> None:
        """Put a partition's store, which is not open, out of the way."""
        move_aside(partition_path(self._config.data, self._config.topics.clicks, number), reason)

    def _store(self, path: Path, identity: Identity) -> Store:
        return Store(path, identity, self._config.state)

    def _open_local(self, path: Path, identity: Identity, held: Log) -> Store | None:
        """The store at hand, where it is of this log; another one is moved aside."""
        if not (path / "CURRENT").exists():
            if any(path.glob("*.sst")):
                move_aside(path, f"{path} has lost its file CURRENT")
            return None
        try:
            store = self._store(path, identity)
        except (WrongLog, StoreUnreadable) as reason:
            move_aside(path, str(reason))
            return None
        offset = store.progress.log_offset
        if offset > held.end and not (held.cluster == EMBEDDED and identity.partition not in self._begun):
            marks = store.progress
            store.close()
            move_aside(
                path,
                f"its offset {offset} lies beyond the end of the log, {held.end}: another log, or one that lost its "
                f"end. {marks.applied:,} events of {marks.users:,} users were in it",
            )
            return None
        return store

    def _from_checkpoint(self, path: Path, identity: Identity, held: Log, store: Store | None) -> Store | None:
        """The store restored from the newest checkpoint of this log, where that is worth it."""
        if not self._config.artifacts:
            return None
        local = store.progress.next_offset if store is not None else -1
        wanted = local if store is None or store.progress.log_offset < held.begin else local + WORTH_A_RESTORE_EVENTS
        try:
            checkpoints = CheckpointStore(self._config.artifacts, identity)
            manifests = checkpoints.usable()
        except CheckpointError as error:
            log.warning("partition %d: %s; going on without", identity.partition, error)
            return None
        for manifest in manifests:
            marks = manifest.progress
            if marks.log_offset > held.end and held.cluster != EMBEDDED:
                log.warning("partition %d: a checkpoint lies beyond the log's end and is removed", identity.partition)
                checkpoints.remove(manifest)
                continue
            if marks.next_offset <= wanted:
                break
            try:
                started = time.monotonic()
                restored = path.with_name(f"restored-{path.name}")
                shutil.rmtree(restored, ignore_errors=True)
                checkpoints.restore(manifest, restored)
            except CheckpointError as error:
                log.error("partition %d: %s; trying the one before", identity.partition, error)
                continue
            if store is not None:
                store.close()
            shutil.rmtree(path, ignore_errors=True)
            restored.rename(path)
            log.info(
                "partition %d: restored from the checkpoint at offset %d in %.1f s; %d events follow in the log",
                identity.partition, marks.log_offset, time.monotonic() - started,
                max(held.end - marks.log_offset, 0),
            )  # fmt: skip
            return self._store(path, identity)
        return None


def look_at_clocks(record: Record, config: Config, cluster: str) -> None:
    """Say so where the times of records are not the broker's: one client's clock is then believed for all."""
    if record.timestamp_type == LOG_APPEND_TIME or cluster == EMBEDDED:
        return
    log.warning(
        "the topic %r keeps its producers' clocks instead of the broker's: one that is far ahead goes unnoticed, and "
        "where state.window_s is set lets everybody's events expire. `kafka-configs.sh --bootstrap-server %s --alter "
        "--entity-type topics --entity-name %s --add-config message.timestamp.type=LogAppendTime` mends it",
        config.topics.clicks, config.broker, config.topics.clicks,
    )  # fmt: skip


def skip(store: Store, number: int, begin: int, config: Config) -> None:
    """Go on at `begin` of the log, and say what the store had not read before it was deleted."""
    lost_from = store.progress.log_offset
    store.skip_to(store.progress.logical(begin))
    log.warning(
        "partition %d: events %d to %d were deleted from the log before they were read (retention); the state is kept, "
        "and goes on from offset %d. `anabranch status` counts what was lost. Against a next time, keep the log for "
        "longer, 14 days: `kafka-configs.sh --bootstrap-server %s --alter --entity-type topics "
        "--entity-name %s --add-config retention.ms=1209600000`",
        number, lost_from, begin - 1, begin, config.broker, config.topics.clicks,
    )  # fmt: skip


def identity_of(config: Config, number: int, held: Log) -> Identity:
    """What a store of this log says of itself."""
    return Identity(
        held.cluster,
        config.topics.clicks,
        number,
        held.partitions,
        config.state.sequence_events,
        config.state.neighbours_per_item,
        held.topic_id,
    )


def rebuilt_path(path: Path) -> Path:
    """Where a store that `anabranch replay` has completed waits to take the place of the one at `path`."""
    return path.with_name(f"rebuilt-{path.name}")


def swap(path: Path) -> bool:
    """Put a completed rebuild, where one waits, in the place of the store at `path`, which is not open.

    The old one is kept aside. A crash in between leaves the rebuild waiting for the next call.
    """
    rebuilt = rebuilt_path(path)
    if not rebuilt.exists():
        return False
    if path.exists():
        move_aside(path, f"{path} gives way to its rebuild")
    rebuilt.rename(path)
    return True


def move_aside(path: Path, reason: str) -> None:
    """Put a store that is not open out of the way, and say why. Raises StateError."""
    aside = path.with_name(f"aside-{path.name}-{time.time_ns() // 1_000_000}")
    try:
        path.rename(aside)
    except OSError as error:
        raise StateError(f"cannot move {path} aside: {error.strerror}") from None
    log.error("%s: moved to %s, and read again from the log or a checkpoint", reason, aside)
