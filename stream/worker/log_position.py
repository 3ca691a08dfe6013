"""Whether polled records follow what a store has: the log can go back, lose its beginning or its end.

Offsets without an event are normal: the end of a transaction takes one, an aborted transaction takes thousands. A log
that lost records it should still have is noticed otherwise: the broker refuses the offset as out of its range.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from state.store import Store
from stream.config import Config
from stream.kafka.decode import Record
from stream.kafka.rarely import Rarely
from stream.kafka.reader import Polled, Unreadable, positions
from stream.stores.assignment import Assignment

log = logging.getLogger("anabranch.worker")

READ_AGAIN_S = 0.1
"""Pause before records are polled again, because the lease has run out or a store is opened again."""

OPEN_FOR_S = 60.0
"""A transaction that is open for longer is logged."""


class LogPosition:
    """Keeps the consumer's position and the stores' offsets together."""

    def __init__(self, config: Config, consumer: AIOKafkaConsumer, assignment: Assignment) -> None:
        self._config, self._consumer, self._assignment = config, consumer, assignment
        self._blocked_since: dict[TopicPartition, float] = {}
        """Since when nothing can be read of a partition."""
        self._rarely = Rarely()

    def follows(self, store: Store, partition: TopicPartition, records: Sequence[Record]) -> bool:
        """Whether the records can be applied; if the log went back, their store is opened again."""
        number, first = partition.partition, records[0]
        if store.progress.logical(first.offset) < store.progress.next_offset:
            self._assignment.reopen_soon(number, f"the log went back to offset {first.offset}")
            return False
        return True

    async def follow(self, reads: Iterable[Polled]) -> None:
        """After all records of a poll were applied: follow the consumer over what is no event.

        First over what cannot be read, in all of the poll's reads: it counts as lost, the broker's own records do not.
        """
        for polled in reads:
            for partition, offset in polled.out_of_range.items():
                await self._leave(partition, offset)
            if polled.unreadable is not None and polled.unreadable.partition.topic == self._config.topics.clicks:
                await self._skip(polled.unreadable)
        await self._pass_over_markers()
        self._report_open_transactions()

    async def read_again(self, partition: TopicPartition) -> None:
        """Poll again from the store's offset, after a moment. A store that is opened again is sought then."""
        store = self._assignment.stores.get(partition.partition)
        if store is not None and partition in self._consumer.assignment():
            self._consumer.seek(partition, store.progress.log_offset)
        await asyncio.sleep(READ_AGAIN_S)

    async def read_requests_again(self, offsets: Mapping[int, int]) -> None:
        """Poll requests again from these offsets of their partitions, after a moment."""
        for number, offset in offsets.items():
            partition = TopicPartition(self._config.topics.requests, number)
            if partition in self._consumer.assignment():
                self._consumer.seek(partition, offset)
        if offsets:
            await asyncio.sleep(READ_AGAIN_S)

    async def _leave(self, partition: TopicPartition, offset: int) -> None:
        """The log has lost its beginning up to behind this offset, or its end before it."""
        if partition.topic == self._config.topics.clicks:
            if self._assignment.log_offset(partition) == offset:  # else it was sought since
                self._assignment.reopen_soon(partition.partition, f"the log no longer holds offset {offset}")
            return
        try:
            [begin] = (await self._consumer.beginning_offsets([partition])).values()
            [end] = (await self._consumer.end_offsets([partition])).values()
        except KafkaError:
            return  # the next poll finds the same
        if partition not in self._consumer.assignment():  # revoked in the meantime
            return
        log.warning(
            "topic %s, partition %d: the log no longer holds offset %d, it has %d to %d; requests between are lost",
            partition.topic, partition.partition, offset, begin, end - 1,
        )  # fmt: skip
        self._consumer.seek(partition, min(max(offset, begin), end))

    async def _skip(self, batch: Unreadable) -> None:
        async with self._assignment.hold(batch.partition.partition) as store:
            if store is not None and store.progress.log_offset == batch.after:
                store.skip_to(store.progress.logical(batch.end), lost=batch.end - batch.begin)
                return
        await self.read_again(batch.partition)

    async def _pass_over_markers(self) -> None:
        """Move the stores on where the consumer has passed records of the broker itself: the lag is 0 then."""
        for partition in positions(self._consumer):
            if self._passed(partition) is None:
                continue
            async with self._assignment.hold(partition.partition) as store:
                # Read again: while this waited for the hold, the store may have been opened again.
                if store is not None and (position := self._passed(partition)) is not None:
                    store.pass_over(store.progress.logical(position))

    def _passed(self, partition: TopicPartition) -> int | None:
        """The consumer's position, where it is beyond the store's offset."""
        position, offset = positions(self._consumer).get(partition), self._assignment.log_offset(partition)
        return position if position is not None and offset is not None and position > offset else None

    def _report_open_transactions(self) -> None:
        """Log where nothing can be read for a minute, because somebody's transaction is open."""
        now = time.monotonic()
        for partition, position in positions(self._consumer).items():
            end, stable = self._consumer.highwater(partition), self._consumer.last_stable_offset(partition)
            if end is None or stable is None or not 0 <= stable <= position < end:
                self._blocked_since.pop(partition, None)
                continue
            since = self._blocked_since.setdefault(partition, now)
            if now - since > OPEN_FOR_S and self._rarely.may_log(str(partition)):
                log.warning(
                    "partition %d: nothing behind offset %d can be read for %.0f s: a transaction is open there, with "
                    "%d offsets in it and behind it. `kafka-transactions.sh --bootstrap-server %s find-hanging` lists "
                    "transactions that nobody will end",
                    partition.partition, stable - 1, now - since, end - stable, self._config.broker,
                )  # fmt: skip
