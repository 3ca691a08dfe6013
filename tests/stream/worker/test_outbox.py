"""Messages are sent while no other worker can own the partition, however often the broker is asked."""

import asyncio
import json

import pytest
from aiokafka.errors import InvalidMessageError, KafkaError, UnknownError

from stream.config import TopicSettings
from stream.kafka.decode import DeadLetter
from stream.kafka.lease import Lease, LeaseLost
from stream.kafka.messages import Recommendation, Recommended, Reply, encode
from stream.live_metrics import FALLBACK, LastRecommendation
from stream.worker import outbox as outbox_module
from stream.worker.outbox import TRUNCATED_BYTES, Outbox
from stream.worker.recommendation import Answer
from tests.stream.fakes import FakeLease, FakeProducer
from tests.stream.kafka.test_decode import Record


def answer(user: str, *, title: str = "Milk", because: str = "bread", item: str = "milk") -> Answer:
    items = [Recommended(item, 1.0, [because], title, "followed")]
    message = encode(Recommendation(user, items, None, None, "popularity", 1, 2, 0, 3))
    return Answer(1, user.encode(), message, LastRecommendation(FALLBACK, [], {}), "popularity")


def reply(user: str, *, id: str = "", item: str = "milk") -> Reply:
    return Reply(user, [Recommended(item, 1.0)], None, None, "popularity", 1, 2, 0, 3, id)


def sent_by(send, producer: FakeProducer | None = None) -> tuple[FakeProducer, Outbox]:
    """The producer and the outbox after `send(outbox)`. No pause for a retry is short enough for a test."""
    producer = producer or FakeProducer()
    outbox = Outbox(TopicSettings(), producer, FakeLease())
    asyncio.run(asyncio.wait_for(send(outbox), 10))
    return producer, outbox


class SmallBroker(FakeProducer):
    """Takes messages of up to 500 bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.max_bytes = 500


@pytest.fixture(autouse=True)
def endless_pauses(monkeypatch):
    monkeypatch.setattr(outbox_module, "SEND_AGAIN_S", 1e6)


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


def test_a_message_that_the_broker_did_not_take_is_sent_again_without_those_it_took(monkeypatch):
    monkeypatch.setattr(outbox_module, "SEND_AGAIN_S", 0.0)

    class Forgetful(FakeProducer):
        tries = 0

        async def send(self, topic, value, key=None, headers=None):
            self.tries += key == b"bob"
            if key == b"bob" and self.tries == 1:
                raise KafkaError
            return await super().send(topic, value, key, headers)

    producer, _ = sent_by(lambda outbox: outbox.send_tombstones(["ann", "bob", "cat"]), Forgetful())
    assert producer.to("recommendations") == [(b"ann", None), (b"cat", None), (b"bob", None)]


def test_an_oversized_answer_loses_its_titles_first_then_its_reasons_and_then_is_a_dead_letter():
    answers = [
        answer("ann", title="M" * 600),
        answer("bob", title="M" * 600, because="b" * 400),
        answer("cat", item="i" * 600),
        answer("dan"),
    ]
    producer, outbox = sent_by(lambda outbox: outbox.send_recommendations(answers), SmallBroker())
    sent = {key: json.loads(value)["items"] for key, value in producer.to("recommendations")}
    assert sent == {
        b"dan": [{"item": "milk", "score": 1.0, "because": ["bread"], "title": "Milk", "why": "followed"}],
        b"ann": [{"item": "milk", "score": 1.0, "because": ["bread"], "why": "followed"}],
        b"bob": [{"item": "milk", "score": 1.0}],
    }
    [(key, value)] = producer.to("dead-letters")
    assert (key, value) == (b"cat", answers[2].message[:0]) or len(value) <= TRUNCATED_BYTES
    headers = producer.headers[-1]
    assert headers["topic"] == b"recommendations"
    assert headers["reason"].startswith(b"not sent")
    assert int(headers["truncated"]) == len(answers[2].message)
    assert (outbox.counts.smaller, outbox.counts.unsendable, outbox.counts.lost_dead_letters) == (3, 1, 0)


def test_every_form_of_an_answer_has_the_headers_of_its_trace():
    answers = [answer("ann", title="M" * 600), answer("cat", item="i" * 600), answer("dan")]
    headers = {1: (("traceparent", b"00-1"),)}
    producer, _ = sent_by(lambda outbox: outbox.send_recommendations(answers, headers), SmallBroker())
    assert [headers["traceparent"] for headers in producer.headers] == [b"00-1"] * 3


def test_a_reply_that_is_too_large_says_so():
    producer, _ = sent_by(lambda o: o.send_replies([reply("ann", id="7", item="i" * 600)]), SmallBroker())
    [(key, value)] = producer.to("replies")
    assert key == b"7"
    assert {"user": "ann", "id": "7", "items": [], "status": "too large"}.items() <= json.loads(value).items()


@pytest.mark.parametrize("error", [InvalidMessageError, UnknownError])
def test_a_topic_that_takes_no_message_without_a_key_gets_one_with_a_key(error, monkeypatch):
    monkeypatch.setattr(outbox_module, "UNCLEAR_AGAIN_S", 0.0)

    class Compacted(FakeProducer):
        async def send(self, topic, value, key=None, headers=None):
            if key is None:
                raise error
            return await super().send(topic, value, key, headers)

    async def send(outbox: Outbox) -> None:
        await outbox.send_replies([reply("ann")])
        await outbox.send_dead_letters("clicks", 0, [DeadLetter(Record(b"no event", 17), "not JSON")])

    producer, outbox = sent_by(send, Compacted())
    assert [key for key, _ in producer.to("replies")] == [b"ann"]
    assert [key for key, _ in producer.to("dead-letters")] == [b"clicks-0-17"]
    assert outbox.counts.smaller == 2


def test_a_dead_letter_with_neither_key_nor_value_is_sent():
    producer, _ = sent_by(lambda o: o.send_dead_letters("clicks", 0, [DeadLetter(Record(None), "tombstone")]))
    assert producer.to("dead-letters") == [(None, b"")]


def test_a_dead_letter_that_is_too_large_is_cut_and_its_headers_say_how_long_it_was():
    producer = FakeProducer()
    producer.max_bytes = 3 * TRUNCATED_BYTES
    record = Record(b"v" * 5_000, 17, key=b"k" * 4_000)
    sent_by(lambda outbox: outbox.send_dead_letters("clicks", 0, [DeadLetter(record, "not JSON")]), producer)
    assert producer.to("dead-letters") == [(b"k" * TRUNCATED_BYTES, b"v" * TRUNCATED_BYTES)]
    assert (producer.headers[0]["truncated"], producer.headers[0]["truncated_key"]) == (b"5000", b"4000")


def test_a_dead_letter_that_its_topic_refuses_in_every_form_is_logged_and_nothing_waits_for_it(caplog):
    producer = FakeProducer()
    producer.max_bytes = 20
    letters = [DeadLetter(Record(b"no event", 17), "not JSON")]
    _, outbox = sent_by(lambda outbox: outbox.send_dead_letters("clicks", 0, letters), producer)
    assert producer.sent == []
    assert outbox.counts.lost_dead_letters == 1
    assert "'offset': '17'" in caplog.text


def test_refused_messages_are_logged_once_a_minute(caplog):
    sent_by(lambda o: o.send_recommendations([answer(f"u{n}", title="M" * 600) for n in range(50)]), SmallBroker())
    assert caplog.text.count("refuses a message") == 1
