"""What a process does before its work begins: its priority, its limits, and the wait for a broker."""

import contextlib
import importlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from aiohttp import web

    from stream.config import Config

TRAINER_NICENESS = 15
MAX_BROKER_WAIT_S = 30.0


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


def import_early() -> None:
    """Import torch in a thread, before there is a version: seconds of work on a loaded machine.

    Nothing of ours is imported there: two threads that import modules which import each other see halves of them.
    """
    for_optimisers = "torch._dynamo"
    threading.Thread(target=importlib.import_module, args=(for_optimisers,), daemon=True, name="imports").start()


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
