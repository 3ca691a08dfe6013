"""One poll of clicks and requests, fair between partitions.

The Kafka client returns all that it has fetched of one partition before it returns a record of the next. A flood in one
partition would keep the others waiting for many polls.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from state.store import Store
from stream.kafka import reader
from stream.kafka.decode import Record
from stream.worker.poll_size import MIN_POLL_EVENTS


class FairPoll(NamedTuple):
    """The records of one poll, in log order."""

    clicks: dict[TopicPartition, Sequence[Record]]
    requests: dict[int, Sequence[Record]]
    """By partition."""
    stores: dict[int, Store]
    """The store that each partition of clicks had when its records were polled: one that is opened later can have
    another offset."""
    behind: bool
    """Whether the log holds more clicks than were taken."""
    reads: list[reader.Polled]
    """What the poll consists of, with what could not be read."""


async def poll(
    reads: reader.Reader, consumer: AIOKafkaConsumer, stores: Mapping[int, Store], clicks: str, wait_ms: int, limit: int
) -> FairPoll:
    """About `limit` records; where one partition fills it, every other one gets its share too.

    Raises ConsumerStoppedError.
    """
    done = [await reads.poll(timeout_ms=wait_ms, max_records=limit)]
    polled = dict(done[0].records)
    polled_for = dict(stores)
    full = set()
    if sum(map(len, polled.values())) >= limit:
        full = {[*polled][-1]}  # those before it were read to their ends
        others = consumer.assignment() - polled.keys()
        share = max(limit // (len(others) + 1), min(MIN_POLL_EVENTS, limit))
        for other in sorted(others):
            if other not in consumer.assignment():  # revoked since
                continue
            more = await reads.poll(other, timeout_ms=0, max_records=share)
            if other.topic == clicks and other.partition in stores:
                polled_for[other.partition] = stores[other.partition]
            done.append(more)
            full |= {p for p, records in more.records.items() if len(records) >= share}
            polled |= more.records
    of_clicks = {p: records for p, records in polled.items() if p.topic == clicks}
    requests = {p.partition: records for p, records in polled.items() if p.topic != clicks}
    return FairPoll(of_clicks, requests, polled_for, not full.isdisjoint(of_clicks), done)
