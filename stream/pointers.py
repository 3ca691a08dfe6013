"""The compacted `models` topic: which version is the champion. The newest `moved_ts` wins, whatever arrives when."""

import time
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError

from model.versions import list_versions, manifest_sha256
from stream.config import Config
from stream.errors import AnabranchError
from stream.messages import Pointer
from stream.topics import unavailable

MODEL_NAME = "create"


async def read_champion(config: Config) -> Pointer | None:
    """The pointer as the topic has it now, read without a group; None before the first version.

    Where the topic has none (an embedded broker forgets its topics), the one this data directory last followed.
    Raises BrokerUnavailable.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=config.broker, enable_auto_commit=False)
    try:
        await consumer.start()
    except (KafkaConnectionError, KafkaError) as error:
        await consumer.stop()
        raise unavailable(config.broker, error) from None
    try:
        topic = config.topics.models
        partitions = [TopicPartition(topic, p) for p in await consumer_partitions(consumer, topic)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        champion: Pointer | None = None
        while any([await consumer.position(p) < ends[p] for p in partitions]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    champion = newer(champion, decode_pointer(record.value))
        return champion or remembered(config.data)
    finally:
        await consumer.stop()


async def consumer_partitions(consumer: AIOKafkaConsumer, topic: str) -> list[int]:
    """Partition numbers of a topic the consumer is not subscribed to."""
    await consumer._client.force_metadata_update()
    found = consumer.partitions_for_topic(topic) or {0}
    return sorted(found)


def decode_pointer(value: bytes | None) -> Pointer | None:
    """A pointer from the wire; None for a tombstone or anything that is no pointer."""
    try:
        return msgspec.json.decode(value, type=Pointer) if value else None
    except msgspec.MsgspecError:
        return None


def newer(current: Pointer | None, arrived: Pointer | None) -> Pointer | None:
    """The pointer to follow; a re-delivered older one changes nothing."""
    if arrived is None or (current is not None and arrived.moved_ts <= current.moved_ts):
        return current
    return arrived


def remember(data: Path, pointer: Pointer) -> None:
    """Keep the pointer beside the state, for inspection where no broker answers."""
    temporary = data / "champion.json.new"
    temporary.write_bytes(msgspec.json.encode(pointer))
    temporary.rename(data / "champion.json")


def remembered(data: Path) -> Pointer | None:
    """The pointer this data directory's worker last followed."""
    try:
        return decode_pointer((data / "champion.json").read_bytes())
    except OSError:
        return None


async def move(config: Config, champion: Pointer | None, version: str | None) -> Pointer:
    """Point at another version (None: the champion's parent) and publish that. Raises AnabranchError."""
    versions = {m.version: m for m in list_versions(config.artifacts_url, MODEL_NAME)}
    if version is None:
        serving = versions.get(champion.version) if champion else None
        if serving is None or serving.parent is None:
            raise AnabranchError("there is no version before the serving one: `anabranch models` lists what there is")
        version = serving.parent
    if version not in versions:
        raise AnabranchError(f"there is no version {version!r} to serve: `anabranch models` lists what there is")
    pointer = Pointer(
        MODEL_NAME,
        version,
        config.artifacts_url,
        manifest_sha256(config.artifacts_url, MODEL_NAME, version),
        time.time_ns() // 1_000_000,
    )
    producer = AIOKafkaProducer(bootstrap_servers=config.broker, acks="all")
    try:
        await producer.start()
        await producer.send_and_wait(config.topics.models, msgspec.json.encode(pointer), key=MODEL_NAME.encode())
    except (KafkaConnectionError, KafkaError) as error:
        raise unavailable(config.broker, error) from None
    finally:
        await producer.stop()
    return pointer
