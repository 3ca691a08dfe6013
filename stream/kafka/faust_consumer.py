"""Faust's consumer, reading as all of ours do: committed records only, and around a batch that cannot be read.

Faust has no setting for either. With its own consumer one such batch in `models` or `commands` ends the worker.
"""

from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport

from stream.kafka.connection import READ_COMMITTED
from stream.kafka.reader import Reader


class _Thread(AIOKafkaConsumerThread):
    _reader: Reader

    def _create_consumer(self, *arguments: Any, **options: Any) -> AIOKafkaConsumer:
        consumer = super()._create_consumer(*arguments, **options)
        consumer._isolation_level = READ_COMMITTED  # it is read when the consumer starts
        self._reader = Reader(consumer)
        return consumer

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: "set[TopicPartition] | None",
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> dict[TopicPartition, list[Any]]:
        if not self.consumer.flow_active:
            return {}
        wait_ms = int((timeout or 0.0) * 1000)
        partitions = [TopicPartition(*partition) for partition in active_partitions or ()]
        polled = await self._reader.poll(*partitions, timeout_ms=wait_ms, max_records=max_records)
        return polled.records


class _Consumer(Consumer):
    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)


class CommittedTransport(Transport):
    """Faust's way to Kafka, with this consumer. It becomes the `transport` of an app."""

    Consumer = _Consumer
