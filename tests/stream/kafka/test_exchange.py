"""Brokers that accept a connection and do not serve: each exchange ends, and its error names what it was."""

import asyncio
import contextlib
import gc
import socket
import struct
import threading
import warnings
from collections.abc import Iterator

import pytest
from aiokafka import errors

from stream.config import Config
from stream.errors import BrokerRefused, BrokerUnavailable
from stream.kafka import diagnosis, exchange
from stream.kafka.diagnosis import unavailable
from stream.kafka.exchange import ask
from stream.kafka.follow import follow
from stream.kafka.pointers import read_pointers
from stream.kafka.topics import cluster_id, log_ends
from stream.local.embedded_broker import EmbeddedBroker, free_port
from stream.operate.send_command import send_command

VERSIONS = [(0, 0, 7), (1, 0, 11), (2, 0, 3), (3, 0, 5), (18, 0, 0), (60, 0, 0)]
"""Keys of Kafka's requests, with the versions that the stub claims to know."""


@contextlib.contextmanager
def listener(*, answers_first: bool) -> Iterator[str]:
    """A port that accepts connections. It answers nothing, or only the first request: which versions it knows."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])
                    size = held[-1].recv(4) if answers_first else b""
                    if size:  # else somebody only looked whether the port is open
                        correlation = held[-1].recv(struct.unpack(">i", size)[0])[4:8]
                        listed = b"".join(struct.pack(">hhh", *version) for version in VERSIONS)
                        body = correlation + struct.pack(">hi", 0, len(VERSIONS)) + listed
                        held[-1].sendall(struct.pack(">i", len(body)) + body)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(exchange, "ANSWER_WITHIN_S", 0.3)
    monkeypatch.setattr(exchange, "GIVE_UP_S", 0.3)
    monkeypatch.setattr(diagnosis, "STEP_TIMEOUT_MS", 200)


pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
"""aiokafka leaves a connection open where it has to stop while it connects."""


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """What was given up is collected here: in a test of another file its warning would be an error."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(3):  # what one round releases can hold more
            gc.collect()


EXCHANGES = {
    "the id of the cluster": cluster_id,
    "how far the log of 'clicks' goes": lambda config: log_ends(config, "clicks"),
    "the pointers to the serving versions": lambda config: asyncio.run(read_pointers(config)),
    "the list of topics": lambda config: asyncio.run(send_command(config, "pause", ("done",), 9)),
    "a connection to read 'clicks'": lambda config: next(follow(config, "clicks", from_start=True)),
}
"""By what each waits for."""


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("answers_first", [False, True])
@pytest.mark.parametrize("waiting_for", EXCHANGES)
def test_an_exchange_with_a_broker_that_does_not_answer_ends_and_names_what_it_waited_for(waiting_for, answers_first):
    with listener(answers_first=answers_first) as address, pytest.raises(BrokerUnavailable) as error:
        EXCHANGES[waiting_for](Config(broker=address))
    assert str(error.value).startswith(f"{address} accepts a connection and does not answer: is it a Kafka broker")
    assert str(error.value).endswith(f"; waited for {waiting_for}")


@pytest.mark.broker
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("named", ["kafka-in-docker:9092", f"127.0.0.1:{free_port()}"])
def test_a_broker_that_names_an_address_which_clients_cannot_reach_is_reported_with_that_address(tmp_path, named):
    broker = EmbeddedBroker(tmp_path)
    broker.advertised = named
    with broker, pytest.raises(BrokerUnavailable) as error:
        cluster_id(Config(broker=broker.address))
    assert f"{broker.address} answers, and names {named} as broker " in str(error.value)
    assert "set advertised.listeners of that broker" in str(error.value)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (errors.MessageSizeTooLargeError, BrokerRefused, "max.message.bytes"),
        (errors.RecordListTooLargeError, BrokerRefused, "max.message.bytes"),
        (errors.UnknownTopicOrPartitionError, BrokerRefused, "has no such topic: `anabranch init`"),
        (errors.TopicAuthorizationFailedError, BrokerRefused, "does not allow us to use a topic"),
        (errors.NotEnoughReplicasError, BrokerUnavailable, "fewer replicas in sync than min.insync.replicas"),
        (errors.NotEnoughReplicasAfterAppendError, BrokerUnavailable, "fewer replicas in sync than"),
        (errors.LeaderNotAvailableError, BrokerUnavailable, "no leader for a partition"),
        (errors.NotLeaderForPartitionError, BrokerUnavailable, "no leader for a partition"),
        (errors.KafkaStorageError, BrokerUnavailable, "a disk"),
    ],
)
def test_what_a_broker_answers_is_in_the_error(error, kind, text):
    async def fails() -> None:
        raise error

    with pytest.raises(kind) as found:
        ask(Config(broker="a:1"), "an acknowledgement", fails())
    assert type(found.value) is kind
    assert str(found.value).startswith("a:1 ")
    assert text in str(found.value)
    assert str(found.value).endswith("; waited for an acknowledgement")


def test_nobody_at_the_address_is_reported_as_before():
    address = f"127.0.0.1:{free_port()}"
    found = asyncio.run(unavailable(Config(broker=address), errors.KafkaConnectionError("refused")))
    assert str(found).startswith(f"no Kafka broker answers at {address}: is it running")
