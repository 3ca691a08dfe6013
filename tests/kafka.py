"""An Apache Kafka of this machine's own, from an unpacked distribution."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stream.broker import free_port

READY_WITHIN_S = 60


def missing() -> str | None:
    """What a Kafka at KAFKA_HOME lacks to be started here; None when nothing."""
    if "KAFKA_HOME" not in os.environ:
        return "no KAFKA_HOME is set"
    if shutil.which("java") is None:
        return "no Java on the PATH: the Kafka at KAFKA_HOME cannot run"
    start = Path(os.environ["KAFKA_HOME"]) / "bin" / "kafka-start.sh"
    return None if start.exists() else f"there is no {start}"


@contextmanager
def kafka(**properties: str) -> Iterator[str]:
    """Run the Kafka at KAFKA_HOME, with these broker properties on top; yields its address."""
    with contextlib.ExitStack() as stack:
        for attempt in range(3):
            try:
                address = stack.enter_context(_started(properties))
                break
            except RuntimeError:
                # The id that the start script draws for the cluster begins with a dash once in 64 times: no id then.
                if attempt == 2:
                    raise
        yield address


@contextmanager
def _started(properties: dict[str, str]) -> Iterator[str]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "kafka.log").open("wb+") as log:
        lines = "".join(f"{name}={value}\n" for name, value in properties.items())
        Path(f"{folder}/data.properties").write_text(lines)
        process = subprocess.Popen(
            [f"{os.environ['KAFKA_HOME']}/bin/kafka-start.sh", f"{folder}/data", str(port), str(free_port())],
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + READY_WITHIN_S
            while b"Kafka Server started" not in (said := Path(log.name).read_bytes()):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Kafka did not start: {said[-2000:].decode(errors='replace')}")
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)
