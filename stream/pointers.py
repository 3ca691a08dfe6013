"""The compacted `models` topic: which version is the champion. The newest `moved_ts` wins, whatever arrives when."""

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream.config import Config
from stream.messages import Pointer

MODEL_NAME = "create"


async def read_champion(config: Config) -> Pointer | None:
    """The pointer as the topic has it now, read without a group; None before the first version."""
    consumer = AIOKafkaConsumer(bootstrap_servers=config.broker, enable_auto_commit=False)
    await consumer.start()
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
        return champion
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
