"""`backup`, `restore`, `replay`: the state kept elsewhere, brought back, and read anew from the log."""

import asyncio
import contextlib
import sys
import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.app import BrokerOption, ConfigOption, DataOption, JsonOption, app, configured, need_broker, utf8
from stream.cli.inspect import serving, show, show_json
from stream.cli.run import owned
from stream.errors import AnabranchError, ConfigError, DataDirectoryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stream.config import Config
    from stream.stores.backup import Backup
    from stream.stores.rebuild import Since

COPIED_WITHIN_S = 120.0
SWAPPED_WITHIN_S = 30.0

PlaceArgument = Annotated[
    str, typer.Argument(metavar="DIR", help="A path or an fsspec URL (s3://, gs://).", callback=utf8)
]


@app.command()
def backup(
    place: PlaceArgument,
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the state of this data directory and all model versions to an empty DIR; the worker may run."""
    import msgspec

    from stream.stores import backup as backups

    settings = configured(config, data, broker)
    backups.need_empty(place)
    with copied(settings) as folders:
        written = backups.write(settings, place, folders, serving(settings))
    if as_json:
        return show_json(msgspec.to_builtins(written))
    tell(written, f"{place} holds")


@app.command()
def restore(
    place: PlaceArgument,
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fill an empty data directory from a backup; a worker then goes on at the backup's offsets."""
    import msgspec

    from stream.stores import backup as backups

    settings = configured(config, data, broker)
    refuse_where_in_use(settings)
    found = backups.read(place)
    backups.restore(settings, place, found)
    if as_json:
        return show_json(msgspec.to_builtins(found))
    tell(found, f"{settings.data} holds")


@app.command()
def replay(
    since: Annotated[str, typer.Option("--from", metavar="earliest|OFFSET|TIMESTAMP", help="Where to begin.")],
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build the state anew from the log while the old one serves, then swap; the old one is kept aside."""
    from stream.kafka.topics import check, cluster_id
    from stream.stores.rebuild import rebuild

    settings = need_broker(configured(config, data, broker))
    begin = parse_since(since)
    with owned(settings, "replay"):
        check(settings)
        told = lambda line: print(line, file=sys.stderr)  # noqa: E731
        done = asyncio.run(rebuild(settings, cluster_id(settings), begin, told))
        swapped = swap_now(settings, [r.partition for r in done])
    if as_json:
        return show_json({"partitions": [r._asdict() for r in done], "swapped": swapped})
    for r in done:
        left_out = f"; what the log had before offset {r.begin:,} is not in it" if r.begin else ""
        show(f"partition {r.partition}: {r.events:,} events from offset {r.begin:,} to {r.end:,}{left_out}")
    if swapped:
        show(f"swapped in; the state before is kept in {settings.data}/aside-*: remove it when you need it no more")
    else:
        show("no worker answered: the one that runs here swaps when it starts anew")


def parse_since(text: str) -> "Since":
    """`earliest`, an offset, or a time as ISO-8601. Raises ConfigError."""
    from stream.stores.rebuild import Since
    from stream.times import iso_ms

    if text == "earliest":
        return Since()
    try:
        if text.isdecimal():
            return Since(offset=int(text))
        return Since(ts_ms=max(iso_ms(text), 0))  # Kafka knows no time before 1970
    except ValueError:
        raise ConfigError(
            f"--from {text!r} is neither `earliest`, an offset (0, 1, 2, …) nor a time (2026-11-24T18:00:00Z)"
        ) from None


@contextlib.contextmanager
def copied(settings: "Config") -> "Iterator[list[Path]]":
    """Copies of all stores of the data directory: by the worker that holds them, or by us where none does."""
    import shutil

    from state.checkpoint import take
    from state.partition import Partition
    from state.view import partition_path, partitions_in
    from stream.cli.control import ask
    from stream.stores.checkpoints import COPIES

    topic = settings.topics.clicks
    if not (numbers := partitions_in(settings.data, topic)):
        raise AnabranchError(f"no state in {settings.data}: --data names another directory")
    wanted = uuid.uuid4().hex
    folder = settings.data / COPIES / wanted
    folder.mkdir(parents=True)
    try:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(owned(settings, "worker"))
            except DataDirectoryError:
                need_broker(settings)
                reply = asyncio.run(ask(settings, "copy", ("done", "failed"), COPIED_WITHIN_S, id=wanted))
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


def swap_now(settings: "Config", numbers: list[int]) -> bool:
    """Have rebuilds take their stores' places: through the worker that holds them, or here where none does.

    Return whether anybody did. Raises AnabranchError where the worker could not.
    """
    from state.view import partition_path
    from stream.cli.control import ask
    from stream.stores.partition_stores import swap

    try:
        with owned(settings, "worker"):
            for number in numbers:
                swap(partition_path(settings.data, settings.topics.clicks, number))
            return True
    except DataDirectoryError:
        try:
            reply = asyncio.run(ask(settings, "swap", ("done", "failed"), SWAPPED_WITHIN_S))
        except AnabranchError:
            return False
        if reply.status == "failed":
            raise AnabranchError(f"the rebuilt state was not swapped in: {reply.message}") from None
        return True


def refuse_where_in_use(settings: "Config") -> None:
    """Raise DataDirectoryError where a worker or trainer runs on the data directory."""
    import fcntl

    for role in ("worker", "trainer"):
        lock = settings.data / f"{role}.lock"
        if not lock.exists():
            continue
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataDirectoryError(
                    f"{settings.data} is in use by a {role} (process {file.read().strip() or 'unknown'}): stop it, "
                    f"or name another directory with --data DIR"
                ) from None


def tell(backup: "Backup", where: str) -> None:
    """What a backup holds, for a person."""
    for kept in backup.partitions:
        show(f"{where} partition {kept.identity.partition} of {kept.identity.topic} up to offset "
             f"{kept.log_offset:,}")  # fmt: skip
    champion = backup.champion
    show(f"and version {champion.version}, which was serving" if champion else "and no model version was serving yet")
