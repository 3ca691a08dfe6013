"""`up`, `worker`, `trainer`, `init`: what runs, and what it needs."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.app import BrokerOption, ConfigOption, DataOption, JsonOption, app, configured, need_broker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stream.config import Config
    from stream.local.child_process import Child

PortOption = Annotated[int | None, typer.Option("--port", help="Port of the embedded broker (a free one if unset).")]
EmbeddedOption = Annotated[bool, typer.Option("--embedded", hidden=True)]
OwnSessionOption = Annotated[bool, typer.Option("--own-session", hidden=True)]


LEARNING_NICENESS = 15
AGAIN_S = 5.0
"""Before a process that ended is started again; each time twice as long, at most five minutes."""
MEANWHILE = {"trainer": "the champion goes on serving", "worker": "it goes on at the offset it had come to"}


@app.command()
def init(
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create the topics that are missing; change nothing that exists."""
    import msgspec

    from stream.kafka.topics import ensure

    found = ensure(need_broker(configured(config, data, broker)))
    if as_json:
        print(msgspec.json.encode({"topics": [f._asdict() for f in found]}).decode())
        return
    for topic in found:
        state = "created" if topic.created else "exists"
        print(f"{state:8} {topic.name} ({topic.partitions} partition{'s' if topic.partitions > 1 else ''})")


@app.command()
def worker(
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    instance: Annotated[str | None, typer.Option("--instance", help="Name of this worker in its group.")] = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Consume clicks, keep the state, send recommendations."""
    from stream.kafka.topics import check
    from stream.worker.service import build

    settings = need_broker(configured(config, data, broker, worker__instance=instance))
    log_to_stderr()
    raise_open_file_limit()
    sys.setswitchinterval(0.0005)
    with owned(settings, "worker"):
        wait_for_broker(settings)
        check(settings)
        process = build(settings, embedded=embedded)
        try:
            process.execute_from_commandline()
        finally:
            if process.failure is not None:
                raise process.failure


@app.command()
def trainer(
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    own_session: OwnSessionOption = False,
) -> None:
    """Keep learning from the state in the data directory; publish versions."""
    from stream.kafka.topics import check
    from stream.trainer.service import run

    settings = need_broker(configured(config, data, broker))
    log_to_stderr()
    give_way(own_session)
    with owned(settings, "trainer"):
        wait_for_broker(settings)
        check(settings)

        async def until_told() -> None:
            task = asyncio.current_task()
            assert task is not None
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
            with contextlib.suppress(asyncio.CancelledError):
                await run(settings)

        asyncio.run(until_told())
    # A learning thread under way holds nothing that matters: unpublished work is done again in the next cycle.
    sys.stderr.flush()
    os._exit(0)


@app.command()
def up(
    data: DataOption = None, broker: BrokerOption = None, config: ConfigOption = None, port: PortOption = None
) -> None:
    """Run everything: topics, a worker, a trainer, and without --broker an embedded broker."""
    settings = configured(config, data, broker)
    if port is not None and settings.broker:
        raise typer.BadParameter(f"--port is the embedded broker's, but the broker is {settings.broker}: leave one out")
    with running(settings, config, port) as settings:
        address = settings.broker
        print(f"anabranch is up: broker {address}, data {settings.data}, logs {settings.data}/*.log", flush=True)
        print(
            f"try:  anabranch publish FILE --broker {address}   |   anabranch watch --broker {address}",
            flush=True,
        )
        print("Ctrl-C stops it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(1)
                check_children()


def give_way(own_session: bool) -> None:
    """Where cores are few, answering goes before learning."""
    os.nice(LEARNING_NICENESS)
    # Linux weighs whole sessions against each other before it looks at niceness. A session that is not ours alone
    # is the terminal's: everything in it would be slow from then on.
    if own_session:
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(LEARNING_NICENESS))


class Kept:
    """A child, and how to start it again."""

    def __init__(self, start: "Callable[[], Child]") -> None:
        self._start = start
        self.child = start()
        self._pause_s, self._again_at = AGAIN_S, 0.0

    def start_again(self) -> None:
        """Start it again, but not at once: what ends every time would keep a processor busy."""
        now = time.monotonic()
        if not self._again_at:
            self._again_at = now + self._pause_s
            print(
                f"anabranch: the {self.child.name} ended and is started again in {self._pause_s:.0f} s; "
                f"{MEANWHILE[self.child.name]}; {self.child.log} ends:\n{self.child.last_words()}",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        elif now >= self._again_at:
            self.child, self._pause_s, self._again_at = self._start(), min(2 * self._pause_s, 300.0), 0.0

    def stop(self) -> None:
        """End it."""
        self.child.stop()


_children: list[Kept] = []


@contextlib.contextmanager
def running(
    settings: "Config", config: Path | None = None, port: int | None = None, env: dict[str, str] | None = None
) -> "Iterator[Config]":
    """Broker if none is named, topics, worker and trainer, ended in the opposite order; yields the settings in use.

    The children read the same `config` file and environment (with `env` on top) as we did.
    """
    import msgspec

    from stream.errors import ConfigError
    from stream.kafka.topics import ensure
    from stream.local.child_process import Child
    from stream.local.embedded_broker import EmbeddedBroker

    if not settings.broker and settings.kafka.security != "plaintext":
        raise ConfigError(
            f"kafka.security is {settings.kafka.security!r}, but no broker is named, and the embedded one speaks "
            f"plaintext only: set broker, or leave the section [kafka] out"
        )
    make_data_directory(settings)
    with contextlib.ExitStack() as stack:
        stack.enter_context(terminated_as_interrupted())
        embedded = not settings.broker
        if embedded:
            started = stack.enter_context(EmbeddedBroker(settings.data, port))
            settings = msgspec.structs.replace(settings, broker=started.address)
        ensure(settings)
        flags = ["--data", str(settings.data), "--broker", settings.broker]
        if config is not None:
            flags += ["--config", str(config)]
        for name, more in (("trainer", ["--own-session"]), ("worker", ["--embedded"] if embedded else [])):
            command = [sys.executable, "-m", "stream.cli", name, *flags, *more]
            kept = Kept(partial(Child, name, command, settings.data / f"{name}.log", env))
            stack.callback(kept.stop)
            _children.append(kept)
            stack.callback(_children.remove, kept)
        yield settings


def check_children() -> None:
    """Start again what was killed, and a trainer whatever ended it.

    Raises AnabranchError where the worker ended by itself: it would for the same reason again.
    """
    from stream.errors import AnabranchError

    for kept in _children:
        child = kept.child
        if child.running:
            continue
        if child.name == "trainer" or child.killed:
            kept.start_again()
        else:
            raise AnabranchError(f"the {child.name} ended; {child.log} ends:\n{child.last_words()}")


@contextlib.contextmanager
def terminated_as_interrupted() -> "Iterator[None]":
    """SIGTERM ends us as Ctrl-C does: through every `finally`."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def owned(settings: "Config", role: str) -> "Iterator[None]":
    """Hold the data directory for this role: two workers on one directory would fight over its stores."""
    import fcntl

    from stream.errors import DataDirectoryError

    make_data_directory(settings)
    lock = settings.data / f"{role}.lock"
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise DataDirectoryError(
                f"{settings.data} is in use by another {role} (process {file.read().strip() or 'unknown'}): "
                f"give this one a directory of its own with --data DIR"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def raise_open_file_limit() -> None:
    """Allow this process as many open files as it may allow itself: RocksDB keeps hundreds open for each partition."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS has a lower limit than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def make_data_directory(settings: "Config") -> None:
    """Create the data directory. Raises DataDirectoryError when it cannot be written."""
    from stream.errors import DataDirectoryError

    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        probe = settings.data / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DataDirectoryError(
            f"the data directory {settings.data} cannot be written ({error.strerror}): state lives there; "
            f"name another with --data DIR"
        ) from None


def wait_for_broker(settings: "Config") -> None:
    """Wait until a broker answers, with a clear line now and then.

    Raises BrokerRefused where one does: that waiting would not mend.
    """
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
            wait_s = min(wait_s * 2, 30.0)


def log_to_stderr() -> None:
    """Our own lines at INFO, the libraries' only when something is wrong."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    logging.getLogger("anabranch").setLevel(logging.INFO)
    for noisy in ("faust", "mode"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    # The Kafka clients tell of each try to connect; what it comes to is said once, by us.
    for noisier in ("aiokafka", "kafka"):
        logging.getLogger(noisier).setLevel(logging.CRITICAL)
