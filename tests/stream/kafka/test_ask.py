"""Asking the workers through Kafka, from any process."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from stream.config import Config
from stream.errors import BrokerUnavailable, TopicMismatch
from stream.kafka.ask import NotAnswered, RequestClient
from stream.kafka.connection import connection, consumer_connection
from stream.kafka.documents import Document
from stream.kafka.messages import Reply, Request
from tests.conftest import with_topics

pytestmark = pytest.mark.broker

RECOMMENDED = {
    "user": "ann", "items": [], "model": None, "model_age_s": None, "source": "popularity", "event_ts": None,
    "emitted_ts": 1, "partition": 0, "offset": 0, "status": "ok",
}  # fmt: skip
Answer = Callable[[int, dict[str, Any]], Any]


@contextlib.asynccontextmanager
async def workers(config: Config, answer: Answer):
    """Stands in for the workers: each request is answered with what `answer(partition, request)` returns."""
    consumer = AIOKafkaConsumer(**consumer_connection(config))
    producer = AIOKafkaProducer(**connection(config), metadata_max_age_ms=200)
    await consumer.start()
    await producer.start()
    partitions = [TopicPartition(config.topics.requests, n) for n in range(2)]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)

    async def serve() -> None:
        async for record in consumer:
            request = json.loads(record.value)
            value = answer(record.partition, request)
            if value is not None:
                value = value if isinstance(value, bytes) else json.dumps(value | {"id": request["id"]}).encode()
                await producer.send(config.topics.replies, value, key=request["id"].encode())

    serving = asyncio.create_task(serve())
    yield
    serving.cancel()
    await asyncio.wait([serving])
    await consumer.stop()
    await producer.stop()


def asking(config: Config, answer: Answer, scenario) -> None:
    async def run() -> None:
        client = RequestClient(config)
        await client.start()
        try:
            async with workers(config, answer):
                await scenario(client)
        finally:
            await client.stop()

    asyncio.run(run())


def test_each_answer_goes_to_who_asked(config):
    def answer(partition: int, request: dict[str, Any]) -> Any:
        if request.get("want") == "popular":
            return {"want": "popular", "partition": partition, "emitted_ts": 1, "popular": []}
        return RECOMMENDED | {"user": request["user"], "partition": partition}

    async def scenario(client: RequestClient) -> None:
        users = [f"user-{n}" for n in range(20)]
        replies = await asyncio.gather(*(client.ask(Request(user=user), 20) for user in users))
        assert [reply.user for reply in replies if isinstance(reply, Reply)] == users
        assert [reply.partition for reply in replies] == [client.partition_of(user) for user in users]
        everywhere = await client.ask_all(Request(want="popular"), 20)
        assert list(everywhere.documents) == [0, 1]
        assert not everywhere.missing

    asking(config, answer, scenario)


def test_who_gets_no_answer_learns_why(config):
    answers: dict[str, Any] = {
        "refused": RECOMMENDED | {"status": "too many"},
        "junk": b"no JSON",
        "old": RECOMMENDED,
        "silent": None,
        "keyless": {"want": "user", "partition": 0, "emitted_ts": 1, "status": "refused"},
    }

    def answer(partition: int, request: dict[str, Any]) -> Any:
        return answers[request["user"]] if partition == client_partition[request["user"]] else None

    client_partition: dict[str, int] = {}

    async def scenario(client: RequestClient) -> None:
        client_partition.update({user: client.partition_of(user) for user in answers})
        with pytest.raises(NotAnswered, match="replied 'too many'"):
            await client.ask(Request(user="refused"), 20)
        for user in ("junk", "old"):
            with pytest.raises(NotAnswered, match="older version"):
                await client.ask(Request(user=user, want="user"), 20)
        with pytest.raises(NotAnswered, match="set the same key here"):
            await client.ask(Request(user="keyless", want="user"), 20)
        with pytest.raises(NotAnswered, match=r"no worker answered for partition \d within 0\.2 s"):
            await client.ask(Request(user="silent"), 0.2)
        everywhere = await client.ask_all(Request(user="silent", want="user"), 0.2)
        assert list(everywhere.missing) == [0, 1]
        waiting = asyncio.create_task(client.ask(Request(user="silent"), 60))
        await asyncio.sleep(0.1)
        await client.stop()
        with pytest.raises(NotAnswered, match="was stopped"):
            await waiting

    asking(config, answer, scenario)


def test_a_client_says_what_it_cannot_reach(config, tmp_path):
    async def start(config: Config) -> None:
        await RequestClient(config).start()

    with pytest.raises(BrokerUnavailable):
        asyncio.run(start(msgspec.structs.replace(config, broker="127.0.0.1:1")))
    topics = msgspec.structs.replace(config.topics, replies="no-such-topic")
    with pytest.raises(TopicMismatch, match="no-such-topic"):
        asyncio.run(start(msgspec.structs.replace(config, topics=topics)))


def test_more_requests_than_can_wait_are_refused_at_once(tmp_path, broker, monkeypatch):
    monkeypatch.setattr("stream.kafka.ask.MAX_WAITING", 3)
    config = with_topics(broker, tmp_path / "data")

    async def scenario(client: RequestClient) -> None:
        asked = [client.ask(Request(user=f"user-{n}"), 1) for n in range(5)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert sum("ask again later" in str(outcome) for outcome in outcomes) == 2

    asking(config, lambda partition, request: None, scenario)


def test_replies_are_read_from_partitions_that_the_topic_gets_later(tmp_path, broker, monkeypatch):
    monkeypatch.setattr("stream.kafka.ask.LOOK_EVERY_MS", 200)
    config = with_topics(broker, tmp_path / "data")

    async def make_again() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker)
        await admin.start()
        await admin.delete_topics([config.topics.replies])
        await admin.create_topics([NewTopic(config.topics.replies, 8, 1)])
        await admin.close()

    async def scenario(client: RequestClient) -> None:
        await client.ask(Request(user="ann"), 20)
        await make_again()
        for _ in range(20):
            asked = [client.ask(Request(user="ann"), 0.5) for _ in range(20)]
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            if not any(isinstance(outcome, Exception) for outcome in outcomes):
                return
        raise AssertionError(outcomes)

    asking(config, lambda partition, request: RECOMMENDED, scenario)


def test_a_document_has_only_what_was_wanted():
    document = Document(id=1, want="popular", partition=0, emitted_ts=1, popular=[])
    assert msgspec.json.encode(document) == b'{"id":1,"want":"popular","partition":0,"emitted_ts":1,"popular":[]}'
