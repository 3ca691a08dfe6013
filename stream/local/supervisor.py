"""Everything on one machine: broker if none is named, topics, trainer, worker, serve, restarted if they are killed."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from stream.config import Config, ServeSettings
from stream.errors import AnabranchError, ConfigError
from stream.kafka.topics import cluster_id, ensure
from stream.local.child_process import Child
from stream.local.data_directory import create_data_directory
from stream.local.embedded_broker import EmbeddedBroker
from stream.local.page_address import address_to_serve, page_of
from stream.stores.id_key import settle_key
from stream.stores.partition_stores import EMBEDDED_CLUSTER

FIRST_PAUSE_S, MAX_PAUSE_S = 5.0, 300.0
"""Pause before an ended process is started again. It doubles each time, up to the maximum."""
UNTIL_RESTARTED = {
    "trainer": "the champion goes on serving",
    "worker": "it goes on from its last offset",
    "serve": "recommendations go on through Kafka, the console is away",
}
ENDS_ALONE = ("trainer", "serve")
"""What may end without the rest: recommendations go on."""


class RestartedChild:
    """A child process, and how to start it again."""

    def __init__(self, start: Callable[[], Child]) -> None:
        self._start = start
        self._pause_s = FIRST_PAUSE_S
        self._restart_at: float | None = None
        self.child = start()

    def restart_when_due(self) -> None:
        """Start it again after a pause: a process that ends at every start would keep a processor busy."""
        now = time.monotonic()
        if self._restart_at is None:
            self.child.stop()  # closes its pipe: where only the shell was killed, the process ends in the pause
            self._restart_at = now + self._pause_s
            print(
                f"anabranch: the {self.child.name} ended and is started again in {self._pause_s:.0f} s; "
                f"{UNTIL_RESTARTED[self.child.name]}; {self.child.log} ends:\n{self.child.last_lines()}",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        elif now >= self._restart_at:
            self.child = self._start()
            self._pause_s, self._restart_at = min(2 * self._pause_s, MAX_PAUSE_S), None


class Supervisor:
    """The running processes, and the configuration that they were started with."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.page = ""
        """Address of the console; empty: `serve.http` is not set."""
        self._children: list[RestartedChild] = []

    def start(self, name: str, command: list[str], env: dict[str, str] | None = None) -> RestartedChild:
        """Start a process, with `env` beside our own; its output goes to `<data>/<name>.log`."""
        log = self.config.data / f"{name}.log"
        child = RestartedChild(partial(Child, name, command, log, env, rotation=self.config.log))
        self._children.append(child)
        return child

    def stop(self) -> None:
        """End the processes, the last one first."""
        for restarted in reversed(self._children):
            restarted.child.stop()

    def check(self) -> None:
        """Restart a killed process, and a trainer or `serve` that ended for any reason.

        Raises AnabranchError if the worker ended by itself: it would end again for the same reason.
        """
        for restarted in self._children:
            child = restarted.child
            if child.running:
                child.keep_log_written()
                continue
            if child.name not in ENDS_ALONE and not child.killed:
                raise AnabranchError(f"the {child.name} ended; {child.log} ends:\n{child.last_lines()}")
            restarted.restart_when_due()


@contextlib.contextmanager
def run_everything(
    config: Config, config_file: Path | None = None, port: int | None = None, *, trainer_yields: bool = True
) -> Iterator[Supervisor]:
    """Start the broker if none is named, create the topics, start the processes; end them in the opposite order.

    The children read the same `config_file` and environment. `port` is the embedded broker's. With `trainer_yields`
    the trainer runs when the worker leaves it a processor. Raises AnabranchError.
    """
    if not config.broker and config.kafka.security != "plaintext":
        raise ConfigError(
            f"kafka.security is {config.kafka.security!r}, but no broker is named, and the embedded one supports "
            f"plaintext only: set broker, or remove the section [kafka]"
        )
    create_data_directory(config.data)
    with contextlib.ExitStack() as stack:
        stack.enter_context(terminated_as_interrupted())
        embedded = not config.broker
        if embedded:
            broker = stack.enter_context(EmbeddedBroker(config.data, port, config.log))
            config = msgspec.structs.replace(config, broker=broker.address)
        ensure(config)
        settle_key(config, EMBEDDED_CLUSTER if embedded else cluster_id(config))
        supervisor = Supervisor(config)
        stack.callback(supervisor.stop)
        flags = ["--data", str(config.data), "--broker", config.broker]
        if config_file is not None:
            flags += ["--config", str(config_file)]
        of_trainer = "--own-session" if trainer_yields else "--same-priority"
        for name, more in (("trainer", [of_trainer]), ("worker", ["--embedded"] if embedded else [])):
            supervisor.start(name, [sys.executable, "-m", "stream.cli", name, *flags, *more])
        if address := address_to_serve(config):
            supervisor.page = page_of(address)
            env = {"ANABRANCH_SERVE__HTTP": address}
            if config.serve.drain_s == ServeSettings().drain_s:  # nothing distributes requests to a child of `up`
                env["ANABRANCH_SERVE__DRAIN_S"] = "0"
            supervisor.start("serve", [sys.executable, "-m", "stream.cli", "serve", *flags], env)
        yield supervisor


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does, so that every `finally` runs."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
