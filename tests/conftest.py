"""Brokers for the tests that need one: embedded by default, a real Kafka with --broker kafka."""

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from stream.broker import EmbeddedBroker, free_port
from stream.config import Config, Topics
from stream.topics import ensure

KAFKA_READY_WITHIN_S = 60


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--broker", choices=("embedded", "kafka"), default="embedded", help="what the broker tests run on")


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a broker."""
    folder = tmp_path_factory.mktemp("broker")
    if request.config.getoption("--broker") == "embedded":
        with EmbeddedBroker(folder) as embedded:
            yield embedded.address
    elif "KAFKA_HOME" in os.environ:
        yield from kafka_distribution(Path(os.environ["KAFKA_HOME"]), folder)
    else:
        yield from kafka_container()


def kafka_distribution(home: Path, folder: Path) -> Iterator[str]:
    if shutil.which("java") is None:
        pytest.skip("no Java on the PATH: the Kafka at KAFKA_HOME cannot run")
    start = home / "bin" / "kafka-start.sh"
    if not start.exists():
        pytest.skip(f"KAFKA_HOME={home} has no bin/kafka-start.sh")
    port = free_port()
    log = folder / "kafka.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(start), str(folder / "data"), str(port), str(free_port())],
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + KAFKA_READY_WITHIN_S
        while b"Kafka Server started" not in log.read_bytes():
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, "Kafka did not start in time"
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def kafka_container() -> Iterator[str]:
    docker = Path(os.environ.get("DOCKER_SOCKET", "/var/run/docker.sock"))
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(docker))
        except OSError:
            pytest.skip(f"no KAFKA_HOME is set and no Docker engine answers at {docker}")
    from testcontainers.kafka import KafkaContainer

    with KafkaContainer().with_kraft() as container:
        yield container.get_bootstrap_server()


@pytest.fixture
def config(broker: str, tmp_path: Path) -> Config:
    """A configuration with topics and a data directory of the test's own; the topics exist."""
    return with_topics(broker, tmp_path / "data")


def with_topics(broker: str, data: Path, partitions: int = 2) -> Config:
    """Fresh topics under names nobody else uses."""
    tag = uuid.uuid4().hex[:8]
    names = {name: f"{name}-{tag}" for name in Topics.__struct_fields__ if name not in ("partitions", "replication")}
    made = Config(broker=broker, data=data, group=f"group-{tag}", topics=Topics(**names, partitions=partitions))
    ensure(made)
    return msgspec.structs.replace(made)
