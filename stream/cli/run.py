"""`up`, `worker`, `trainer`, `init`: the processes, and the topics that they need."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stream.cli.app import command, utf8
from stream.cli.output import note, show_json

if TYPE_CHECKING:
    from aiohttp import web

    from stream.config import Config

TRAINER_NICENESS = 15
THREAD_SWITCH_S = 0.0005
"""Python's thread switch interval: the event loop waits at most this long for a thread that computes."""
MAX_BROKER_WAIT_S = 30.0


@command()
def init(
    *,
    id_key: Annotated[
        Literal["new", "data"] | None,
        typer.Option(
            "--id-key",
            help="Replace the key that ids are hashed with: by a new one, or by the one of the state in --data.",
        ),
    ] = None,
    settings: "Config",
    as_json: bool,
) -> None:
    """Create the missing topics and the key that ids are hashed with; change nothing that exists, and report faults."""
    from stream.kafka.topics import cluster_id, create_missing, inspect, refuse
    from stream.stores.id_key import UNKEYED, settle_key

    topics = create_missing(settings)
    found = inspect(settings)
    if not as_json:
        for topic in topics:
            outcome = "created" if topic.created else "exists"
            print(f"{outcome:8} {topic.name} ({topic.partitions} partition{'s' if topic.partitions > 1 else ''})")
    warnings = found.warnings(settings)
    for line in warnings:
        note(line)
    refuse(found.deviations)
    settled = settle_key(settings, cluster_id(settings), id_key)
    ids = settled.record.ids
    if as_json:
        key = {"fingerprint": ids.fingerprint or None, "written": settled.written}
        return show_json({"topics": topics, "warnings": warnings, "id_key": key})
    if ids.keyed:
        print(f"{'created' if settled.written else 'exists':8} the id key {ids.fingerprint}")
    else:
        note(UNKEYED)
    if id_key is not None:
        note("restart every worker and trainer: until then they go on with the key before")


@command(logs_as="worker")
def worker(
    *,
    settings: "Config",
    instance: Annotated[
        str | None, typer.Option("--instance", help="Name of this worker in its group.", callback=utf8)
    ] = None,
    embedded: Annotated[bool, typer.Option("--embedded", hidden=True)] = False,
) -> None:
    """Consume clicks, keep the state, send recommendations."""
    import msgspec

    from stream.http.server import serving_beside
    from stream.kafka.topics import check_shapes, cluster_id
    from stream.local.data_directory import data_directory_lock
    from stream.stores.id_key import prepare
    from stream.stores.partition_stores import EMBEDDED_CLUSTER
    from stream.worker.service import build

    if instance is not None:
        settings = msgspec.structs.replace(settings, worker=msgspec.structs.replace(settings.worker, instance=instance))
    raise_open_file_limit()
    sys.setswitchinterval(THREAD_SWITCH_S)
    waiting = serving_beside(pages_of_waiting("worker", settings), settings.worker.http, "worker.http")
    with data_directory_lock(settings.data, "worker"):
        with waiting:
            wait_for_broker(settings)
            check_shapes(settings)
            ids = prepare(settings, EMBEDDED_CLUSTER if embedded else cluster_id(settings))
        api = None
        if settings.worker.api:
            from stream.serve.in_worker import WorkerApi

            api = WorkerApi(settings)
        process = build(settings, ids, embedded=embedded, api=api)
        try:
            process.execute_from_commandline()
        finally:
            if process.failure is not None:
                raise process.failure


@command(logs_as="trainer")
def trainer(
    *, settings: "Config", own_session: Annotated[bool, typer.Option("--own-session", hidden=True)] = False
) -> None:
    """Learn from the state in the data directory; publish versions."""
    from stream.http.server import serving_beside
    from stream.kafka.topics import check_shapes
    from stream.local.data_directory import data_directory_lock
    from stream.trainer.service import run

    lower_priority(own_session)
    with data_directory_lock(settings.data, "trainer"):
        with serving_beside(pages_of_waiting("trainer", settings), settings.trainer.http, "trainer.http"):
            wait_for_broker(settings)
            check_shapes(settings)

        async def run_until_signal() -> None:
            task = asyncio.current_task()
            assert task is not None
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
            with contextlib.suppress(asyncio.CancelledError):
                await run(settings)
            # asyncio.run would wait for a thread that still learns, for minutes. It loses nothing: the next cycle
            # repeats unpublished work.
            sys.stderr.flush()
            os._exit(0)

        asyncio.run(run_until_signal())


@command(broker_required=False)
def up(
    *,
    settings: "Config",
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65_535, help="Port of the embedded broker (a free one if unset).")
    ] = None,
    config_file: Path | None,
) -> None:
    """Run everything on this machine: topics, a worker, a trainer, and the console in a browser.

    Without --broker it starts an embedded broker too, for trying out: its log is in memory, and Debian 12's kcat
    cannot read its answers.
    """
    from stream.local.embedded_broker import LIMITS
    from stream.local.supervisor import run_everything

    if port is not None and settings.broker:
        raise typer.BadParameter(f"--port is the embedded broker's, but the broker is {settings.broker}: leave one out")
    with run_everything(settings, config_file, port) as supervisor:
        broker, data = supervisor.config.broker, settings.data
        print(f"anabranch is up: broker {broker}, data {data}, logs {data}/*.log")
        if not settings.broker:
            print(LIMITS)
        if supervisor.page:
            print(f"console: {supervisor.page}")
        print(f"try:  anabranch publish FILE --broker {broker}   |   anabranch watch --broker {broker}")
        print("Ctrl-C stops it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(1)
                supervisor.check()


def pages_of_waiting(kind: Literal["worker", "trainer"], settings: "Config") -> "web.Application":
    """The pages of a process until its broker has answered: alive, not ready."""
    from stream.http.health import waiting_app
    from stream.metrics.instruments import Instruments
    from stream.metrics.route import add_metrics
    from stream.metrics.samples import make_registry

    app = waiting_app(f"it waits for the broker at {settings.broker}", api=kind == "worker" and settings.worker.api)
    add_metrics(app, make_registry(kind, lambda samples: samples.add("ready", 0), Instruments()))
    return app


def lower_priority(own_session: bool) -> None:
    """Lower the trainer's priority, so that the worker runs first on a machine with few cores."""
    os.nice(TRAINER_NICENESS)
    # Linux compares whole sessions before it compares niceness. Only a session that is ours alone may be slowed down:
    # another one is the terminal's, with everything that runs in it.
    if own_session:
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(TRAINER_NICENESS))


def raise_open_file_limit() -> None:
    """Allow this process as many open files as it may: RocksDB keeps hundreds open for each partition."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS accepts less than it reports
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def wait_for_broker(settings: "Config") -> None:
    """Wait until a broker answers, and log every try. Raises BrokerRefused: waiting does not help then."""
    from stream.errors import BrokerRefused, BrokerUnavailable
    from stream.kafka.topics import cluster_id

    wait_s = 1.0
    while True:
        try:
            cluster_id(settings)
            return
        except BrokerRefused:
            raise
        except BrokerUnavailable as error:
            logging.getLogger("anabranch").warning("%s; trying again in %.0f s", error, wait_s)
            time.sleep(wait_s)
            wait_s = min(wait_s * 2, MAX_BROKER_WAIT_S)
