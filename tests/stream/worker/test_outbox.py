"""Messages are sent while no other worker can own the partition, however often the broker is asked."""

import asyncio

import pytest

from stream.config import TopicSettings
from stream.kafka.lease import Lease, LeaseLost
from stream.worker import outbox as outbox_module
from stream.worker.outbox import Outbox
from tests.stream.fakes import FakeLease, FakeProducer


def test_without_a_lease_nothing_is_sent():
    async def run() -> None:
        producer = FakeProducer()
        with pytest.raises(LeaseLost):
            await Outbox(TopicSettings(), producer, Lease(6_000)).send_tombstones(["ann"])
        assert producer.sent == []

    asyncio.run(run())


def test_a_broker_that_is_away_is_asked_again_until_it_acknowledges(monkeypatch, caplog):
    monkeypatch.setattr(outbox_module, "SEND_AGAIN_S", 0.0)

    async def run() -> None:
        producer, tries = FakeProducer(), []
        producer.away = True

        def on_send(topic: str) -> None:
            tries.append(topic)
            producer.away = len(tries) < 3

        producer.on_send = on_send
        await Outbox(TopicSettings(), producer, FakeLease()).send_tombstones(["ann"])
        assert producer.to("recommendations") == [(b"ann", None)]

    asyncio.run(run())
    assert caplog.text.count("the broker did not take tombstones") == 2
