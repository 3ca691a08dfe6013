"""Events count as sent once Kafka has acknowledged them, and each that is not is named."""

import asyncio
import functools

import pytest

from stream.config import Config
from stream.http.answers import Event
from stream.serve.event_sender import EventSender
from tests.stream.fakes import FakeProducer


def with_sender(scenario):
    @functools.wraps(scenario)
    def test(monkeypatch):
        monkeypatch.setattr("stream.serve.event_sender.ACKNOWLEDGED_WITHIN_S", 0.1)

        async def run() -> None:
            producer = FakeProducer()
            monkeypatch.setattr("stream.serve.event_sender.AIOKafkaProducer", lambda **_: producer)
            await scenario(EventSender(Config(broker="nowhere:1")), producer, monkeypatch)

        asyncio.run(run())

    del test.__wrapped__
    return test


def events(*users: str) -> list[Event]:
    return [Event(user.encode(), f'{{"user":"{user}"}}'.encode()) for user in users]


@with_sender
async def test_events_are_sent_in_their_order(sender, producer, monkeypatch):
    assert await sender.publish(events("ann", "bob", "ann")) == [None, None, None]
    assert [key for key, _ in producer.to("clicks")] == [b"ann", b"bob", b"ann"]
    assert await sender.publish([]) == []


@with_sender
async def test_the_context_of_a_trace_goes_with_the_event(sender, producer, monkeypatch):
    traced = [event._replace(headers=(("traceparent", b"00-1-2-01"),)) for event in events("ann")]
    assert await sender.publish([*traced, *events("bob")]) == [None, None]
    assert producer.headers == [{"traceparent": b"00-1-2-01"}, {}]


@with_sender
async def test_what_kafka_has_not_acknowledged_in_time_is_not_called_sent(sender, producer, monkeypatch):
    producer.acknowledges.clear()
    [late] = await sender.publish(events("ann"))
    assert late is not None
    assert late.again
    assert "may still arrive" in late.reason
    producer.acknowledges.set()
    assert await sender.publish(events("bob")) == [None]


@with_sender
async def test_a_broker_that_fails_is_named_as_late(sender, producer, monkeypatch):
    producer.away = True
    outcomes = await sender.publish(events("ann", "bob"))
    assert [outcome.again for outcome in outcomes] == [True, True]


@with_sender
async def test_one_event_that_is_too_large_keeps_no_other_back(sender, producer, monkeypatch):
    producer.max_bytes = 50
    outcomes = await sender.publish([*events("ann"), Event(b"bob", b"x" * 100), *events("cat")])
    assert (outcomes[0], outcomes[2]) == (None, None)
    assert outcomes[1] is not None
    assert not outcomes[1].again


@with_sender
async def test_while_kafka_is_away_events_do_not_fill_the_memory(sender, producer, monkeypatch):
    monkeypatch.setattr("stream.serve.event_sender.MAX_UNACKNOWLEDGED", 5)
    producer.acknowledges.clear()
    first = asyncio.create_task(sender.publish(events("a", "b", "c")))
    await asyncio.sleep(0.01)
    refused = await sender.publish(events("d", "e", "f"))
    assert [outcome.again for outcome in refused] == [True] * 3
    assert len(producer.to("clicks")) == 3
    producer.acknowledges.set()
    assert await first == [None] * 3
    assert await sender.publish(events("d", "e", "f")) == [None] * 3


@with_sender
async def test_a_fault_of_the_code_is_not_called_late(sender, producer, monkeypatch):
    def fail(topic: str) -> None:
        raise RuntimeError("a fault")

    producer.on_send = fail
    with pytest.raises(RuntimeError, match="a fault"):
        await sender.publish(events("ann"))
