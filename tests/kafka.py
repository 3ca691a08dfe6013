"""An Apache Kafka on this machine, from an unpacked distribution."""

import base64
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stream.local.embedded_broker import free_port

READY_WITHIN_S = 180
ONE_NODE = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "num.partitions": "1",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "log.cleaner.dedupe.buffer.size": "16777216",
}
LOGGING = """
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=[%d{HH:mm:ss.SSS}] %p %m (%c{1})%n
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
logger.started.name=kafka.server.KafkaRaftServer
logger.started.level=info
"""


def missing() -> str | None:
    """Why the Kafka at KAFKA_HOME cannot be started here; None if it can."""
    if "KAFKA_HOME" not in os.environ:
        return "no KAFKA_HOME is set"
    if shutil.which("java") is None:
        return "no Java on the PATH: the Kafka at KAFKA_HOME cannot run"
    libraries = Path(os.environ["KAFKA_HOME"]) / "libs"
    return None if any(libraries.glob("kafka-*.jar")) else f"no kafka-*.jar in {libraries}"


class Kafka:
    """The Kafka at KAFKA_HOME as a child process. Its log outlives it, as long as the folder exists."""

    def __init__(self, folder: Path, properties: dict[str, str]) -> None:
        self.folder = folder
        port, controller = free_port(), free_port()
        self.address = f"127.0.0.1:{port}"
        every = ONE_NODE | {
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "log.dirs": f"{folder}/log",
        }
        lines = (f"{name}={value}\n" for name, value in (every | properties).items())
        (folder / "server.properties").write_text("".join(lines))
        (folder / "log4j2.properties").write_text(LOGGING)

    def _java(self, main: str, *arguments: str) -> list[str]:
        return [
            "java", "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            f"-Dlog4j2.configurationFile={self.folder}/log4j2.properties",
            "-cp", f"{os.environ['KAFKA_HOME']}/libs/*", main, *arguments,
        ]  # fmt: skip

    def start(self) -> None:
        """Start it, with its old log if there is one, and wait until it is ready. Raises RuntimeError."""
        properties, log = f"{self.folder}/server.properties", self.folder / "kafka.log"
        with log.open("wb") as output:
            if not (self.folder / "log" / "meta.properties").exists():
                made = self._java("kafka.tools.StorageTool", "format", "-t", cluster_id(), "-c", properties)
                subprocess.run(made, stdout=output, stderr=subprocess.STDOUT, timeout=READY_WITHIN_S, check=False)
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", properties), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + READY_WITHIN_S
        while b"Kafka Server started" not in (lines := log.read_bytes()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Kafka did not start: {lines[-2000:].decode(errors='replace')}")
            time.sleep(0.1)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """End it as a power cut does."""
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self._process.wait(30)

    def stop(self) -> None:
        """End it as an operator does."""
        self._process.terminate()
        self._process.wait(30)


@contextmanager
def kafka(**properties: str) -> Iterator[str]:
    """Run the Kafka at KAFKA_HOME with these additional broker properties; yields its address."""
    with restartable_broker(**properties) as started:
        yield started.address


@contextmanager
def restartable_broker(**properties: str) -> Iterator[Kafka]:
    """A Kafka that may be killed and started again."""
    with tempfile.TemporaryDirectory() as folder:
        started = Kafka(Path(folder), properties)
        started.start()
        try:
            yield started
        finally:
            started.stop()


def cluster_id() -> str:
    """A new cluster's id. It does not begin with a dash: Kafka's script would read it as an option."""
    return base64.urlsafe_b64encode(b"\x00" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
