"""`worker`, `trainer`, `up`: the processes of an installation."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.app import command, utf8
from stream.cli.process import lower_priority, pages_of_waiting, raise_open_file_limit, wait_for_broker

if TYPE_CHECKING:
    from stream.config import Config

THREAD_SWITCH_S = 0.0005
"""Python's thread switch interval: the event loop waits at most this long for a thread that computes."""


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
    *,
    settings: "Config",
    own_session: Annotated[bool, typer.Option("--own-session", hidden=True)] = False,
    same_priority: Annotated[bool, typer.Option("--same-priority", hidden=True)] = False,
) -> None:
    """Learn from the state in the data directory; publish versions."""
    from stream.http.server import serving_beside
    from stream.kafka.topics import check_shapes
    from stream.local.data_directory import data_directory_lock
    from stream.trainer.service import run

    if not same_priority:
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
