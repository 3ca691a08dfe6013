"""What may happen to a worker between two of its steps: users are forgotten, partitions are given back."""

import asyncio
import contextlib
import json

import pytest
from aiokafka import TopicPartition

from state.events import hash_id
from stream.config import Config
from stream.kafka.decode import Decoder
from stream.kafka.lease import Lease
from stream.kafka.topics import Log
from stream.stores.partition_stores import PartitionStores
from stream.worker.pipeline import Worker
from stream.worker.recommender import Recommender
from tests.stream.kafka.test_decode import Record

LOG = Log("here", "", 1, 0, 10)
TS = 1_600_000_000_000


class Producer:
    """A broker that acknowledges at once; `before` is called with every topic that something is sent to."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes | None, bytes | None]] = []
        self.before = lambda topic: None

    async def send(self, topic, value, key=None, headers=None):
        self.before(topic)
        self.sent.append((topic, key, value))
        acknowledged = asyncio.get_running_loop().create_future()
        acknowledged.set_result(None)
        return acknowledged

    async def send_and_wait(self, topic, value, key=None, headers=None):
        await self.send(topic, value, key)


class Consumer:
    """One that has been assigned nothing yet, and remembers what it is told."""

    def __init__(self):
        self.assigned: set[TopicPartition] = set()
        self.sought: list[tuple[TopicPartition, int]] = []
        self.committed: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()

    def assignment(self):
        return self.assigned

    def seek(self, partition, offset):
        self.sought.append((partition, offset))

    def pause(self, *partitions):
        self.paused |= set(partitions)

    def resume(self, *partitions):
        self.paused -= set(partitions)

    async def commit(self, offsets):
        self.committed = offsets


class Shop:
    """A worker with one partition, and no Kafka."""

    def __init__(self, config: Config) -> None:
        self.config, self.producer, self.partitions = config, Producer(), PartitionStores(config)
        self.store = self.partitions.stores[0] = self.partitions.open(0, LOG)
        self.ranker = Recommender(config, self.partitions.stores, None)
        lease = Lease(60_000)
        lease.confirmed(lease.now())
        self.worker = Worker(config, Consumer(), self.producer, self.partitions, self.ranker, lease, cluster="here")

    def fold(self, *events: dict) -> None:
        records = self.records(*(json.dumps({"item": "milk", "ts": TS} | e).encode() for e in events))
        decoded = Decoder(self.config.clicks, self.config.state).decode(records)
        self.store.apply(decoded.batch, records[-1].offset + 1)

    def records(self, *values: bytes) -> list[Record]:
        first = self.store.progress.next_offset
        return [Record(value, first + at) for at, value in enumerate(values)]

    def answered(self) -> list[tuple[bytes | None, bytes | None]]:
        """What was said to whom, until nobody is owed anything."""

        async def answers() -> None:
            answering = asyncio.create_task(self.worker.answer())
            self.worker._changed()
            for _ in range(1000):
                await asyncio.sleep(0.01)
                if self.store.answered() == self.store.progress.next_offset:
                    break
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering

        asyncio.run(answers())
        return [(key, value) for topic, key, value in self.producer.sent if topic == self.config.topics.recommendations]


@pytest.fixture
def shop(tmp_path):
    made = Shop(Config(data=tmp_path))
    yield made
    made.partitions.close_all()


def test_to_who_comes_back_the_new_answer_takes_the_old_ones_place_and_there_is_no_tombstone(shop):
    shop.fold({"user": "ann"}, {"user": "ann", "event": "forget"}, {"user": "ann", "item": "bread"})
    assert [e.id for e in shop.store.erasures.without_tombstone()] == ["ann"]
    [(user, answer)] = shop.answered()
    assert (user, json.loads(answer)["offset"]) == (b"ann", 2)
    assert shop.store.erasures.without_tombstone() == []


def test_who_is_forgotten_and_stays_away_gets_a_tombstone(shop):
    shop.fold({"user": "ann"}, {"user": "bob"}, {"user": "ann", "event": "forget"})
    (gone, tombstone), (bob, answer) = shop.answered()
    assert (gone, tombstone, bob) == (b"ann", None, b"bob")
    assert answer
    assert shop.store.erasures.without_tombstone() == []


def test_where_all_who_were_owed_are_forgotten_it_is_known_that_nobody_is(shop):
    shop.fold({"user": "ann"}, {"user": "ann", "event": "forget"})
    assert shop.store.answered() == 0
    asyncio.run(shop.worker._tend(0))
    assert shop.store.answered() == shop.store.progress.next_offset == 2
    shop.worker.tenure._opening.behind[0] = 9  # what the log held when the partition was assigned is not read yet
    shop.fold({"user": "ann", "event": "forget"})
    asyncio.run(shop.worker._tend(0))
    assert shop.store.answered() == 2


def test_who_is_forgotten_while_being_ranked_gets_no_answer_and_nobody_gets_it_instead(shop, monkeypatch):
    shop.fold({"user": "ann"}, {"user": "bob"})
    real = shop.ranker.answer

    def slow(number, unanswered):
        monkeypatch.undo()
        shop.fold({"user": "ann", "event": "forget"})
        return real(number, unanswered)

    monkeypatch.setattr(shop.ranker, "answer", slow)
    assert [key for key, _ in shop.answered()] == [b"bob"]
    assert shop.store.recommended(hash_id("ann")) is None
    assert shop.store.answered() == 3


def test_a_partition_given_back_while_its_dead_letters_are_sent_is_left_alone(shop):
    shop.producer.before = lambda topic: shop.partitions.close(0)
    asyncio.run(shop.worker._fold(TopicPartition("clicks", 0), shop.records(b"no event")))
    assert [topic for topic, *_ in shop.producer.sent] == [shop.config.topics.dead_letters]
    assert shop.partitions.open(0, LOG).progress.next_offset == 0, "its next owner reads the batch again"


def test_a_worker_that_lost_its_lease_as_dead_letters_were_sent_folds_nothing_and_reads_again(shop):
    consumer = shop.worker._consumer
    consumer.assigned = {TopicPartition("clicks", 0)}
    shop.producer.before = lambda topic: setattr(shop.worker._lease, "_until", 0.0)
    click = json.dumps({"user": "ann", "item": "milk", "ts": TS}).encode()
    asyncio.run(shop.worker._fold(TopicPartition("clicks", 0), shop.records(b"no event", click)))
    assert shop.store.progress.next_offset == 0
    assert consumer.sought == [(TopicPartition("clicks", 0), 0)]


def test_a_request_that_is_none_is_buried_and_the_next_one_answered(shop):
    shop.fold({"user": "ann"})
    bad = [b"no request", b"[" * 5000, '{"user": "José"}'.encode("latin-1"), b'{"user": "\\ud800"}', None]
    asyncio.run(shop.worker._reply(0, [Record(value, n) for n, value in enumerate([*bad, b'{"user": "ann"}'])]))
    to = [topic for topic, *_ in shop.producer.sent]
    assert to == [shop.config.topics.dead_letters] * len(bad) + [shop.config.topics.replies]


def test_a_bad_request_that_cannot_be_buried_in_time_is_read_again_by_who_has_the_partition_then(shop):
    shop.fold({"user": "ann"})
    shop.worker._lease._until = 0.0
    asyncio.run(shop.worker._reply(0, [Record(b"no request", 0)]))
    assert shop.producer.sent == []


def test_the_group_is_told_the_next_offset_of_each_partition_in_its_own_log(shop):
    shop.fold({"user": "ann"}, {"user": "bob"})
    shop.store.progress.base = 1  # the log began anew once, after one event
    asyncio.run(shop.worker._commit_group())
    assert shop.worker._consumer.committed == {TopicPartition("clicks", 0): 1}


def test_a_pause_stops_reading_clicks_until_it_ends(shop):
    clicks = TopicPartition("clicks", 0)
    shop.worker.tenure.pause(True)
    assert shop.worker._consumer.paused == {clicks}
    shop.worker.tenure.pause(False)
    assert shop.worker._consumer.paused == set()
