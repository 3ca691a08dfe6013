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
POLL_MS = 250


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
    found: list[Any] = []
    read = size = 0
    window = max(FIRST_WINDOW // len(partitions), 1)
    while True:
        starts = {p: max(ends[p] - window, begins[p]) for p in partitions}
        open_ = [p for p in partitions if starts[p] < ends[p]]
        if not open_:
            return Scanned(_newest_first(found, bounds), read, True)
        consumer.assign(open_)
        for partition in open_:
            consumer.seek(partition, starts[partition])
        reader, left = Reader(consumer), set(open_)
        while left:
            for partition, records in (await reader.poll(timeout_ms=POLL_MS)).records.items():
                inside = [r for r in records if r.offset < ends[partition]]
                read += len(inside)
                size += sum(len(r.value or b"") for r in inside)
                found += [r for r in inside if wanted(r)]
            for partition in list(left):
                if await consumer.position(partition) >= ends[partition]:
                    left.discard(partition)
                    consumer.pause(partition)
            if time.monotonic() > deadline or size > bounds.bytes:
                return Scanned(_newest_first(found, bounds), read, False)
        ends = starts
        if len(found) >= bounds.found or read >= bounds.records:
            whole = all(begins[p] >= ends[p] for p in partitions)
            return Scanned(_newest_first(found, bounds), read, whole and len(found) <= bounds.found)
        window = min(window * GROWTH, max(bounds.records - read, 1))


def _newest_first(found: list[Any], bounds: Bounds) -> list[Any]:
    return sorted(found, key=lambda r: (r.timestamp, r.partition, r.offset), reverse=True)[: bounds.found]
