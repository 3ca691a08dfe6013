"""Which store a partition begins with: the local one, one restored from a checkpoint, or an empty one.

A store belongs to one log. One that was built from another log, or cannot be read, is moved aside, never deleted.
"""

import contextlib
import logging
import shutil
import time
from pathlib import Path

from state import upgrade
from state.checkpoint import CheckpointError, CheckpointStore, Manifest
from state.errors import EarlierLayout, StateError, StoreUnreadable, WrongLog
from state.id_hash import UNKEYED, IdHash
from state.identity import KEYED_LAYOUT, LAYOUT, Identity
from state.store import Store
from state.view import id_key_at, partition_path
from stream.config import Config
from stream.kafka.topics import Log
from stream.times import now_ms

log = logging.getLogger("anabranch.partitions")

EMBEDDED_CLUSTER = "embedded"
"""The cluster id given to an embedded broker, started with the worker: its log ends with it, the state does not."""
REPORT_UPGRADE_EVERY_S = 10.0
MIN_EVENTS_TO_RESTORE = 200_000
"""A store that is fewer events behind a checkpoint catches up from the log instead, which takes a few seconds."""


class PartitionStores:
    """Opens a partition's store: the local one, one from a checkpoint, or an empty one."""

    def __init__(self, config: Config, id_hash: IdHash = UNKEYED) -> None:
        self._config, self._id_hash = config, id_hash
        self._begun: set[int] = set()
        """Partitions whose new log of the embedded broker has been begun by this process."""

    def open(self, number: int, its_log: Log) -> Store:
        """Open a partition's store for a log.

        The state goes on where it stopped, from a checkpoint if one is further, or from scratch. Raises StateError
        where the store cannot be used and a rebuild would not change that.
        """
        path = partition_path(self._config.data, self._config.topics.clicks, number)
        identity = identity_of(self._config, number, its_log, self._id_hash)
        upgrade.finish(path)
        if id_key_at(rebuilt_path(path), self._config.state) in (None, self._id_hash.key):  # else at the next start
            swap(path)
        store = self._open_local(path, identity, its_log)
        store = self._from_checkpoint(path, identity, its_log, store) or store or self._store(path, identity)
        offset = store.progress.log_offset
        if its_log.cluster == EMBEDDED_CLUSTER and number not in self._begun:
            self._begun.add(number)
            if offset:
                log.warning(
                    "partition %d: the embedded broker keeps its log in memory and began a new one; "
                    "the state is kept and goes on from offset 0",
                    number,
                )
                store.begin_new_log()
        elif offset > its_log.end:
            self._go_on_without_the_end(store, its_log)
        elif offset < its_log.begin and not offset:
            store.skip_to(store.progress.logical(its_log.begin))
            log.warning(
                "partition %d: the log begins at offset %d; earlier events are not in the state", number, its_log.begin
            )
        elif offset < its_log.begin:
            skip_deleted(store, number, its_log.begin, self._config)
        return store

    def move_aside(self, number: int, reason: str) -> None:
        """Move a partition's store aside. It must not be open."""
        move_aside(partition_path(self._config.data, self._config.topics.clicks, number), reason)

    def _store(self, path: Path, identity: Identity) -> Store:
        """Open or create a store. One that an earlier version wrote is upgraded first."""
        try:
            return Store(path, identity, self._config.state)
        except EarlierLayout:
            self._upgrade(path, identity)
            return Store(path, identity, self._config.state)

    def _upgrade(self, path: Path, identity: Identity) -> None:
        """Upgrade a store, and log how far it is: with many events it takes minutes."""
        number, started, said = identity.partition, time.monotonic(), 0.0

        def report(at: int, end: int, events: int) -> None:
            nonlocal said
            now = time.monotonic()
            if not at:
                log.info(
                    "partition %d: its store was written by an earlier version; its %d events are counted again, with "
                    "more counts for each item. Until that is done, the partition's clicks wait in the log and its "
                    "users get no new recommendations. Nothing is read from the log, and a restart begins again",
                    number, events,
                )  # fmt: skip
            elif now - said >= REPORT_UPGRADE_EVERY_S:
                log.info("partition %d: counted again up to offset %d of %d", number, at, end)
            else:
                return
            said = now

        events = upgrade.upgrade(path, identity, self._config.state, report)
        log.info("partition %d: upgraded in %.1f s, with %d events", number, time.monotonic() - started, events)

    def _open_local(self, path: Path, identity: Identity, its_log: Log) -> Store | None:
        """The store on this disk, if it was built from this log; any other one is moved aside."""
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
        begins_again = its_log.cluster == EMBEDDED_CLUSTER and identity.partition not in self._begun
        if offset > its_log.end and not begins_again and not its_log.topic_id:
            progress = store.progress
            store.close()
            move_aside(
                path,
                f"its offset {offset} lies beyond the end of the log, {its_log.end}: another log, or one that lost its "
                f"end (this broker has no topic ids, which tell). {progress.applied:,} events of {progress.users:,} "
                f"users were in it",
            )
            return None
        return store

    def _from_checkpoint(self, path: Path, identity: Identity, its_log: Log, store: Store | None) -> Store | None:
        """The store restored from the newest checkpoint of this log, if that is far enough ahead; else None."""
        if not self._config.artifacts:
            return None
        local = store.progress.next_offset if store is not None else -1
        wanted = local if store is None or store.progress.log_offset < its_log.begin else local + MIN_EVENTS_TO_RESTORE
        embedded = its_log.cluster == EMBEDDED_CLUSTER
        if store is not None and not embedded and wanted >= store.progress.logical(its_log.end):
            return None  # no checkpoint of this log is that far ahead, so the artifact store need not answer
        try:
            checkpoints = CheckpointStore(self._config.artifacts, identity, self._config.kafka.signing_keys)
            manifests = checkpoints.usable()
        except CheckpointError as error:
            log.warning("partition %d: %s; going on without a checkpoint", identity.partition, error)
            return None
        for manifest in manifests:
            progress = manifest.progress
            further = progress.next_offset > wanted
            if self._lies_beyond(manifest, its_log) and not (its_log.topic_id and further):
                self._remove(checkpoints, manifest)
                continue
            if not further:
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
                identity.partition, progress.log_offset, time.monotonic() - started,
                max(its_log.end - progress.log_offset, 0),
            )  # fmt: skip
            return self._store(path, identity)
        return None

    def _go_on_without_the_end(self, store: Store, its_log: Log) -> None:
        """Keep the state, whose newest events the log has lost: its topic id says that it is still the same log."""
        number, ahead = store.identity.partition if store.identity else 0, store.progress.log_offset - its_log.end
        log.error(
            "partition %d: the log has lost its newest records, offsets %d to %d, which were applied before (a broker "
            "that lacked them became the leader, or a disk was lost); the state is kept with their events, and goes on "
            "from offset %d. `anabranch status` counts the %d offsets. To prevent this: topics.replication = 3, and on "
            "the brokers min.insync.replicas = 2 and unclean.leader.election.enable = false",
            number, its_log.end, store.progress.log_offset - 1, its_log.end, ahead,
        )  # fmt: skip
        store.log_ends_at(its_log.end)
        if not self._config.artifacts or store.identity is None:
            return
        try:  # one of them could be restored once the log has grown past it, and would leave out the records between
            checkpoints = CheckpointStore(self._config.artifacts, store.identity, self._config.kafka.signing_keys)
            for manifest in checkpoints.usable():
                if self._lies_beyond(manifest, its_log):
                    self._remove(checkpoints, manifest)
        except CheckpointError as error:
            log.warning("partition %d: %s; checkpoints beyond the end of the log may be left", number, error)

    @staticmethod
    def _lies_beyond(manifest: Manifest, its_log: Log) -> bool:
        return manifest.progress.log_offset > its_log.end and its_log.cluster != EMBEDDED_CLUSTER

    @staticmethod
    def _remove(checkpoints: CheckpointStore, manifest: Manifest) -> None:
        log.warning(
            "partition %d: a checkpoint lies beyond the end of the log and is removed", manifest.identity.partition
        )
        with contextlib.suppress(CheckpointError):
            checkpoints.remove(manifest)


def skip_deleted(store: Store, number: int, begin: int, config: Config) -> None:
    """Go on at `begin` of the log, and log which events were deleted before the store had read them."""
    lost_from = store.progress.log_offset
    store.skip_to(store.progress.logical(begin))
    log.warning(
        "partition %d: events %d to %d were deleted from the log before they were read (retention); the state is kept, "
        "and goes on from offset %d. `anabranch status` counts the lost events. To prevent this, keep the log "
        "longer, for example 14 days: `kafka-configs.sh --bootstrap-server %s --alter --entity-type topics "
        "--entity-name %s --add-config retention.ms=1209600000`",
        number, lost_from, begin - 1, begin, config.broker, config.topics.clicks,
    )  # fmt: skip


def identity_of(config: Config, number: int, its_log: Log, id_hash: IdHash) -> Identity:
    """The identity of a store of this log, whose ids are hashed so."""
    return Identity(
        its_log.cluster,
        config.topics.clicks,
        number,
        its_log.partitions,
        config.state.sequence_events,
        config.state.neighbours_per_item,
        its_log.topic_id,
        KEYED_LAYOUT if id_hash.keyed else LAYOUT,
        id_hash.key,
    )


def rebuilt_path(path: Path) -> Path:
    """Where the rebuild that `anabranch replay` completed lies until it replaces the store at `path`."""
    return path.with_name(f"rebuilt-{path.name}")


def swap(path: Path) -> bool:
    """Replace the store at `path`, which is not open, by its completed rebuild; False if there is none.

    The old store is kept aside. After a crash between the two renames, the next call completes the swap.
    """
    rebuilt = rebuilt_path(path)
    if not rebuilt.exists():
        return False
    if path.exists():
        move_aside(path, f"{path} is replaced by its rebuild")
    rebuilt.rename(path)
    return True


def move_aside(path: Path, reason: str) -> None:
    """Move a store aside and log the reason. It must not be open. Raises StateError."""
    aside = path.with_name(f"aside-{path.name}-{now_ms()}")
    try:
        path.rename(aside)
    except OSError as error:
        raise StateError(
            f"cannot move {path} aside: {error.strerror}; the user that runs anabranch must be able to write in "
            f"{path.parent} (chown -R)"
        ) from None
    log.error("%s: moved to %s; the partition is read again from the log or a checkpoint", reason, aside)
