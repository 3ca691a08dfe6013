"""An Apache Kafka of this machine's own, from an unpacked distribution."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stream.broker import free_port

READY_WITHIN_S = 180


def missing() -> str | None:
    """What a Kafka at KAFKA_HOME lacks to be started here; None when nothing."""
    if "KAFKA_HOME" not in os.environ:
        return "no KAFKA_HOME is set"
    if shutil.which("java") is None:
        return "no Java on the PATH: the Kafka at KAFKA_HOME cannot run"
    start = Path(os.environ["KAFKA_HOME"]) / "bin" / "kafka-start.sh"
    return None if start.exists() else f"there is no {start}"


class Kafka:
    """The Kafka at KAFKA_HOME as a process of ours; its log outlives it, until the folder goes."""

    def __init__(self, folder: Path, properties: dict[str, str]) -> None:
        self._folder, self._ports = folder, (free_port(), free_port())
        lines = "".join(f"{name}={value}\n" for name, value in properties.items())
        (folder / "data.properties").write_text(lines)
        self.address = f"127.0.0.1:{self._ports[0]}"

    def start(self) -> None:
        """Start it, where it was before if it was, and wait until it says so. Raises RuntimeError."""
        log = self._folder / "kafka.log"
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                [f"{os.environ['KAFKA_HOME']}/bin/kafka-start.sh", f"{self._folder}/data", *map(str, self._ports)],
                stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + READY_WITHIN_S
        while b"Kafka Server started" not in (words := log.read_bytes()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Kafka did not start: {words[-2000:].decode(errors='replace')}")
            time.sleep(0.1)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """End it as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self._process.wait(30)

    def stop(self) -> None:
        """End it as an operator would."""
        self._process.terminate()
        self._process.wait(30)


@contextmanager
def kafka(**properties: str) -> Iterator[str]:
    """Run the Kafka at KAFKA_HOME, with these broker properties on top; yields its address."""
    with broker_of_our_own(**properties) as started:
        yield started.address


@contextmanager
def broker_of_our_own(**properties: str) -> Iterator[Kafka]:
    """A Kafka that may be killed and started again."""
    for attempt in range(3):
        with tempfile.TemporaryDirectory() as folder:
            started = Kafka(Path(folder), properties)
            try:
                started.start()
            except RuntimeError:
                # The id that the start script draws for the cluster begins with a dash once in 64 times: no id then.
                if attempt == 2:
                    raise
                continue
            try:
                yield started
            finally:
                started.stop()
            return
