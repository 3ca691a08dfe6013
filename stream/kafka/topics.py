"""The topics on the broker: creating and checking them, and how far their logs go.

`stream.kafka.shapes` says what each must be like.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidConfigurationError,
    KafkaConnectionError,
    KafkaError,
    NoError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)
from kafka import KafkaAdminClient
from kafka.errors import KafkaError as PythonKafkaError

from stream.config import Config
from stream.errors import BrokerUnavailable, TopicMismatch
from stream.kafka import exchange
from stream.kafka.connection import connection, consumer_connection, reached
from stream.kafka.diagnosis import unavailable
from stream.kafka.shapes import Deviation, FoundTopic, deviations, missing_topics, not_checked, shapes

T = TypeVar("T")

VISIBLE_WITHIN_S, POLL_S = 10.0, 0.1
"""Time to wait for a new topic: Kafka reports it as created before every broker knows it."""

NO_TOPIC_ID = "00000000-0000-0000-0000-000000000000"


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


class Inspection(NamedTuple):
    """What the topics look like to somebody who created none of them."""

    deviations: list[Deviation]
    """The fatal ones first."""
    not_described: list[str]
    """Topics whose settings the broker does not show us; they may deviate too."""

    def warnings(self, config: Config) -> list[str]:
        """What does not stop us: deviations that are not fatal, and what was not checked."""
        found = [deviation.text for deviation in self.deviations if not deviation.fatal]
        return [*found, not_checked(config, self.not_described)] if self.not_described else found


def ensure(config: Config) -> list[TopicState]:
    """Create the topics that are missing, and check all. Raises BrokerUnavailable, TopicMismatch."""
    found = create_missing(config)
    check_shapes(config)
    return found


def create_missing(config: Config) -> list[TopicState]:
    """Create the topics that are missing; change nothing that exists. Raises BrokerUnavailable, TopicMismatch."""

    async def create(admin: AIOKafkaAdminClient) -> list[TopicState]:
        existing = await _partitions(admin)
        clicks = existing.get(config.topics.clicks, config.topics.partitions)
        missing = {name: shape for name, shape in shapes(config).items() if name not in existing}
        made = {name: clicks if shape.like_clicks else 1 for name, shape in missing.items()}
        replication = config.topics.replication
        refused = await _create(admin, made, replication, {n: s.settings(replication) for n, s in missing.items()})
        # A managed Kafka may set the number of replicas in sync by itself, and refuse ours.
        again = {name: made[name] for name, error in refused.items() if error is InvalidConfigurationError}
        refused |= await _create(admin, again, replication, {n: missing[n].settings() for n in again})
        for name, error in refused.items():
            if error not in (NoError, TopicAlreadyExistsError):
                raise TopicMismatch(
                    f"the broker at {config.broker} refused to create the topic {name!r} ({error.__name__}): "
                    f"check topics.replication and the rights in docs/messages.md, and run `anabranch init` again"
                )
        for _ in range(int(VISIBLE_WITHIN_S / POLL_S)):
            if made.keys() <= (await _partitions(admin)).keys():
                break
            await asyncio.sleep(POLL_S)
        return [TopicState(name, (existing | made)[name], name in made) for name in shapes(config)]

    return _with_admin(config, create, "the new topics")


def check(config: Config) -> None:
    """Raise TopicMismatch unless every topic exists with partitions that the workers can use."""
    found = {name: FoundTopic(count) for name, count in _with_admin(config, _partitions).items()}
    refuse(deviations(config, found))


def check_shapes(config: Config) -> None:
    """The same, and their settings as far as the broker shows them to us. Raises TopicMismatch, BrokerUnavailable."""
    refuse(inspect(config).deviations)


def check_existence(config: Config, *topics: str) -> None:
    """Raise TopicMismatch unless these topics exist: a client that names a missing one waits for it for a long time."""
    existing = _with_admin(config, _partitions)
    if missing := [name for name in topics if name not in existing]:
        raise TopicMismatch(missing_topics(config, missing))


def inspect(config: Config) -> Inspection:
    """How the topics differ from what we need. It creates nothing. Raises BrokerUnavailable."""

    async def look(admin: AIOKafkaAdminClient) -> Inspection:
        described = await _described(admin)
        existing = [name for name in shapes(config) if name in described]
        settings = await _settings(admin, existing)
        found = {
            name: FoundTopic(
                len(described[name]),
                min((len(partition["replicas"]) for partition in described[name]), default=0),
                settings.get(name) or {},
            )
            for name in existing
        }
        brokers = len((await admin.describe_cluster())["brokers"])
        return Inspection(
            deviations(config, found, brokers), [name for name, known in settings.items() if known is None]
        )

    return _with_admin(config, look, "the settings of the topics")


def refuse(found: list[Deviation]) -> None:
    """Raise TopicMismatch if any of these is fatal."""
    if fatal := [deviation.text for deviation in found if deviation.fatal]:
        raise TopicMismatch("\n".join(fatal))


def cluster_id(config: Config) -> str:
    """The id of the Kafka cluster. Raises BrokerUnavailable."""

    async def ask(admin: AIOKafkaAdminClient) -> str:
        return str((await admin.describe_cluster()).get("cluster_id") or "unnamed")

    return _with_admin(config, ask, "the id of the cluster")


def group_members(config: Config, group: str) -> list[str]:
    """The hosts of a consumer group's members; none where the broker does not describe it. Raises BrokerUnavailable."""

    async def ask(admin: AIOKafkaAdminClient) -> list[str]:
        try:
            answers = await admin.describe_consumer_groups([group])
        except KafkaError:
            return []
        groups = [found for answer in answers for found in answer.to_object()["groups"]]
        return [member["client_host"].lstrip("/") for found in groups for member in found["members"]]

    return _with_admin(config, ask, f"the members of the group {group!r}")


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
    """The next offset of each partition of a topic; none if it does not exist. Raises BrokerUnavailable."""

    async def ask() -> dict[int, int]:
        consumer = AIOKafkaConsumer(**consumer_connection(config), enable_auto_commit=False)
        try:
            await consumer.start()
            partitions = [TopicPartition(topic, p) for p in await partitions_of(consumer, topic)]
            ends = await consumer.end_offsets(partitions) if partitions else {}
            return {p.partition: end for p, end in ends.items()}
        except (KafkaConnectionError, KafkaError) as error:
            raise await unavailable(config, error) from None
        finally:
            await consumer.stop()

    return exchange.ask(config, f"how far the log of {topic!r} goes", ask())


async def partitions_of(consumer: AIOKafkaConsumer, topic: str) -> list[int]:
    """Partition numbers of a topic now; none if it does not exist. All topics are listed, none is named.

    Raises KafkaConnectionError.
    """
    if not await consumer._client.force_metadata_update():
        raise KafkaConnectionError("no broker answers")
    return sorted(consumer.partitions_for_topic(topic) or ())


async def partitions_or_first(consumer: AIOKafkaConsumer, topic: str) -> list[int]:
    """As `partitions_of`; the first partition where the topic does not exist or no broker answers."""
    try:
        return await partitions_of(consumer, topic) or [0]
    except KafkaConnectionError:
        return [0]


async def _create(
    admin: AIOKafkaAdminClient, partitions: dict[str, int], replication: int, settings: dict[str, dict[str, str]]
) -> dict[str, type[KafkaError]]:
    """Create these topics; the error of each, NoError for one that was created."""
    new = [
        NewTopic(name=name, num_partitions=count, replication_factor=replication, topic_configs=settings[name])
        for name, count in partitions.items()
    ]
    response = await admin.create_topics(new) if new else None
    return {name: for_code(code) for name, code, *_ in response.topic_errors} if response is not None else {}


async def _described(admin: AIOKafkaAdminClient) -> dict[str, list[dict[str, Any]]]:
    """The partitions of every topic that we may see. All are listed: a broker may create a topic that is named."""
    return {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}


async def _partitions(admin: AIOKafkaAdminClient) -> dict[str, int]:
    return {name: len(partitions) for name, partitions in (await _described(admin)).items()}


async def _settings(admin: AIOKafkaAdminClient, topics: list[str]) -> dict[str, dict[str, str] | None]:
    """Kafka's settings of topics; None for one whose settings the broker refuses to describe to us."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics]
    try:
        answers = await admin.describe_configs(resources) if resources else []
    except KafkaError:  # an old broker, or one that is no Kafka
        return dict.fromkeys(topics)
    found = {r["resource_name"]: r for answer in answers for r in answer.to_object()["resources"]}
    return {
        name: None
        if for_code(resource["error_code"]) in (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)
        else {entry["config_names"]: entry["config_value"] or "" for entry in resource["config_entries"]}
        for name, resource in found.items()
    }


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
