"""The installation's id key in the topic `models`: a record under a key of its own, which compaction keeps.

The first record stands until a later one names it as replaced, which only an operator's command writes. So of two
`init`s that run at once the one whose record comes first makes the key, and both find it there.
"""

import asyncio
from collections.abc import Iterable
from typing import Annotated, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError

from state.id_hash import KEY_PATTERN, IdHash
from stream.config import Config
from stream.kafka.connection import connection
from stream.kafka.diagnosis import unavailable
from stream.kafka.messages import UNREADABLE, encode
from stream.kafka.pointers import consumer_partitions, decode_pointer

RECORD_KEY = b"id-key"


class IdKey(msgspec.Struct, frozen=True):
    """Topic `models`, under the key `id-key`: the secret with which ids are hashed."""

    id_key: Annotated[str, msgspec.Meta(pattern=KEY_PATTERN)]
    """Empty: the installation is from before the key, and its ids are hashed without one."""
    replaces: list[str] = []
    """Fingerprints of the keys before; empty text where ids had none. Stores of these are built again."""

    @property
    def ids(self) -> IdHash:
        """The hash with this key."""
        return IdHash(self.id_key)

    def __repr__(self) -> str:
        return f"IdKey({self.ids!r}, replaces={self.replaces})"


class Found(NamedTuple):
    """What the topic `models` has."""

    record: IdKey | None = None
    """The record that stands."""
    repeat: bool = False
    """A later record does not stand. The one that does must be sent again, or compaction removes it."""
    has_versions: bool = False
    """Whether a pointer names a version: the installation has run."""


def standing(values: Iterable[bytes | None]) -> Found:
    """Which of the id key's records stands, in their order in the topic. A tombstone removes it."""
    found = Found()
    for value in values:
        record = _decode(value)
        if value is None:
            found = Found()
        elif record is not None:
            now = found.record
            if now is None or now.ids.fingerprint in record.replaces or now == record:
                found = Found(record)
            else:
                found = Found(now, repeat=True)
    return found


async def find_record(config: Config) -> Found:
    """Read the topic `models` up to its end now. Raises BrokerUnavailable."""
    consumer = AIOKafkaConsumer(**connection(config), enable_auto_commit=False, fetch_max_wait_ms=50)
    try:
        await consumer.start()
        topic = config.topics.models
        partitions = [TopicPartition(topic, p) for p in await consumer_partitions(consumer, topic)]
        if not consumer.partitions_for_topic(topic):
            return Found()
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        values, has_versions = [], False
        while any([await consumer.position(p) < ends[p] for p in partitions]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    if record.key == RECORD_KEY:
                        values.append(record.value)
                    has_versions = has_versions or decode_pointer(record.value) is not None
        return standing(values)._replace(has_versions=has_versions)
    except (KafkaConnectionError, KafkaError) as error:
        raise await unavailable(config, error) from None
    finally:
        await consumer.stop()


async def publish_record(config: Config, record: IdKey) -> Found:
    """Send a record, and read which one stands then. Raises BrokerUnavailable."""
    producer = AIOKafkaProducer(**connection(config), acks="all")
    try:
        await producer.start()
        await producer.send_and_wait(config.topics.models, encode(record), key=RECORD_KEY)
    except (KafkaConnectionError, KafkaError) as error:
        raise await unavailable(config, error) from None
    finally:
        await producer.stop()
    return await find_record(config)


def read_record(config: Config) -> Found:
    """As `find_record`, outside an event loop."""
    return asyncio.run(find_record(config))


def _decode(value: bytes | None) -> IdKey | None:
    try:
        return msgspec.json.decode(value, type=IdKey) if value else None
    except UNREADABLE:
        return None
