"""Follow a topic from a plain loop: `anabranch watch`."""

import asyncio
from collections.abc import Callable, Generator
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream.config import Config
from stream.kafka.connection import consumer_connection
from stream.kafka.exchange import close, within
from stream.kafka.reader import Reader
from stream.kafka.topics import partitions_or_first

POLL_MS = 500


def follow(
    config: Config, topic: str, *, from_start: bool, ended: Callable[[], bool] = lambda: False
) -> Generator[Any, None, None]:
    """Every record of a topic as it comes, until `ended`; those that are there already with `from_start`."""
    with asyncio.Runner() as loop:
        beginning = within(config, f"a connection to read {topic!r}", _assigned(config, topic, from_start))
        consumer = loop.run(beginning)
        reader = Reader(consumer)
        try:
            while not ended():
                for records in loop.run(reader.poll(timeout_ms=POLL_MS)).records.values():
                    yield from records
        finally:
            loop.run(close(consumer))


async def _assigned(config: Config, topic: str, from_start: bool) -> AIOKafkaConsumer:
    consumer = AIOKafkaConsumer(**consumer_connection(config), enable_auto_commit=False)
    try:
        return await _seek(consumer, topic, from_start)
    except BaseException:
        await close(consumer)
        raise


async def _seek(consumer: AIOKafkaConsumer, topic: str, from_start: bool) -> AIOKafkaConsumer:
    await consumer.start()
    partitions = [TopicPartition(topic, number) for number in await partitions_or_first(consumer, topic)]
    consumer.assign(partitions)
    await (consumer.seek_to_beginning if from_start else consumer.seek_to_end)(*partitions)
    for partition in partitions:  # nothing that comes after `watch` has begun is missed
        await consumer.position(partition)
    return consumer
