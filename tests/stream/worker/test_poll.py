"""A poll is fair: a flood in one partition keeps no other one waiting."""

import asyncio
from types import SimpleNamespace

from aiokafka import TopicPartition

from stream.kafka import reader
from stream.worker.poll import FairPoll, poll

A, B, REQUESTS = TopicPartition("clicks", 0), TopicPartition("clicks", 1), TopicPartition("requests", 0)


class Consumer:
    """Returns what it has of its first partition before any of the next, as Kafka's client does."""

    def __init__(self, revoked_meanwhile: TopicPartition | None = None, **waiting: int) -> None:
        self.revoked_meanwhile = revoked_meanwhile
        self.waiting = {p: waiting.get(n, 0) for n, p in {"a": A, "b": B, "requests": REQUESTS}.items()}

    def assignment(self) -> set[TopicPartition]:
        return set(self.waiting)

    async def poll(self, *partitions, timeout_ms: int, max_records: int) -> reader.Polled:
        assert self.assignment().issuperset(partitions), "the client raises IllegalStateError"
        polled = {}
        for partition in partitions or self.waiting:
            count = min(self.waiting[partition], max_records)
            if count:
                polled[partition] = [SimpleNamespace(offset=n) for n in range(count)]
                self.waiting[partition] -= count
                max_records -= count
        if partitions:
            self.waiting.pop(self.revoked_meanwhile, None)
        return reader.Polled(polled)


def polled(limit: int, **waiting: int) -> tuple[dict[str, int], bool]:
    consumer = Consumer(**waiting)
    found: FairPoll = asyncio.run(poll(consumer, consumer, {}, "clicks", 100, limit))
    names = {A: "a", B: "b"}
    counts = {names[p]: len(records) for p, records in found.clicks.items()}
    requests = sum(map(len, found.requests.values()))
    return counts | ({"requests": requests} if requests else {}), found.behind


def test_a_poll_that_is_not_full_has_all_there_is():
    assert polled(1000, a=10, b=20, requests=5) == ({"a": 10, "b": 20, "requests": 5}, False)


def test_a_flood_in_one_partition_leaves_the_others_their_share():
    assert polled(3000, a=100_000, b=10, requests=5) == ({"a": 3000, "b": 10, "requests": 5}, True)


def test_a_flood_in_every_partition_is_read_in_shares():
    counts, behind = polled(3000, a=100_000, b=100_000, requests=100_000)
    assert counts == {"a": 3000, "b": 1000, "requests": 1000}
    assert behind


def test_a_flood_of_requests_alone_is_not_behind_on_clicks():
    counts, behind = polled(1000, a=10, requests=100_000)
    assert counts == {"a": 10, "requests": 990}
    assert not behind


def test_a_partition_that_is_revoked_during_the_poll_is_left_out():
    consumer = Consumer(REQUESTS, a=100_000, b=10, requests=10)
    found = asyncio.run(poll(consumer, consumer, {}, "clicks", 100, 1000))
    assert found.clicks.keys() == {A, B}
    assert found.requests == {}


def test_records_belong_to_the_stores_of_the_moment_they_were_polled():
    """A store that is opened again while the other partitions are polled can have another offset."""
    stores = {0: "old a", 1: "old b"}

    class Reopening(Consumer):
        async def poll(self, *partitions, timeout_ms: int, max_records: int) -> reader.Polled:
            if partitions == (B,):
                stores.update({0: "new a", 1: "new b"})
            return await super().poll(*partitions, timeout_ms=timeout_ms, max_records=max_records)

    consumer = Reopening(a=100_000, b=10)
    found = asyncio.run(poll(consumer, consumer, stores, "clicks", 100, 1000))
    assert found.stores == {0: "old a", 1: "new b"}
