"""Examples are sent beside the path of events: nothing waits for them, and a missing topic or right stops nobody."""

import asyncio

import numpy as np
import pytest
from aiokafka.errors import TopicAuthorizationFailedError

from model.ranker.examples import Example
from model.ranking.features import NAMES, SCHEMA
from stream.config import Config
from stream.errors import BrokerUnavailable
from stream.kafka.examples import unpack
from stream.kafka.lease import LeaseLost
from stream.worker import example_sender
from stream.worker.example_sender import ExampleSender
from tests.stream.fakes import FakeLease, FakeProducer, until

ANN, BOB = (1, b"ann"), (2, b"bob")


def keyed(user: tuple[int, bytes], ts: int = 2_000) -> tuple[bytes, Example]:
    features = np.full((2, len(NAMES)), 0.5, np.float16)
    items = np.array([5, 6], np.uint64)
    return user[1], Example(user[0], 1_000, ts, "000001", items, features, np.ones(2, np.float32))


class Post:
    """A sender over a broker that a test directs."""

    def __init__(self) -> None:
        self.producer, self.lease = FakeProducer(), FakeLease()
        self.counts = {"sent": 0, "lost": 0}
        self.there: bool | Exception = True
        self.looks = 0
        self.sender = ExampleSender(Config(), self.producer, self.lease, self.count, self.exists)

    def count(self, outcome: str, count: int) -> None:
        self.counts[outcome] += count

    async def exists(self, config: Config) -> bool:
        self.looks += 1
        if isinstance(self.there, Exception):
            raise self.there
        return self.there

    @property
    def messages(self) -> list[tuple[bytes | None, bytes | None]]:
        return self.producer.to("examples")

    def refuse(self, topic: str) -> None:
        raise TopicAuthorizationFailedError


def posting(scenario):
    """Run a coroutine with a `Post` whose sender runs."""

    def test(monkeypatch, caplog):
        monkeypatch.setattr(example_sender, "SEND_AGAIN_S", 0.01)

        async def run() -> None:
            post = Post()
            task = asyncio.create_task(post.sender.run())
            try:
                await scenario(post, caplog)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        asyncio.run(run())

    test.__name__ = scenario.__name__
    return test


@posting
async def test_examples_are_sent_under_the_ids_of_their_users(post, caplog):
    post.sender.add([keyed(ANN), keyed(BOB)])
    await until(lambda: post.counts["sent"] == 2)
    (ann, value), (bob, _) = post.messages
    assert (ann, bob) == (b"ann", b"bob")
    assert unpack(value, 1, SCHEMA, len(NAMES)).items.tolist() == [5, 6]


@posting
async def test_a_broker_that_is_away_costs_examples_and_no_memory_beyond_a_bound(post, caplog):
    post.producer.acknowledges.clear()
    for at in range(1_200):
        post.sender.add([keyed(ANN, at)])
        await asyncio.sleep(0)
    assert post.counts["lost"] > 100
    before = post.counts["lost"]
    post.producer.acknowledges.set()
    await until(lambda: post.counts["sent"] + before == 1_200)


@posting
async def test_an_error_of_the_broker_loses_what_was_being_sent(post, caplog):
    post.producer.away = True
    post.sender.add([keyed(ANN)])
    await until(lambda: post.counts["lost"] == 1)
    post.producer.away = False
    post.sender.add([keyed(ANN)])
    await until(lambda: post.counts["sent"] == 1)


@posting
async def test_without_the_topic_the_worker_says_once_what_to_do_and_goes_on(post, caplog):
    post.there = False
    for at in range(3):
        post.sender.add([keyed(ANN, at)])
        await until(lambda: post.counts["lost"] == at + 1)  # noqa: B023  called in this turn
    await post.sender.erase(["ann"])
    assert post.messages == []
    [line] = [record.getMessage() for record in caplog.records]
    assert "'examples' does not exist" in line
    assert "`anabranch init` creates the topic" in line
    assert post.looks == 1, "it does not ask for every example"


@posting
async def test_without_the_right_to_write_neither_examples_nor_tombstones_are_waited_for(post, caplog):
    post.producer.on_send = post.refuse
    post.sender.add([keyed(ANN)])
    await until(lambda: post.counts["lost"] == 1)
    await asyncio.wait_for(post.sender.erase(["ann"]), 5)
    assert len(caplog.records) == 1


@posting
async def test_a_tombstone_follows_the_users_examples_and_drops_what_is_not_sent(post, caplog):
    post.producer.acknowledges.clear()
    post.sender.add([keyed(ANN, 1)])
    await until(lambda: post.messages)
    post.sender.add([keyed(ANN, 2), keyed(BOB)])
    post.sender.forget([ANN[0]])
    erasing = asyncio.create_task(post.sender.erase(["ann"]))
    await asyncio.sleep(0.02)
    assert not erasing.done()
    post.producer.acknowledges.set()
    await erasing
    await until(lambda: post.counts["sent"] == 2)
    assert [(key, value is None) for key, value in post.messages if key == b"ann"] == [(b"ann", False), (b"ann", True)]


@posting
async def test_a_tombstone_is_sent_again_until_it_is_acknowledged(post, caplog):
    post.there = BrokerUnavailable("away")
    post.producer.away = True
    erasing = asyncio.create_task(post.sender.erase(["ann"]))
    await until(lambda: post.looks > 2)
    post.there = True
    await asyncio.sleep(0.05)
    assert not erasing.done()
    post.producer.away = False
    await erasing
    assert post.messages == [(b"ann", None)]


@posting
async def test_without_the_lease_nothing_is_sent(post, caplog):
    post.lease.held = False
    post.sender.add([keyed(ANN)])
    await until(lambda: post.counts["lost"] == 1)
    with pytest.raises(LeaseLost):
        await post.sender.erase(["ann"])
    assert post.messages == []
