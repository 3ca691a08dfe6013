"""Follows the topics that fallbacks come from: users' last recommendations, and items that are withdrawn."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream.config import Config
from stream.kafka.click_values import Invalid
from stream.kafka.connection import consumer_connection
from stream.kafka.diagnosis import unavailable
from stream.kafka.exchange import close, within
from stream.kafka.rarely import Rarely
from stream.kafka.reader import Reader
from stream.kafka.topics import partitions_of
from stream.kafka.withdrawals import withdrawal_of
from stream.serve.last_recommendations import LastRecommendations

log = logging.getLogger("anabranch.serve")

TAIL_RECORDS = 50_000
"""Newest records of `recommendations` that are read at the start, of all partitions together."""
POLL_MS, POLL_RECORDS = 500, 1_000
AGAIN_S = 2.0


class Follower:
    """Reads both topics in a task: `recommendations` from near its end, `items` from its beginning."""

    def __init__(self, config: Config) -> None:
        self._config, self._rarely, self._ending = config, Rarely(), False
        self.last = LastRecommendations(config.serve.last_bytes)
        self.withdrawn: set[str] = set()
        self.caught_up = asyncio.Event()
        """Set once what the topics held at the start has been read."""
        self._positions: dict[TopicPartition, int] = {}
        """Where to go on after a failure."""
        self._ends: dict[TopicPartition, int] = {}

    def end(self) -> None:
        """Follow no longer: the Kafka client can swallow the cancellation of `run`."""
        self._ending = True

    async def run(self) -> None:
        """Follow, until `end`."""
        while not self._ending:
            config = self._config
            consumer = AIOKafkaConsumer(**consumer_connection(config), enable_auto_commit=False)
            try:
                await within(config, "the recommendations", self._begin(consumer))
                await self._follow(consumer)
            except Exception as error:
                if self._rarely.may_log():
                    why = await unavailable(config, error) if isinstance(error, KafkaError | OSError) else error
                    log.warning("last recommendations are not followed for now: %s", why)
            finally:
                await close(consumer)
            await asyncio.sleep(AGAIN_S)

    async def _begin(self, consumer: AIOKafkaConsumer) -> None:
        await consumer.start()
        topics = self._config.topics
        partitions = [
            TopicPartition(topic, number)
            for topic in (topics.recommendations, topics.items)
            for number in await partitions_of(consumer, topic)
        ]
        consumer.assign(partitions)
        begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        tail = TAIL_RECORDS // max(sum(p.topic == topics.recommendations for p in partitions), 1)
        for partition in partitions:
            first = begins[partition]
            if partition.topic == topics.recommendations:
                first = max(first, ends[partition] - tail)
            if not begins[partition] <= self._positions.get(partition, -1) <= ends[partition]:
                self._positions[partition] = first
            consumer.seek(partition, self._positions[partition])
        self._ends = ends

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        reader = Reader(consumer)
        while not self._ending:
            polled = await reader.poll(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
            for partition, records in polled.records.items():
                self._take(partition, records)
            if not self.caught_up.is_set():
                await self._look_whether_caught_up(consumer)

    def _take(self, partition: TopicPartition, records: Sequence[Any]) -> None:
        if partition.topic == self._config.topics.items:
            for record in records:
                self._withdraw(record)
        else:
            for record in records:
                self.last.update(record.key, record.value)
        self._positions[partition] = records[-1].offset + 1

    def _withdraw(self, record: Any) -> None:
        try:
            withdrawal = withdrawal_of(record)
        except Invalid:
            return  # workers log it
        if withdrawal is not None:
            (self.withdrawn.add if withdrawal.withdrawn else self.withdrawn.discard)(str(withdrawal.item))

    async def _look_whether_caught_up(self, consumer: AIOKafkaConsumer) -> None:
        # Compaction removes records, so only the position says what has been read.
        positions = {partition: await consumer.position(partition) for partition in self._ends}
        if all(position >= self._ends[partition] for partition, position in positions.items()):
            self.caught_up.set()
