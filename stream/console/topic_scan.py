"""Reads the newest records of a partition, backwards from its end, within bounds of records, bytes and time."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka.connection import consumer_connection
from stream.kafka.diagnosis import unavailable
from stream.kafka.exchange import close
from stream.kafka.reader import Reader
from stream.kafka.topics import partitions_of

FIRST_WINDOW = 2_000
GROWTH = 4
POLL_MS = 100
POLLS_OF_EMPTY = 3
"""A partition without records reports no end to its reader."""


class Scanned(NamedTuple):
    """What was found."""

    records: list[Any]
    """Newest first."""
    read: int
    """Records that were looked at."""
    whole: bool
    """Whether that were all that the partitions have."""


class Bounds(NamedTuple):
    """Where a scan ends."""

    found: int
    records: int
    seconds: float
    bytes: int = 32 << 20


async def newest(
    config: Config, topic: str, numbers: list[int] | None, wanted: Callable[[Any], bool], bounds: Bounds
) -> Scanned:
    """The newest records of these partitions (None: of all) that are wanted. Raises AnabranchError."""
    consumer = AIOKafkaConsumer(**consumer_connection(config), enable_auto_commit=False, fetch_max_wait_ms=50)
    try:
        async with asyncio.timeout(bounds.seconds + 2.0):
            await consumer.start()
            there = await partitions_of(consumer, topic)
            partitions = [TopicPartition(topic, n) for n in there if numbers is None or n in numbers]
            return await _backwards(consumer, partitions, wanted, bounds) if partitions else Scanned([], 0, True)
    except TimeoutError:
        raise AnabranchError(f"The broker did not give the records of {topic!r} in time.") from None
    except (KafkaError, OSError) as error:
        raise await unavailable(config, error, f"the newest records of {topic!r}") from None
    finally:
        await close(consumer)


async def _backwards(
    consumer: AIOKafkaConsumer, partitions: list[TopicPartition], wanted: Callable[[Any], bool], bounds: Bounds
) -> Scanned:
    deadline = time.monotonic() + bounds.seconds
    begins = await consumer.beginning_offsets(partitions)
    ends = await consumer.end_offsets(partitions)
    scan = _Scan(consumer, wanted, bounds.bytes, deadline)
    window = max(FIRST_WINDOW // len(partitions), 1)
    newest_window = True
    while True:
        starts = {p: max(ends[p] - window, begins[p]) for p in partitions}
        # The newest window has no end: the embedded broker names too low a one.
        complete = await scan.read(starts, {p: None if newest_window else ends[p] for p in partitions})
        newest_window, ends = False, starts
        at_the_beginning = all(starts[p] <= begins[p] for p in partitions)
        if at_the_beginning or not complete or len(scan.found) >= bounds.found or scan.count >= bounds.records:
            found = sorted(scan.found, key=lambda r: (r.timestamp, r.partition, r.offset), reverse=True)
            return Scanned(found[: bounds.found], scan.count, at_the_beginning and complete)
        window = min(window * GROWTH, max(bounds.records - scan.count, 1))


class _Scan:
    """What the windows of a scan have brought together."""

    def __init__(
        self, consumer: AIOKafkaConsumer, wanted: Callable[[Any], bool], max_bytes: int, deadline: float
    ) -> None:
        self._consumer, self._wanted, self._max_bytes, self._deadline = consumer, wanted, max_bytes, deadline
        self._reader = Reader(consumer)
        self.found: list[Any] = []
        self.count = self._bytes = 0

    async def read(self, starts: dict[TopicPartition, int], ends: dict[TopicPartition, int | None]) -> bool:
        """Read each partition from its start to its end, or to that of the log; False if a bound ended it."""
        left = {p for p, start in starts.items() if ends[p] is None or start < (ends[p] or 0)}
        if not left:
            return True
        self._consumer.assign(list(left))
        for partition in left:
            self._consumer.seek(partition, starts[partition])
        silent = 0
        while left:
            polled = (await self._reader.poll(timeout_ms=POLL_MS)).records
            silent = 0 if polled else silent + 1
            for partition, records in polled.items():
                end = ends[partition]
                self._take([r for r in records if end is None or r.offset < end])
            for partition in list(left):
                end = ends[partition] if ends[partition] is not None else self._consumer.highwater(partition)
                position = await self._consumer.position(partition)
                if (end is None and silent > POLLS_OF_EMPTY) or (end is not None and position >= end):
                    left.discard(partition)
                    self._consumer.pause(partition)
            if time.monotonic() > self._deadline or self._bytes > self._max_bytes:
                return False
        return True

    def _take(self, records: list[Any]) -> None:
        self.count += len(records)
        self._bytes += sum(len(record.value or b"") for record in records)
        self.found += [record for record in records if self._wanted(record)]
