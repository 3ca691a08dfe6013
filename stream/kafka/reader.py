"""Polls a consumer so that a batch it cannot read takes no other record with it, and ends no process.

aiokafka raises out of `getmany` where one batch has a wrong checksum, an unknown codec or a header that is not UTF-8.
The records that the same call had taken before, of this partition and of others, are gone then: its positions have
moved on. So we put the positions back, read record by record up to the batch, and go on behind it.
"""

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from stream.kafka.rarely import Rarely

log = logging.getLogger("anabranch.kafka")

TRIES = 3
"""Times a batch is fetched before it counts as unreadable: a wrong checksum can come from the network."""
FETCH_AGAIN_S, FETCH_WITHIN_MS = 0.2, 1_000


class Unreadable(NamedTuple):
    """A batch that was skipped: the records with begin <= offset < end."""

    partition: TopicPartition
    after: int
    """Where reading stood: every record before this offset was returned."""
    begin: int
    end: int


class Polled(NamedTuple):
    """The outcome of a poll."""

    records: dict[TopicPartition, list[Any]]
    unreadable: Unreadable | None = None
    """Skipped after `records`."""
    out_of_range: Mapping[TopicPartition, int] = MappingProxyType({})
    """Positions that the log no longer holds, to be sought elsewhere. Only where `auto_offset_reset` is `none`."""


class Reader:
    """Polls one consumer. `position_of` is where a partition is to be read again; None: where it was polled last."""

    def __init__(
        self, consumer: AIOKafkaConsumer, position_of: Callable[[TopicPartition], int | None] = lambda _: None
    ) -> None:
        self._consumer, self._position_of = consumer, position_of
        self._tries: dict[TopicPartition, tuple[int, int]] = {}
        """The offset that failed last, and how often."""
        self._rarely = Rarely()

    async def poll(self, *partitions: TopicPartition, timeout_ms: int, max_records: int | None = None) -> Polled:
        """Records as `getmany` returns them. Raises ConsumerStoppedError."""
        before = positions(self._consumer)
        if partitions:  # what earlier polls took of the others may not be applied yet
            before = {partition: before[partition] for partition in partitions if partition in before}
        try:
            return Polled(await self._consumer.getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records))
        except ConsumerStoppedError:
            raise
        except OffsetOutOfRangeError as error:
            return Polled({}, out_of_range=error.args[0])
        except NoOffsetForPartitionError as error:
            partition = error.args[0]
            if self._position_of(partition) is None:
                with contextlib.suppress(KafkaError):  # the next poll tries again
                    await self._consumer.seek_to_beginning(partition)
            return Polled({})
        except Exception as error:
            self._put_back(before)
            if (failed := _failed_batch(error)) is not None:
                return await self._read_around(*failed, error)
            if not isinstance(error, KafkaError):
                raise
            if self._rarely.may_log(type(error).__name__):
                log.error("nothing is read for now: %s", _described(error))
            await asyncio.sleep(FETCH_AGAIN_S)
            return Polled({})

    def _put_back(self, before: dict[TopicPartition, int]) -> None:
        now = positions(self._consumer)
        for partition, offset in before.items():
            wanted = self._position_of(partition)
            if wanted is None:
                wanted = offset
            if now.get(partition, wanted) != wanted:
                self._consumer.seek(partition, wanted)

    async def _read_around(self, partition: TopicPartition, begin: int, end: int, error: Exception) -> Polled:
        records, failed_again = await self._read_before(partition, end)
        after = positions(self._consumer).get(partition)
        if records or not failed_again or after is None:  # else the next poll fails at the batch itself
            return Polled({partition: records} if records else {})
        failed_at, tries = self._tries.get(partition, (-1, 0))
        tries = tries + 1 if failed_at == after else 1
        self._tries[partition] = after, tries
        if tries < TRIES:
            await asyncio.sleep(FETCH_AGAIN_S)
            return Polled({})
        del self._tries[partition]
        begin = max(begin, after)
        end = max(min(end, self._consumer.highwater(partition) or end), begin + 1)
        self._consumer.seek(partition, end)
        log.error(
            "topic %s, partition %d: the batch at offsets %d to %d cannot be read and is skipped: %s",
            partition.topic, partition.partition, begin, end - 1, _described(error),
        )  # fmt: skip
        return Polled({}, Unreadable(partition, after, begin, end))

    async def _read_before(self, partition: TopicPartition, end: int) -> tuple[list[Any], bool]:
        """The records before the failure, and whether it came again. Read one by one, none is lost with it."""
        records: list[Any] = []
        while not records or records[-1].offset + 1 < end:
            try:
                polled = await self._consumer.getmany(partition, timeout_ms=FETCH_WITHIN_MS, max_records=1)
            except ConsumerStoppedError:
                raise
            except Exception:
                return records, True
            if not polled.get(partition):
                break
            records += polled[partition]
        return records, False


def positions(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    """The positions of the partitions that have one. `consumer.position` would wait for those that have none."""
    subscription = consumer._subscription.subscription
    assignment = subscription.assignment if subscription is not None else None
    if assignment is None:
        return {}
    states = {partition: assignment.state_value(partition) for partition in assignment.tps}
    return {partition: state.position for partition, state in states.items() if state.has_valid_position}


def _failed_batch(error: Exception) -> tuple[TopicPartition, int, int] | None:
    """The partition of the batch that raised `error`, and its first and next offset; None if no batch did.

    The error does not name them. The fetcher's own variables do, at the place where it was raised.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "_unpack_records":
            partition, batch = frame.f_locals.get("tp"), frame.f_locals.get("next_batch")
            if isinstance(partition, TopicPartition):
                return partition, getattr(batch, "base_offset", -1), getattr(batch, "next_offset", -1)
    return None


def _described(error: Exception) -> str:
    return str(error) if isinstance(error, KafkaError) else repr(error)
