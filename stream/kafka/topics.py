"""The topics: what shape each has, which are missing, what they hold."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError, for_code
from kafka import KafkaAdminClient
from kafka.errors import KafkaError as PythonKafkaError

from stream.config import Config
from stream.errors import BrokerUnavailable, TopicMismatch
from stream.kafka.connection import connection, reached
from stream.kafka.diagnosis import unavailable

T = TypeVar("T")

KNOWN_WITHIN_S, LOOK_EVERY_S = 10.0, 0.1

NO_TOPIC_ID = "00000000-0000-0000-0000-000000000000"


class Shape(NamedTuple):
    """A topic as `anabranch init` makes it."""

    name: str
    like_clicks: bool
    """As many partitions as `clicks`; else one."""
    compacted: bool


class Log(NamedTuple):
    """One partition of a topic, as its cluster has it now: offsets begin <= offset < end."""

    cluster: str
    topic_id: str
    """Another one when the topic was deleted and made again; empty where the broker has none."""
    partitions: int
    begin: int
    end: int


class Found(NamedTuple):
    """A topic as it is now."""

    name: str
    partitions: int
    created: bool


def shapes(config: Config) -> list[Shape]:
    """All topics, in the order they are told of."""
    topics = config.topics
    return [
        Shape(topics.clicks, True, False),
        Shape(topics.recommendations, True, True),
        Shape(topics.dead_letters, False, False),
        Shape(topics.items, False, True),
        Shape(topics.models, False, True),
        Shape(topics.requests, True, False),
        Shape(topics.replies, False, False),
        Shape(topics.commands, False, False),
        Shape(topics.command_replies, False, False),
    ]


def ensure(config: Config) -> list[Found]:
    """Create the topics that are missing; change nothing that exists. Raises BrokerUnavailable, TopicMismatch."""

    async def create(admin: AIOKafkaAdminClient) -> list[Found]:
        existing = await _partitions(admin)
        clicks = existing.get(config.topics.clicks, config.topics.partitions)
        missing = [s for s in shapes(config) if s.name not in existing]
        response = await admin.create_topics(
            [
                NewTopic(
                    name=s.name,
                    num_partitions=clicks if s.like_clicks else 1,
                    replication_factor=config.topics.replication,
                    topic_configs=_policies(config, s),
                )
                for s in missing
            ]
        )
        for name, code, *_ in response.topic_errors if missing else []:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise TopicMismatch(f"the broker would not create the topic {name!r}: {error.__name__}")
        made = {s.name: clicks if s.like_clicks else 1 for s in missing}
        # Kafka says that a topic is created before every broker knows of it.
        for _ in range(int(KNOWN_WITHIN_S / LOOK_EVERY_S)):
            if made.keys() <= (await _partitions(admin)).keys():
                break
            await asyncio.sleep(LOOK_EVERY_S)
        return [Found(s.name, existing.get(s.name, made.get(s.name, 0)), s.name in made) for s in shapes(config)]

    found = _with_admin(config, create)
    _agree(config, {f.name: f.partitions for f in found})
    return found


def _policies(config: Config, shape: Shape) -> dict[str, str]:
    if shape.compacted:
        return {"cleanup.policy": "compact"}
    # Else a record's time is its producer's word, and one whose clock is years ahead lets all others' events expire.
    return {"message.timestamp.type": "LogAppendTime"} if shape.name == config.topics.clicks else {}


def check(config: Config) -> None:
    """Raise TopicMismatch unless every topic exists in a shape the workers can use."""
    existing = _with_admin(config, _partitions)
    missing = [s.name for s in shapes(config) if s.name not in existing]
    if missing:
        raise TopicMismatch(
            f"the broker at {config.broker} has no topic {', '.join(map(repr, missing))}: run `anabranch init`"
        )
    _agree(config, existing)


def cluster_id(config: Config) -> str:
    """What the cluster calls itself. Raises BrokerUnavailable."""

    async def ask(admin: AIOKafkaAdminClient) -> str:
        return str((await admin.describe_cluster()).get("cluster_id") or "unnamed")

    return _with_admin(config, ask)


def topic_id(config: Config, topic: str) -> str:
    """What the cluster calls this topic and no other of the same name; empty where it cannot be known.

    aiokafka asks for metadata of a version before topics had ids; kafka-python does not. Raises BrokerUnavailable.
    """
    if not reached(config):  # a client that fails to begin leaves a thread and its sockets behind
        raise BrokerUnavailable(f"no Kafka broker answers at {config.broker}")
    try:
        admin = KafkaAdminClient(**connection(config))
        try:
            [described] = admin.describe_topics([topic])
        finally:
            admin.close()
    except PythonKafkaError as error:
        raise asyncio.run(unavailable(config, error)) from None
    known = described.get("topic_id")
    return str(known) if known and str(known) != NO_TOPIC_ID else ""


def log_ends(config: Config, topic: str) -> dict[int, int]:
    """The next offset of each partition of a topic. Raises BrokerUnavailable."""

    async def ask() -> dict[int, int]:
        consumer = AIOKafkaConsumer(**connection(config), enable_auto_commit=False)
        try:
            await consumer.start()
            await consumer._client.force_metadata_update()
            partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
            return {p.partition: end for p, end in (await consumer.end_offsets(partitions)).items()}
        except (KafkaConnectionError, KafkaError) as error:
            raise await unavailable(config, error) from None
        finally:
            await consumer.stop()

    return asyncio.run(ask())


async def _partitions(admin: AIOKafkaAdminClient) -> dict[str, int]:
    described = await admin.describe_topics()
    return {t["topic"]: len(t["partitions"]) for t in described}


def _agree(config: Config, partitions: dict[str, int]) -> None:
    topics = config.topics
    clicks = partitions[topics.clicks]
    if partitions[topics.requests] != clicks:
        raise TopicMismatch(
            f"{topics.clicks!r} has {clicks} partitions, {topics.requests!r} has {partitions[topics.requests]}: a "
            f"user's requests would reach a worker without the user's state. Delete {topics.requests!r} and run "
            f"`anabranch init`, or give it {clicks} partitions"
        )


def _with_admin(config: Config, ask: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
    async def run() -> T:
        admin = AIOKafkaAdminClient(**connection(config))
        try:
            await admin.start()
            return await ask(admin)
        except (KafkaConnectionError, KafkaError) as error:
            raise await unavailable(config, error) from None
        finally:
            await admin.close()

    return asyncio.run(run())
