"""The context of a message is in what the worker sends because of it."""

import json

import msgspec

from stream.config import WorkerSettings
from tests.stream.fakes import CLICKS, REQUESTS, until
from tests.stream.kafka.test_decode import Record
from tests.stream.tracing.test_headers import OTHER, PARENT
from tests.stream.worker.test_pipeline import Shop, with_shop

TRACED = (("traceparent", PARENT), ("tracestate", b"shop=1"))


def sent_to(shop, topic: str) -> list[dict[str, bytes]]:
    """The headers of the messages sent to a topic."""
    sent = zip(shop.producer.sent, shop.producer.headers, strict=True)
    return [headers for (to, _, _), headers in sent if to == topic]


def click(user: str, offset: int, headers: tuple = ()) -> Record:
    value = json.dumps({"user": user, "item": "milk", "ts": 1_600_000_000_000}).encode()
    return Record(value, offset, headers=headers)


@with_shop
async def test_a_recommendation_has_the_context_of_the_newest_click_that_it_reflects(shop):
    clicks = [
        click("ann", 0, (("traceparent", OTHER),)), click("ann", 1, TRACED), click("bob", 2), click("cem", 3, TRACED),
        click("cem", 4),
    ]  # fmt: skip
    answering = shop.start(shop.pipeline.answer())
    await shop.poll({CLICKS: clicks})
    await until(lambda: answering.done() or shop.store.answered() == 5)
    users = [key for key, _ in shop.recommendations()]
    headers = dict(zip(users, sent_to(shop, shop.config.topics.recommendations), strict=True))
    assert headers == {b"ann": dict(TRACED), b"bob": {}, b"cem": {}}


@with_shop
async def test_a_recommendation_that_is_sent_later_still_has_the_context(shop):
    shop.monkeypatch.setattr("stream.worker.outbox.SEND_AGAIN_S", 0.01)
    commit = shop.consumer.commit

    async def refused(offsets):
        raise TimeoutError

    def lease_runs_out(topic):
        shop.lease.held, shop.producer.away, shop.consumer.commit = False, True, refused

    shop.producer.on_send = lease_runs_out
    answering = shop.start(shop.pipeline.answer())
    await shop.poll({CLICKS: [click("ann", 0, TRACED)]})
    await until(lambda: shop.store.pending.in_memory)
    assert shop.recommendations() == []
    shop.producer.away, shop.producer.on_send, shop.consumer.commit = False, lambda topic: None, commit
    await shop.poll({})
    await until(lambda: answering.done() or shop.store.answered() == 1)
    assert sent_to(shop, shop.config.topics.recommendations) == [dict(TRACED)]


@with_shop
async def test_a_dead_letter_has_the_context_beside_its_reason(shop):
    await shop.poll({CLICKS: [Record(b"not json", 0, headers=(("traceparent", PARENT), ("reason", b"forged")))]})
    [headers] = sent_to(shop, shop.config.topics.dead_letters)
    assert headers["traceparent"] == PARENT
    assert headers["reason"].startswith(b"not JSON")
    assert headers["offset"] == b"0"


@with_shop
async def test_a_reply_has_the_context_of_its_request(shop):
    asked = [Record(b'{"user": "ann", "id": 7}', 0, headers=TRACED), Record(b'{"user": "ann", "id": 8}', 1)]
    await shop.poll({REQUESTS: asked})
    assert sent_to(shop, shop.config.topics.replies) == [dict(TRACED), {}]


@with_shop
async def test_a_request_that_is_refused_gets_its_context_back(shop):
    settings = WorkerSettings(requests_per_poll=1)
    shop.config = msgspec.structs.replace(shop.config, worker=settings)
    small = Shop(shop.config, shop.monkeypatch)
    await shop.close()
    await small.assign()
    await small.poll({REQUESTS: [Record(b'{"user": "ann"}', 0), Record(b'{"user": "ann"}', 1, headers=TRACED)]})
    assert [json.loads(value)["status"] for _, value in small.producer.to("replies")] == ["ok", "too many"]
    assert sent_to(small, "replies") == [{}, dict(TRACED)]
    await small.close()
