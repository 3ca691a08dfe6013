"""The newest examples are read from all partitions, forgotten users' are not, and what is no example is passed over."""

import asyncio

import msgspec
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from model.ranker.examples import Example
from model.ranking.features import NAMES, SCHEMA
from state.id_hash import UNKEYED
from stream.config import Config
from stream.kafka.connection import connection
from stream.kafka.example_log import ExampleLog
from stream.kafka.examples import pack

pytestmark = pytest.mark.broker


def packed(ts: int, schema: str = SCHEMA) -> bytes:
    features = np.full((3, len(NAMES)), 0.5, np.float16)
    items = np.arange(1, 4, dtype=np.uint64)
    return pack(Example(0, ts - 1, ts, "000001", items, features, np.ones(3, np.float32)), schema)


def send(config: Config, *messages: tuple[str, bytes | None]) -> None:
    async def run() -> None:
        async with AIOKafkaProducer(**connection(config)) as producer:
            for user, value in messages:
                await producer.send_and_wait(config.topics.examples, value, key=user.encode())

    asyncio.run(run())


def times(log: ExampleLog) -> list[tuple[bytes, int]]:
    return [(user, example.ts) for user, example in log.keyed()]


def test_examples_of_all_partitions_come_in_the_order_of_their_events_and_new_ones_after_them(config):
    log = ExampleLog(config, UNKEYED.of, newest=100)
    assert asyncio.run(log.read())
    assert times(log) == []
    send(config, *((f"user-{n}", packed(1_000 + n)) for n in range(9, -1, -1)))
    asyncio.run(log.read())
    assert times(log) == [(f"user-{n}".encode(), 1_000 + n) for n in range(10)]
    assert log.examples()[3].user == UNKEYED.of("user-3")
    send(config, ("user-3", packed(2_000)), ("user-3", packed(2_000)))  # a retry of the producer
    asyncio.run(log.read())
    assert times(log)[-1] == (b"user-3", 2_000)
    assert len(times(log)) == 11


def test_a_reader_that_comes_late_reads_the_newest_only(config):
    send(config, *((f"user-{n % 5}", packed(1_000 + n)) for n in range(60)))
    log = ExampleLog(config, UNKEYED.of, newest=12)
    asyncio.run(log.read())
    assert [ts for _, ts in times(log)] == list(range(1_048, 1_060))


def test_a_forgotten_users_examples_are_gone_and_what_is_no_example_is_passed_over_and_counted(config, caplog):
    send(
        config, ("ann", packed(1_000)), ("bob", packed(1_001)), ("ann", b"\x00 nothing \x1b[31m"),
        ("cat", packed(1_002, "another")), ("bob", None), ("cat", packed(1_003)),
    )  # fmt: skip
    log = ExampleLog(config, UNKEYED.of, newest=100)
    asyncio.run(log.read())
    assert times(log) == [(b"ann", 1_000), (b"cat", 1_003)]
    assert log.skipped == {"malformed": 1, "schema": 1}
    assert "\x1b" not in caplog.text
    send(config, ("ann", None))
    asyncio.run(log.read())
    assert times(log) == [(b"cat", 1_003)]


def test_an_installation_without_the_topic_has_no_examples(config):
    topics = msgspec.structs.replace(config.topics, examples="nowhere")
    log = ExampleLog(msgspec.structs.replace(config, topics=topics), UNKEYED.of, newest=100)
    assert not asyncio.run(log.read())
    assert log.examples() == []
