"""The topics: the shape of each (`SHAPES`), creating and checking them, and how far their logs go."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError, for_code
from kafka import KafkaAdminClient
from kafka.errors import KafkaError as PythonKafkaError

from stream.config import Config
from stream.errors import BrokerUnavailable, TopicMismatch
from stream.kafka import exchange
from stream.kafka.connection import connection, consumer_connection, reached
from stream.kafka.diagnosis import unavailable

T = TypeVar("T")

VISIBLE_WITHIN_S, POLL_S = 10.0, 0.1
"""Time to wait for a new topic: Kafka reports it as created before every broker knows it."""

NO_TOPIC_ID = "00000000-0000-0000-0000-000000000000"


class Shape(NamedTuple):
    """A topic as `anabranch init` creates it."""

    like_clicks: bool = False
    """As many partitions as `clicks`; else one."""
    policies: dict[str, str] = {}  # noqa: RUF012  never changed
    """Kafka's settings of the topic."""


COMPACTED_CONFIG = {"cleanup.policy": "compact"}
BROKER_TIME_CONFIG = {"message.timestamp.type": "LogAppendTime"}
"""The broker sets the time of records. A producer whose clock is years ahead would make all users' events expire."""

SHAPES = {
    "clicks": Shape(like_clicks=True, policies=BROKER_TIME_CONFIG),
    "recommendations": Shape(like_clicks=True, policies=COMPACTED_CONFIG),
    "dead_letters": Shape(),
    "items": Shape(policies=COMPACTED_CONFIG),
    "models": Shape(policies=COMPACTED_CONFIG),
    "requests": Shape(like_clicks=True),
    "replies": Shape(),
    "commands": Shape(),
    "command_replies": Shape(),
}
"""By the field of `TopicSettings` that has the topic's name; `anabranch init` lists them in this order."""


class Log(NamedTuple):
    """The log of one partition: its offsets are begin <= offset < end."""

    cluster: str
    topic_id: str
    """The topic's id. It changes when the topic is deleted and created again; empty if the broker has no topic ids."""
    partitions: int
    begin: int
    end: int
    unstable: int = 0
    """Offsets before the end that nobody can read yet: of an open transaction, or behind its first record."""

    @property
    def stable_end(self) -> int:
        """The last stable offset: records before it can be read."""
        return self.end - self.unstable


class TopicState(msgspec.Struct, frozen=True):
    """A topic after `ensure`."""

    name: str
    partitions: int
    created: bool


def shapes(config: Config) -> dict[str, Shape]:
    """The shape of each topic by the topic's name."""
    return {getattr(config.topics, field): shape for field, shape in SHAPES.items()}


def ensure(config: Config) -> list[TopicState]:
    """Create the topics that are missing; change nothing that exists. Raises BrokerUnavailable, TopicMismatch."""

    async def create(admin: AIOKafkaAdminClient) -> list[TopicState]:
        existing = await _partitions(admin)
        clicks = existing.get(config.topics.clicks, config.topics.partitions)
        missing = {name: shape for name, shape in shapes(config).items() if name not in existing}
        made = {name: clicks if shape.like_clicks else 1 for name, shape in missing.items()}
        response = await admin.create_topics(
            [
                NewTopic(
                    name=name,
                    num_partitions=made[name],
                    replication_factor=config.topics.replication,
                    topic_configs=shape.policies,
                )
                for name, shape in missing.items()
            ]
        )
        for name, code, *_ in response.topic_errors if missing else []:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise TopicMismatch(
                    f"the broker at {config.broker} refused to create the topic {name!r} ({error.__name__}): "
                    f"check topics.replication and the rights in docs/messages.md, and run `anabranch init` again"
                )
        for _ in range(int(VISIBLE_WITHIN_S / POLL_S)):
            if made.keys() <= (await _partitions(admin)).keys():
                break
            await asyncio.sleep(POLL_S)
        return [TopicState(name, (existing | made)[name], name in made) for name in shapes(config)]

    found = _with_admin(config, create, "the new topics")
    _check_partitions(config, {f.name: f.partitions for f in found})
    return found


def check(config: Config) -> None:
    """Raise TopicMismatch unless every topic exists with partitions that the workers can use."""
    existing = _with_admin(config, _partitions)
    missing = [name for name in shapes(config) if name not in existing]
    if missing:
        raise TopicMismatch(
            f"the broker at {config.broker} has no topic {', '.join(map(repr, missing))}: run `anabranch init`"
        )
    _check_partitions(config, existing)


def cluster_id(config: Config) -> str:
    """The id of the Kafka cluster. Raises BrokerUnavailable."""

    async def ask(admin: AIOKafkaAdminClient) -> str:
        return str((await admin.describe_cluster()).get("cluster_id") or "unnamed")

    return _with_admin(config, ask, "the id of the cluster")


def topic_id(config: Config, topic: str) -> str:
    """The id of this topic, which a later topic of the same name does not get; empty if the broker has none.

    kafka-python is used: aiokafka requests metadata of a version without topic ids. Raises BrokerUnavailable.
    """
    if not reached(config):  # a client that fails to start leaves a thread and its sockets behind
        raise BrokerUnavailable(f"no Kafka broker answers at {config.broker}: is it running, is --broker right?")
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
        consumer = AIOKafkaConsumer(**consumer_connection(config), enable_auto_commit=False)
        try:
            await consumer.start()
            if not await consumer._client.force_metadata_update():
                raise KafkaConnectionError("no broker answers")
            partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
            return {p.partition: end for p, end in (await consumer.end_offsets(partitions)).items()}
        except (KafkaConnectionError, KafkaError) as error:
            raise await unavailable(config, error) from None
        finally:
            await consumer.stop()

    return exchange.ask(config, f"how far the log of {topic!r} goes", ask())


async def _partitions(admin: AIOKafkaAdminClient) -> dict[str, int]:
    described = await admin.describe_topics()
    return {t["topic"]: len(t["partitions"]) for t in described}


def _check_partitions(config: Config, partitions: dict[str, int]) -> None:
    topics = config.topics
    clicks = partitions[topics.clicks]
    if partitions[topics.requests] != clicks:
        raise TopicMismatch(
            f"{topics.clicks!r} has {clicks} partitions, {topics.requests!r} has {partitions[topics.requests]}: a "
            f"user's requests would reach a worker that does not have the user's state. Delete {topics.requests!r} and "
            f"run `anabranch init`, or give it {clicks} partitions"
        )


def _with_admin(
    config: Config, ask: Callable[[AIOKafkaAdminClient], Awaitable[T]], waiting_for: str = "the list of topics"
) -> T:
    async def run() -> T:
        admin = AIOKafkaAdminClient(**connection(config))
        try:
            await admin.start()
            return await ask(admin)
        except (KafkaConnectionError, KafkaError) as error:
            raise await unavailable(config, error) from None
        finally:
            await admin.close()

    return exchange.ask(config, waiting_for, run())
