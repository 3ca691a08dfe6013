"""The newest records of a topic, read from its end within bounds."""

import asyncio
import time

import msgspec
import pytest

from stream.console import topic_scan
from stream.console.latency import LatencyProbe
from stream.console.topic_scan import Bounds, newest
from stream.errors import AnabranchError
from stream.kafka.messages import encode
from tests.console.fakes import reply

pytestmark = pytest.mark.broker


def send(producer, topic, values, partition=0, key=b"k"):
    sent = [producer.send(topic, value, key=key, partition=partition) for value in values]
    return [one.get(30) for one in sent]


def scan(config, topic, wanted=lambda _: True, numbers=None, **bounds):
    given = {"found": 1_000, "records": 1_000, "seconds": 10.0}
    return asyncio.run(newest(config, topic, numbers, wanted, Bounds(**given | bounds)))


@pytest.fixture
def producer(broker):
    from kafka import KafkaProducer

    made = KafkaProducer(bootstrap_servers=broker)
    yield made
    made.close()


def test_all_records_of_a_small_topic_are_found_newest_first(config, producer):
    topic = config.topics.recommendations
    send(producer, topic, [b"a", b"b"], 0)
    send(producer, topic, [b"c"], 1)
    found = scan(config, topic)
    assert sorted(r.value for r in found.records) == [b"a", b"b", b"c"]
    assert [r.timestamp for r in found.records] == sorted((r.timestamp for r in found.records), reverse=True)
    assert found.whole
    assert found.read == 3
    assert [r.value for r in scan(config, topic, numbers=[1]).records] == [b"c"]


def test_an_empty_topic_is_read_at_once(config):
    began = time.monotonic()
    assert scan(config, config.topics.dead_letters) == ([], 0, True)
    assert time.monotonic() - began < 9


def test_the_scan_goes_back_until_enough_was_found(config, producer, monkeypatch):
    monkeypatch.setattr(topic_scan, "FIRST_WINDOW", 10)
    topic = config.topics.recommendations
    send(producer, topic, [b"old %d" % n for n in range(200)], 0, b"alice")
    send(producer, topic, [b"new %d" % n for n in range(100)], 0, b"bob")
    found = scan(config, topic, lambda r: r.key == b"alice", numbers=[0], found=3)
    assert [r.value for r in found.records] == [b"old 199", b"old 198", b"old 197"]
    assert not found.whole
    assert found.read < 300
    everything = scan(config, topic, lambda r: r.key == b"alice", numbers=[0])
    assert len(everything.records) == 200
    assert everything.whole


def test_the_scan_ends_at_its_bounds(config, producer, monkeypatch):
    monkeypatch.setattr(topic_scan, "FIRST_WINDOW", 10)
    topic = config.topics.recommendations
    send(producer, topic, [b"x" * 1_000] * 200)
    by_records = scan(config, topic, lambda _: False, records=40)
    assert 40 <= by_records.read < 200
    assert not by_records.whole
    by_bytes = scan(config, topic, lambda _: False, bytes=20_000)
    assert by_bytes.read < 200
    assert not by_bytes.whole


def test_a_topic_of_a_broker_that_is_away_is_an_error_within_its_time(config):
    away = msgspec.structs.replace(config, broker="127.0.0.1:1")
    began = time.monotonic()
    with pytest.raises(AnabranchError, match="no Kafka broker answers"):
        scan(away, "clicks", seconds=1.0)
    assert time.monotonic() - began < 20


def test_the_time_from_a_click_to_its_recommendation_is_that_between_their_records(config, producer):
    [click] = send(producer, config.topics.clicks, [b'{"user": "alice", "item": "milk"}'], 1)

    async def run() -> list[float]:
        probe = LatencyProbe(config)
        try:
            assert await probe.sample({0, 1}) == []
            message = encode(reply(partition=1, offset=click.offset))
            later = producer.send(
                config.topics.recommendations, message, key=b"alice", partition=0, timestamp_ms=click.timestamp + 42
            ).get(30)
            send(producer, config.topics.recommendations, [encode(reply(partition=9, offset=1 << 70)), b"", b"{"], 0)
            sampled: list[float] = []
            for _ in range(3):
                sampled += await probe.sample({0, 1})
            assert later.timestamp == click.timestamp + 42
            assert [one.message.user for one in probe.newest] == ["alice"]
            return sampled
        finally:
            await probe.close()

    assert asyncio.run(run()) == [42.0]
