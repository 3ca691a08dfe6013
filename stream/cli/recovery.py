"""`backup`, `restore`, `replay`: a copy of the state elsewhere, read back, and the state rebuilt from the log."""

import asyncio
import contextlib
import sys
import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.app import command, require_broker, utf8
from stream.cli.output import note, show, show_json
from stream.cli.state_access import serving
from stream.errors import AnabranchError, BrokerUnavailable, ConfigError, DataDirectoryError, TopicMismatch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from state.id_hash import IdHash
    from stream.config import Config
    from stream.stores.backup import Backup
    from stream.stores.rebuild import Since

COPY_WITHIN_S = 120.0
SWAP_WITHIN_S = 30.0
FROM_STATE = "state"

PlaceArgument = Annotated[
    str, typer.Argument(metavar="DIR", help="A path or an fsspec URL (s3://, gs://).", callback=utf8)
]


@command(broker_required=False)
def backup(place: PlaceArgument, *, settings: "Config", as_json: bool) -> None:
    """Write the state and all model versions to an empty DIR. The worker may run meanwhile."""
    from stream.stores import backup as backups

    backups.check_empty(place)
    with copied_stores(settings) as folders:
        written = backups.write(settings, place, folders, serving(settings))
    show_json(without_keys(written)) if as_json else show_backup(written, place)


@command(broker_required=False)
def restore(place: PlaceArgument, *, settings: "Config", as_json: bool) -> None:
    """Fill an empty data directory from a backup. A worker then goes on at the backup's offsets."""
    from stream.local.data_directory import refuse_if_in_use
    from stream.stores import backup as backups
    from stream.stores.id_key import check_same_key

    refuse_if_in_use(settings.data)
    found = backups.read(place, settings)
    try:
        if settings.broker:
            check_same_key(settings, [stored.identity for stored in found.partitions])
    except BrokerUnavailable as error:
        note(f"{error}. The worker compares the id key of the backup at its start")
    backups.restore(settings, place, found)
    show_json(without_keys(found)) if as_json else show_backup(found, str(settings.data))
    settle_pointer(settings, found)


def without_keys(backup: "Backup") -> object:
    """The document of a backup, with the fingerprints of its id keys instead of the keys."""
    import msgspec

    from state.id_hash import IdHash

    shown = msgspec.to_builtins(backup)
    for stored in shown["partitions"]:
        stored["identity"]["id_key"] = IdHash(stored["identity"]["id_key"]).fingerprint
    return shown


def settle_pointer(settings: "Config", backup: "Backup") -> None:
    """Let the pointer in Kafka name a version that the restored store has, or print the command that does."""
    from stream.operate.settle import settle, to_serve

    try:
        if settings.broker:
            return note(asyncio.run(settle(settings, backup.champion)).message)
    except (BrokerUnavailable, TopicMismatch) as error:
        note(str(error))
    if (version := to_serve(settings, backup.champion)) is not None:
        broker = settings.broker or "HOST:PORT"
        note(
            f"the pointer in Kafka was not settled: it may name a version that is not in the backup, or none. "
            f"`anabranch rollback {version} --broker {broker}` names version {version}"
        )


def show_backup(backup: "Backup", place: str) -> None:
    """Print what a backup or a data directory holds."""
    for stored in backup.partitions:
        topic, number = stored.identity.topic, stored.identity.partition
        show(f"{place} holds partition {number} of {topic} up to offset {stored.log_offset:,}")
    champion = backup.champion
    show(f"and version {champion.version}, which was serving" if champion else "and no model version was serving yet")


@command()
def replay(
    *,
    since: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="earliest|OFFSET|TIMESTAMP|state",
            help="Where in the log to begin; state: no log, only a new id key.",
        ),
    ],
    settings: "Config",
    as_json: bool,
) -> None:
    """Rebuild the state from the log while the old one serves. Then swap the two; the old one is kept aside."""
    from stream.kafka.topics import check, cluster_id
    from stream.local.data_directory import data_directory_lock
    from stream.stores.id_key import find
    from stream.stores.rebuild import rebuild
    from stream.stores.rehash import rehash_all

    begin = parse_since(since) if since != FROM_STATE else None
    with data_directory_lock(settings.data, "replay"):
        check(settings)
        progress = lambda line: print(line, file=sys.stderr)  # noqa: E731
        cluster = cluster_id(settings)
        ids = find(settings, cluster).ids
        if begin is None:
            rebuilt = rehash_all(settings, ids, progress)
        else:
            rebuilt = asyncio.run(rebuild(settings, cluster, begin, progress, ids))
        swapped = swap_rebuilt(settings, [r.partition for r in rebuilt], ids)
    if as_json:
        return show_json({"partitions": [r._asdict() for r in rebuilt], "swapped": swapped})
    for r in rebuilt:
        left_out = f"; events before offset {r.begin:,} are not in it" if r.begin else ""
        show(f"partition {r.partition}: {r.events:,} events from offset {r.begin:,} to {r.end:,}{left_out}")
    if swapped:
        show(f"swapped in; the state before is kept in {settings.data}/aside-*: remove it when you no longer need it")
    else:
        show(
            "not swapped in: no worker on this data directory replied, or it began before the id key was replaced; "
            "it swaps the state in at its next start"
        )


def parse_since(text: str) -> "Since":
    """`earliest`, an offset, or a time: a number from 10^11 on is a time. Raises ConfigError."""
    from stream.stores.rebuild import Since
    from stream.times import MS_NUMBERS, to_ms

    if text == "earliest":
        return Since()
    try:
        if text.isdecimal() and int(text) < MS_NUMBERS[0]:
            return Since(offset=int(text))
        return Since(ts_ms=max(to_ms(text), 0))  # Kafka knows no time before 1970
    except ValueError:
        raise ConfigError(
            f"--from {text[:60]!r} is neither `earliest`, an offset (0, 1, 2, …), a time (2026-11-24T18:00:00Z) nor "
            f"`state`"
        ) from None


@contextlib.contextmanager
def copied_stores(settings: "Config") -> "Iterator[list[Path]]":
    """Copies of all stores of the data directory, taken by the worker that holds them, or here if none runs."""
    import shutil

    from state.checkpoint import take
    from state.partition import Partition
    from state.view import partition_path, partitions_in
    from stream.local.data_directory import data_directory_lock
    from stream.operate.send_command import send_command
    from stream.stores.checkpoints import COPIES_FOLDER

    topic = settings.topics.clicks
    if not (numbers := partitions_in(settings.data, topic)):
        raise AnabranchError(f"no state in {settings.data}: --data names another directory")
    copy_id = uuid.uuid4().hex
    folder = settings.data / COPIES_FOLDER / copy_id
    folder.mkdir(parents=True)
    try:
        with contextlib.ExitStack() as lock:
            try:
                lock.enter_context(data_directory_lock(settings.data, "worker"))
            except DataDirectoryError:
                require_broker(settings)
                reply = asyncio.run(send_command(settings, "copy", ("done", "failed"), COPY_WITHIN_S, id=copy_id))
                if reply.status == "failed":
                    raise AnabranchError(reply.message) from None
            else:
                for number in numbers:
                    path = partition_path(settings.data, topic, number)
                    store = Partition(path, settings.state)
                    take(store, folder / path.name)
                    store.close()
            yield sorted(folder.iterdir())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def swap_rebuilt(settings: "Config", numbers: list[int], id_hash: "IdHash") -> bool:
    """Swap rebuilt stores in, by the worker that holds the old ones, or here if none runs.

    Return whether they were swapped: a worker that began with another id key cannot do it. Raises AnabranchError if the
    worker failed to.
    """
    from state.view import id_keys_in, partition_path
    from stream.local.data_directory import data_directory_lock
    from stream.operate.send_command import send_command
    from stream.stores.partition_stores import swap

    try:
        with data_directory_lock(settings.data, "worker"):
            for number in numbers:
                swap(partition_path(settings.data, settings.topics.clicks, number))
            return True
    except DataDirectoryError:
        if set(id_keys_in(settings.data, settings.topics.clicks, settings.state).values()) - {id_hash.key}:
            return False
        try:
            reply = asyncio.run(send_command(settings, "swap", ("done", "failed"), SWAP_WITHIN_S))
        except AnabranchError:
            return False
        if reply.status == "failed":
            raise AnabranchError(f"the rebuilt state was not swapped in: {reply.message}") from None
        return True
