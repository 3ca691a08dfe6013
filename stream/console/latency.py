"""How long it takes from a click to its recommendation, by the times of their records in Kafka.

A recommendation names the newest click that it reflects. A few of the newest recommendations of each partition are
read, and the clicks that they name. Where `clicks` and `recommendations` have the broker's times, one clock counts.
"""

import time
from collections import deque
from collections.abc import Container
from typing import NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream.config import Config
from stream.kafka.connection import consumer_connection
from stream.kafka.exchange import close
from stream.kafka.messages import UNREADABLE, Recommendation
from stream.kafka.topics import partitions_of

SAMPLED, SHOWN = 5, 5
"""Recommendations of a partition that are sampled at a time; those that are kept for a look."""
MAX_PARTITIONS = 16
FETCH_BYTES = 32 << 10
READ_MS, SAMPLE_WITHIN_S = 1_000, 2.0


class Sent(NamedTuple):
    """A recommendation as it was just sent."""

    at_ms: int
    message: Recommendation


class LatencyProbe:
    """Samples with a client of its own: its positions are moved all the time."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._consumer: AIOKafkaConsumer | None = None
        self.newest: deque[Sent] = deque(maxlen=SHOWN)
        """The newest recommendations that were sampled, of different users."""
        self._seen: dict[int, int] = {}
        """The end of each partition of `recommendations` the last time."""

    async def close(self) -> None:
        """Close the client."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await close(consumer)

    async def sample(self, clicks: Container[int]) -> list[float]:
        """Times in ms, of recommendations that were sent since the last time. Raises KafkaError.

        `clicks` are the partitions of `clicks`: a client waits for ever for one that does not exist.
        """
        config = self._config
        if self._consumer is None:
            self._consumer = AIOKafkaConsumer(
                **consumer_connection(config),
                enable_auto_commit=False,
                max_partition_fetch_bytes=FETCH_BYTES,
                fetch_max_wait_ms=50,
            )
            await self._consumer.start()
        consumer, topics = self._consumer, config.topics
        numbers = (await partitions_of(consumer, topics.recommendations))[:MAX_PARTITIONS]
        partitions = [TopicPartition(topics.recommendations, number) for number in numbers]
        ends = await consumer.end_offsets(partitions) if partitions else {}
        sent: list[Sent] = []
        for partition, end in ends.items():
            before = self._seen.get(partition.partition, end)
            self._seen[partition.partition] = end
            if end > before:
                sent += await self._newest(consumer, partition, max(before, end - SAMPLED))
        self._keep(sent)
        until = time.monotonic() + SAMPLE_WITHIN_S
        named = [one for one in sent if one.message.offset >= 0 and one.message.partition in clicks]
        found = [await self._since_click(consumer, one) for one in named if time.monotonic() < until]
        if sent:
            consumer.unsubscribe()  # it fetches ahead of what it is assigned to
        return [ms for ms in found if ms is not None]

    def _keep(self, sent: list[Sent]) -> None:
        for one in sorted(sent, key=lambda one: one.at_ms):
            if one.message.items and one.message.user not in {kept.message.user for kept in self.newest}:
                self.newest.append(one)

    async def _newest(self, consumer: AIOKafkaConsumer, partition: TopicPartition, start: int) -> list[Sent]:
        consumer.assign([partition])
        consumer.seek(partition, start)
        found = []
        for record in (await consumer.getmany(partition, timeout_ms=READ_MS, max_records=SAMPLED)).get(partition, []):
            try:
                message = msgspec.json.decode(record.value or b"", type=Recommendation)
            except UNREADABLE:  # a tombstone
                continue
            found.append(Sent(record.timestamp, message))
        return found

    async def _since_click(self, consumer: AIOKafkaConsumer, sent: Sent) -> float | None:
        clicks = TopicPartition(self._config.topics.clicks, sent.message.partition)
        consumer.assign([clicks])
        consumer.seek(clicks, sent.message.offset)
        records = (await consumer.getmany(clicks, timeout_ms=READ_MS, max_records=1)).get(clicks, [])
        if not records or records[0].offset != sent.message.offset:
            return None
        return float(max(sent.at_ms - records[0].timestamp, 0))
