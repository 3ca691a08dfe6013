"""One poll of clicks and requests, fair between partitions.

The Kafka client returns all that it has fetched of one partition before it returns a record of the next. A flood in one
partition would keep the others waiting for many polls.
"""

from collections.abc import Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream.kafka import reader
from stream.kafka.decode import Record
from stream.worker.poll_size import MIN_POLL_EVENTS


class Polled(NamedTuple):
    """The records of one poll, in log order."""

    clicks: dict[TopicPartition, Sequence[Record]]
    requests: dict[int, Sequence[Record]]
    """By partition."""
    behind: bool
    """Whether the log holds more clicks than were taken."""
    reads: list[reader.Polled]
    """What the poll consists of, with what could not be read."""


async def poll(reads: reader.Reader, consumer: AIOKafkaConsumer, clicks: str, wait_ms: int, limit: int) -> Polled:
    """About `limit` records; where one partition fills it, every other one gets its share too.

    Raises ConsumerStoppedError.
    """
    done = [await reads.poll(timeout_ms=wait_ms, max_records=limit)]
    polled = dict(done[0].records)
    full = set()
    if sum(map(len, polled.values())) >= limit:
        full = {[*polled][-1]}  # those before it were read to their ends
        others = consumer.assignment() - polled.keys()
        share = max(limit // (len(others) + 1), min(MIN_POLL_EVENTS, limit))
        for other in sorted(others):
            done.append(await reads.poll(other, timeout_ms=0, max_records=share))
            full |= {p for p, records in done[-1].records.items() if len(records) >= share}
            polled |= done[-1].records
    of_clicks = {p: records for p, records in polled.items() if p.topic == clicks}
    requests = {p.partition: records for p, records in polled.items() if p.topic != clicks}
    return Polled(of_clicks, requests, not full.isdisjoint(of_clicks), done)
