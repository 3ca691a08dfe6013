"""Whether polled records follow what a store has: the log can go back, or lose its beginning to retention."""

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition

from state.store import Store
from stream.config import Config
from stream.kafka.decode import Record
from stream.stores.assignment import Assignment
from stream.stores.partition_stores import skip_deleted

READ_AGAIN_S = 0.1
"""Pause before records are polled again, because the lease has run out or a store is opened again."""
MAX_BROKER_OFFSETS = 1
"""Offsets in a row without an event that are normal: the end of a transaction takes one. Where more are missing, the
broker is asked where the log begins."""


class LogPosition:
    """Keeps the consumer's position and the stores' offsets together."""

    def __init__(self, config: Config, consumer: AIOKafkaConsumer, assignment: Assignment) -> None:
        self._config, self._consumer, self._assignment = config, consumer, assignment

    async def follows(self, store: Store, partition: TopicPartition, records: Sequence[Record]) -> bool:
        """Whether the records can be applied; if the log went back, their store is opened again. Raises KafkaError."""
        number, first = partition.partition, records[0]
        offset = store.progress.logical(first.offset)
        if offset < store.progress.next_offset:
            self._assignment.reopen_soon(number, f"the log went back to offset {first.offset}")
            return False
        if offset > store.progress.next_offset + MAX_BROKER_OFFSETS:
            begin = (await self._consumer.beginning_offsets([partition]))[partition]
            if store.progress.logical(begin) > store.progress.next_offset:
                skip_deleted(store, number, first.offset, self._config)
        return True

    async def read_again(self, partition: TopicPartition) -> None:
        """Poll again from the store's offset, after a moment. A store that is opened again is sought then."""
        store = self._assignment.stores.get(partition.partition)
        if store is not None and partition in self._consumer.assignment():
            self._consumer.seek(partition, store.progress.log_offset)
        await asyncio.sleep(READ_AGAIN_S)
