"""Brokers for the tests that need one: embedded by default, a real Kafka with --broker kafka."""

import locale
import os
import signal
import socket
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream.config import Config, TopicSettings
from stream.kafka.shapes import SHAPES
from stream.kafka.topics import cluster_id, ensure
from stream.local.embedded_broker import EmbeddedBroker
from stream.stores.id_key import settle_key
from tests.kafka import kafka
from tests.kafka import missing as kafka_missing


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--broker", choices=("embedded", "kafka"), default="embedded", help="what the broker tests run on")


OF_THE_SHELL = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "GITHUB_ACTIONS", "PYTHONWARNINGS", "PYTHONIOENCODING")
"""Variables that change what a command prints."""


def pytest_configure(config: pytest.Config) -> None:
    """Give every test, and every process that a test starts, one environment, whatever the machine has set."""
    for name in list(os.environ):
        if name in OF_THE_SHELL or (name.startswith("ANABRANCH_") and name != "ANABRANCH_DATASETS"):
            del os.environ[name]
    os.environ["ANABRANCH_CONFIG"] = os.devnull  # an anabranch.toml of the clone is its owner's, not the tests'
    os.environ["PYTHONUTF8"] = "1"
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts what runs in its background like this
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if locale.getencoding() != "UTF-8":
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    if not os.access(os.environ.get("HOME", ""), os.W_OK):  # the embedded broker's binary is unpacked there
        home = tempfile.TemporaryDirectory()
        config.add_cleanup(home.cleanup)
        os.environ["HOME"] = home.name


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a broker."""
    if request.config.getoption("--broker") == "embedded":
        with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as embedded:
            yield embedded.address
    elif "KAFKA_HOME" in os.environ:
        if reason := kafka_missing():
            pytest.skip(reason)
        with kafka() as address:
            yield address
    else:
        yield from kafka_container()


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
    """A configuration with existing topics and a data directory that only this test uses."""
    return with_topics(broker, tmp_path / "data")


def with_topics(broker: str, data: Path, partitions: int = 2, **more: Any) -> Config:
    """New topics with unique names."""
    tag = uuid.uuid4().hex[:8]
    names = {field: f"{field}-{tag}" for field in SHAPES}
    topics = TopicSettings(**names, partitions=partitions)
    made = Config(broker=broker, data=data, group=f"group-{tag}", topics=topics, **more)
    ensure(made)
    settle_key(made, cluster_id(made))
    return msgspec.structs.replace(made)


MEDIUM_FOLDERS = ("benchmarks", "model/encoders", "model/evaluation", "model/learning", "stream/cli", "stream/trainer")
"""Tests that train models or start processes. Single tests elsewhere carry `@pytest.mark.medium` themselves."""


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of these folders as `medium`: `make test-fast` leaves them out."""
    folders = [Path(__file__).parent / folder for folder in MEDIUM_FOLDERS]
    for item in items:
        if any(folder in item.path.parents for folder in folders):
            item.add_marker(pytest.mark.medium)
