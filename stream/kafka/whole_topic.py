"""Reads a small topic from its beginning to the end that it has now, without a consumer group."""

from collections.abc import AsyncIterator
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream.config import Config
from stream.kafka.connection import consumer_connection
from stream.kafka.reader import Reader
from stream.kafka.topics import partitions_of


async def records_of(config: Config, topic: str) -> AsyncIterator[Any]:
    """Every record of a topic, in the order of each partition; none if there is no such topic. Raises KafkaError."""
    # A fetch that waits for more records blocks every later request on its connection.
    consumer = AIOKafkaConsumer(**consumer_connection(config), enable_auto_commit=False, fetch_max_wait_ms=50)
    try:
        await consumer.start()
        partitions = [TopicPartition(topic, number) for number in await partitions_of(consumer, topic)]
        if not partitions:
            return
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends, reader = await consumer.end_offsets(partitions), Reader(consumer)
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            for records in (await reader.poll(timeout_ms=200)).records.values():
                for record in records:
                    yield record
    finally:
        await consumer.stop()
