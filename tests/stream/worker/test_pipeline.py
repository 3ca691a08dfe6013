"""The path of an event, without Kafka: partitions are revoked and the lease runs out between its steps."""

import asyncio
import dataclasses
import json
import shutil
import time

import msgspec
import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import ConsumerStoppedError, OffsetOutOfRangeError
from aiokafka.partitioner import murmur2

from state.errors import StoreBlocked
from state.events import hash_id
from state.store import Store
from stream.config import Config
from stream.kafka.decode import Decoder
from stream.kafka.reader import Polled, Unreadable
from stream.stores.assignment import Phase
from stream.stores.partition_stores import PartitionStores, rebuilt_path
from stream.worker.pipeline import Pipeline
from stream.worker.poll import FairPoll
from stream.worker.poll_size import affordable
from stream.worker.recommender import Recommender
from tests.stream.fakes import CLICKS, REQUESTS, FakeProducer, Owner, scenario_with, until
from tests.stream.kafka.test_decode import Record

TS = 1_600_000_000_000


class Shop(Owner):
    """A worker that owns one partition."""

    def __init__(self, config: Config, monkeypatch) -> None:
        super().__init__(config, monkeypatch)
        self.producer = FakeProducer()
        self.recommender = Recommender(config, self.assignment.stores, None)
        self.pipeline = Pipeline(config, self.consumer, self.producer, self.assignment, self.recommender, self.lease)

    @property
    def store(self):
        return self.assignment.stores[0]

    def apply(self, *events: dict) -> None:
        """Apply events as if they had been polled before."""
        records = self.records(*events)
        self.store.apply(Decoder(self.config.clicks, self.config.state).decode(records).batch, records[-1].offset + 1)
        self.consumer.positions[CLICKS] = records[-1].offset + 1

    def records(self, *events: dict | bytes) -> list[Record]:
        first = self.store.progress.next_offset
        values = [e if isinstance(e, bytes) else json.dumps({"item": "milk", "ts": TS} | e).encode() for e in events]
        return [Record(value, first + at) for at, value in enumerate(values)]

    async def poll(self, *polls: dict) -> None:
        """Let the worker poll these records and do its work between two polls; `{}` polls nothing."""
        self.consumer.polls.extend(polls)
        await self.pipeline.consume()

    async def answered(self) -> list[tuple[bytes | None, bytes | None]]:
        """Run until no user is pending; return the recommendations by user."""
        answering = self.start(self.pipeline.answer())
        await self.poll({})
        await until(lambda: answering.done() or self.store.answered() == self.store.progress.next_offset)
        return self.recommendations()

    def recommendations(self) -> list[tuple[bytes | None, bytes | None]]:
        return self.producer.to(self.config.topics.recommendations)

    async def assign_another(self) -> Store:
        """Assign a second partition; its store."""
        another = TopicPartition("clicks", 1)
        self.consumer.assigned.add(another)
        await self.assignment.on_partitions_assigned([another])
        await until(lambda: 1 in self.assignment.stores)
        return self.assignment.stores[1]

    async def revoke_during_a_reply(self) -> tuple[asyncio.Task[None], asyncio.Task[None]]:
        """Begin a revocation while a reply waits for its acknowledgement; both go on."""
        self.apply({"user": "ann"})
        self.producer.acknowledges.clear()
        replying = self.start(self.poll({REQUESTS: [Record(b'{"user": "ann", "id": 7}', 0)]}))
        await until(lambda: self.producer.to(self.config.topics.replies))
        return replying, self.start(self.revoke())

    def reopened(self):
        """The store as its next owner finds it."""
        return PartitionStores(self.config).open(0, self.log._replace(end=100))


@scenario_with
async def with_shop(config, monkeypatch):
    """A `Shop` that owns its partition."""
    shop = Shop(config, monkeypatch)
    await shop.assign()
    return shop


@with_shop
async def test_a_click_is_applied_and_its_user_answered(shop):
    answering = shop.start(shop.pipeline.answer())
    await shop.poll({CLICKS: shop.records({"user": "ann"})})
    await until(lambda: answering.done() or shop.store.answered() == 1)
    [(user, message)] = shop.recommendations()
    assert (user, json.loads(message)["offset"]) == (b"ann", 0)


@scenario_with
async def with_shop_of_two_partitions(config, monkeypatch):
    """A `Shop` that owns the first of two partitions."""
    shop = Shop(config, monkeypatch)
    shop.log = shop.log._replace(partitions=2)
    await shop.assign()
    return shop


@with_shop_of_two_partitions
async def test_events_without_a_key_or_in_a_strange_partition_are_counted(shop):
    records = shop.records(*({"user": f"user-{n}"} for n in range(40)))
    keyed = [dataclasses.replace(r, key=f"user-{n}".encode() if n >= 10 else None) for n, r in enumerate(records)]
    await shop.poll({CLICKS: keyed})
    foreign = sum((murmur2(f"user-{n}".encode()) & 0x7FFFFFFF) % 2 for n in range(10, 40))
    progress = shop.store.progress
    assert (progress.applied, progress.keyless, progress.foreign_partition) == (40, 10, foreign)


@with_shop
async def test_a_user_who_comes_back_gets_a_new_answer_in_place_of_the_old_one_and_no_tombstone(shop):
    shop.apply({"user": "ann"}, {"user": "ann", "event": "forget"}, {"user": "ann", "item": "bread"})
    [(user, message)] = await shop.answered()
    assert (user, json.loads(message)["offset"]) == (b"ann", 2)


@with_shop
async def test_a_user_who_is_forgotten_gets_a_tombstone(shop):
    shop.apply({"user": "ann"}, {"user": "bob"}, {"user": "ann", "event": "forget"})
    (ann, tombstone), (bob, answer) = await shop.answered()
    assert (ann, tombstone, bob) == (b"ann", None, b"bob")
    assert answer


@with_shop
async def test_a_batch_ends_before_it_has_too_many_forgets_and_dead_letters(shop):
    shop.monkeypatch.setattr("stream.worker.poll_size.MAX_SLOW_RECORDS", 2)
    forget, click = {"user": "ann", "event": "forget"}, {"user": "bob"}
    records = shop.records(click, forget, b"no event", click, forget, click)
    decoded = Decoder(shop.config.clicks, shop.config.state).decode(records)
    assert affordable(shop.store, records, decoded) == 4
    assert affordable(shop.store, records[:4], Decoder(shop.config.clicks).decode(records[:4])) == 4
    await shop.poll({CLICKS: records})
    assert shop.store.progress.next_offset == 6, "what is left is applied after it, without another poll"
    assert shop.store.progress.dead == 1


@scenario_with
async def with_shop_that_keeps_a_day(config, monkeypatch):
    """A `Shop` whose events expire after a day of event time."""
    state = msgspec.structs.replace(config.state, window_s=86_400.0)
    shop = Shop(msgspec.structs.replace(config, state=state), monkeypatch)
    await shop.assign()
    return shop


@with_shop_that_keeps_a_day
async def test_a_tombstone_of_a_user_whose_state_has_expired_waits_for_an_older_answer_in_flight(shop):
    shop.producer.acknowledges.clear()
    shop.start(shop.pipeline.answer())
    await shop.poll({CLICKS: shop.records({"user": "ann"})})
    await until(shop.recommendations)
    for day in (3, 10, 10):  # what is behind the horizon goes with the next batch
        await shop.poll({CLICKS: shop.records({"user": "bob", "ts": TS + day * 86_400_000})})
    assert shop.store.user_ids(np.array([hash_id("ann")], np.uint64)) == [None]
    forgetting = shop.start(shop.poll({CLICKS: shop.records({"user": "ann", "event": "forget"})}))
    await asyncio.sleep(0.2)
    before = shop.recommendations()
    shop.producer.acknowledges.set()
    await forgetting
    assert (b"ann", None) not in before
    assert [value is None for user, value in shop.recommendations() if user == b"ann"] == [False, True]


@with_shop
async def test_no_user_is_pending_after_all_pending_users_were_forgotten(shop):
    shop.log = shop.log._replace(end=2)
    await shop.revoke()
    await shop.assign()
    shop.apply({"user": "ann"})
    await shop.poll({})
    assert shop.assignment.phase(0) is Phase.CATCHING_UP
    assert shop.store.answered() == 0, "the owner before may have answered what is not read yet"
    shop.apply({"user": "ann", "event": "forget"})
    await shop.poll({})
    assert shop.store.answered() == shop.store.progress.next_offset == 2


@with_shop
async def test_a_user_who_is_forgotten_while_being_ranked_gets_no_answer_and_nobody_else_gets_it(shop):
    shop.apply({"user": "ann"}, {"user": "bob"})
    real = shop.recommender.recommend

    def slow(number, users, **more):
        shop.recommender.recommend = real
        shop.apply({"user": "ann", "event": "forget"})
        return real(number, users, **more)

    shop.recommender.recommend = slow
    assert [user for user, _ in await shop.answered()] == [b"bob"]
    assert shop.store.recommended(hash_id("ann")) is None
    assert shop.store.answered() == 3


@with_shop
async def test_a_revocation_waits_until_answers_being_sent_are_recorded(shop):
    shop.apply({"user": "ann"})
    shop.producer.acknowledges.clear()
    shop.start(shop.pipeline.answer())
    await shop.poll({})
    await until(shop.recommendations)
    revoking = shop.start(shop.revoke())
    await asyncio.sleep(0.05)
    assert not revoking.done(), "the next owner would send an older answer after this one"
    shop.producer.acknowledges.set()
    await revoking
    store = shop.reopened()
    assert store.answered() == 1
    assert store.recommended(hash_id("ann"))
    store.close()


@with_shop
async def test_the_lease_is_not_renewed_for_partitions_that_are_being_given_up(shop):
    """The group accepts commits while it rebalances. Renewed, the lease would outlast the membership."""
    replying, revoking = await shop.revoke_during_a_reply()
    await asyncio.sleep(0)
    shop.monkeypatch.setattr("stream.worker.pipeline.COMMIT_EVERY_S", 0.01)
    shop.consumer.committed = {}
    shop.lease.held = False
    shop.start(shop.pipeline.keep_lease())
    await asyncio.sleep(0.05)
    assert (shop.consumer.committed, shop.lease.held) == ({}, False)
    shop.producer.acknowledges.set()
    await revoking
    await replying


@with_shop
async def test_a_revocation_waits_until_a_reply_is_acknowledged(shop):
    replying, revoking = await shop.revoke_during_a_reply()
    await asyncio.sleep(0.05)
    assert not revoking.done()
    assert 0 in shop.assignment.stores
    shop.producer.acknowledges.set()
    await revoking
    await replying
    assert 0 not in shop.assignment.stores
    [(_, reply)] = shop.producer.to(shop.config.topics.replies)
    assert json.loads(reply)["id"] == 7


@with_shop
async def test_a_revocation_waits_until_users_being_ranked_are_answered(shop):
    shop.apply(*({"user": f"user-{n}"} for n in range(20)))
    real, ranking = shop.recommender.recommend, asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(number, users, **more):
        loop.call_soon_threadsafe(ranking.set)
        time.sleep(0.1)
        return real(number, users, **more)

    shop.recommender.recommend = slow
    shop.start(shop.pipeline.answer())
    await shop.poll({})
    await ranking.wait()
    await shop.revoke()
    assert len(shop.recommendations()) == 20
    store = shop.reopened()
    assert store.answered() == 20
    store.close()


@with_shop
async def test_answers_that_are_sent_when_the_lease_runs_out_are_left_to_the_next_owner(shop):
    shop.apply({"user": "ann"})
    shop.producer.away = True
    shop.producer.on_send = lambda topic: setattr(shop.lease, "held", False)
    answering = shop.start(shop.pipeline.answer())
    await shop.poll({})
    await shop.revoke()  # the broker is away: the send is given up at its next try
    assert not answering.done()
    assert shop.recommendations() == []
    store = shop.reopened()
    assert (store.answered(), store.pending.waiting) == (0, 1)
    store.close()


@with_shop
async def test_a_revocation_waits_until_dead_letters_are_sent_and_the_batch_is_applied(shop):
    shop.producer.acknowledges.clear()
    applying = shop.start(shop.poll({CLICKS: shop.records(b"no event", {"user": "ann"})}))
    await until(lambda: shop.producer.to(shop.config.topics.dead_letters))
    revoking = shop.start(shop.revoke())
    await asyncio.sleep(0.05)
    assert not revoking.done()
    shop.producer.acknowledges.set()
    await revoking
    await applying
    store = shop.reopened()
    assert (store.progress.next_offset, store.progress.dead) == (2, 1)
    store.close()


@with_shop
async def test_a_batch_whose_lease_runs_out_while_its_dead_letters_are_sent_is_read_again(shop):
    records = shop.records(b"no event", {"user": "ann"})
    shop.producer.on_send = lambda topic: setattr(shop.lease, "held", False)
    shop.consumer.sought.clear()
    await shop.poll({CLICKS: records})
    assert shop.store.progress.next_offset == 0
    assert shop.consumer.sought == [0]


@with_shop
async def test_a_batch_is_read_again_when_another_partitions_store_has_a_fault_while_it_is_learned_from(shop):
    another, real = await shop.assign_another(), shop.recommender.learn

    def learn(store, events):
        shop.recommender.learn = real
        raise StoreBlocked("No space left on device", another.path)

    shop.recommender.learn = learn
    records = shop.records({"user": "ann"}, {"user": "bob"})
    await shop.poll({CLICKS: records})
    assert shop.assignment.phase(0) is not Phase.FAULTED
    assert (shop.store.progress.next_offset, shop.consumer.positions[CLICKS]) == (0, 0)
    await shop.poll({CLICKS: records})
    assert (shop.store.progress.next_offset, shop.store.progress.applied) == (2, 2)


@with_shop
async def test_users_are_answered_when_another_partitions_store_has_a_fault_and_cannot_be_opened(shop):
    another, real_open, real = await shop.assign_another(), PartitionStores.open, shop.recommender.recommend

    def blocked(stores, number, its_log):
        if number == 1:
            raise StoreBlocked("No space left on device", another.path)
        return real_open(stores, number, its_log)

    def faulted(number, users, **more):
        shop.recommender.recommend = real
        raise StoreBlocked("No space left on device", another.path)

    shop.monkeypatch.setattr(PartitionStores, "open", blocked)
    shop.recommender.recommend = faulted
    shop.apply({"user": "ann"})
    shop.start(shop.pipeline.answer())
    await shop.poll({})
    await until(lambda: shop.assignment.phase(1) is Phase.FAULTED)
    await shop.poll({})
    await until(lambda: shop.store.answered() == 1)
    assert shop.assignment.phase(1) is Phase.OPENING


@with_shop
async def test_a_batch_that_was_polled_before_its_store_was_replaced_is_not_applied_to_the_new_one(shop):
    shop.log = shop.log._replace(end=4)
    shop.apply({"user": "ann"})
    path = shop.store.path
    shutil.copytree(path, rebuilt_path(path), ignore=shutil.ignore_patterns("LOCK"))
    shop.apply({"user": "bob"}, {"user": "cat"})

    async def swap(offsets) -> None:
        await shop.assignment.swap()
        await until(lambda: shop.assignment.phase(0) is Phase.CATCHING_UP)

    shop.consumer.commit = swap
    await shop.poll({CLICKS: shop.records({"user": "dan"})})
    assert (shop.store.progress.next_offset, shop.consumer.positions[CLICKS]) == (1, 1), "offsets 1 and 2 are missing"


@with_shop
async def test_a_log_that_went_back_has_its_store_opened_again(shop):
    shop.apply({"user": "ann"}, {"user": "bob"})
    await shop.poll({CLICKS: [Record(b'{"user": "ann", "item": "milk"}', 0)]})
    assert shop.assignment.phase(0) is Phase.OPENING
    assert CLICKS in shop.consumer.paused
    await until(lambda: shop.assignment.phase(0) is Phase.CATCHING_UP)
    assert shop.store.progress.next_offset == 0, "its log ends before the offset of the old store"


@with_shop
async def test_offsets_that_retention_deleted_are_counted_as_lost(shop):
    shop.apply({"user": "ann"})
    shop.log = shop.log._replace(begin=5, end=6)
    await shop.poll(OffsetOutOfRangeError({CLICKS: 1}))
    await until(lambda: shop.assignment.phase(0) is Phase.CATCHING_UP)
    assert (shop.store.progress.next_offset, shop.store.progress.lost) == (5, 4)


@with_shop
async def test_events_that_the_broker_lost_stay_in_the_state_and_new_ones_at_their_offsets_are_applied(shop):
    shop.log = shop.log._replace(topic_id="first", end=3)
    await shop.revoke()
    await shop.assign()
    shop.apply({"user": "ann"}, {"user": "bob"}, {"user": "cid"})
    shop.consumer.positions[CLICKS] = 3
    await shop.answered()
    shop.log = shop.log._replace(end=1)
    await shop.poll(OffsetOutOfRangeError({CLICKS: 3}))
    await until(lambda: shop.assignment.phase(0) is Phase.CATCHING_UP)
    assert shop.consumer.positions[CLICKS] == 1
    shop.producer.sent.clear()
    await shop.poll({CLICKS: [Record(b'{"user": "dan", "item": "bread"}', 1)]})
    [(user, message)] = await shop.answered()
    assert (user, json.loads(message)["offset"]) == (b"dan", 3), "higher than those of the lost events"
    progress = shop.store.progress
    assert (progress.applied, progress.truncated, progress.log_offset) == (4, 2, 2)


@with_shop
async def test_the_end_of_a_transaction_leaves_no_lag_and_an_aborted_one_is_not_lost(shop):
    shop.apply({"user": "ann"})
    shop.consumer.positions[CLICKS] = 2
    await shop.poll({})
    assert shop.store.progress.log_offset == 2
    await shop.poll({CLICKS: [Record(b'{"user": "bob", "item": "milk"}', 5000)]})
    assert (shop.store.progress.log_offset, shop.store.progress.lost) == (5001, 0)


@with_shop
async def test_a_transaction_that_somebody_leaves_open_is_reported(shop):
    shop.apply({"user": "ann"})
    shop.consumer.stable_end, shop.consumer.end = 1, 9
    shop.monkeypatch.setattr("stream.worker.log_position.OPEN_FOR_S", -1.0)
    lines: list[str] = []
    shop.monkeypatch.setattr("stream.worker.log_position.log.warning", lambda line, *parts: lines.append(line % parts))
    await shop.poll({})
    shop.consumer.stable_end = 9
    await shop.poll({})
    [line] = lines
    assert line.startswith(
        "partition 0: nothing behind offset 0 can be read for 0 s: a transaction is open there, with 8"
    )


@with_shop
async def test_a_batch_that_cannot_be_read_is_counted_as_lost_and_what_follows_is_applied(shop):
    shop.apply({"user": "ann"})

    async def skipped(*_, **__):
        shop.consumer.positions[CLICKS] = 4
        return Polled({}, Unreadable(CLICKS, 1, 1, 4))

    shop.monkeypatch.setattr("stream.kafka.reader.Reader.poll", skipped)
    polling = shop.start(shop.pipeline.consume())
    await until(lambda: shop.store.progress.lost == 3)
    polling.cancel()
    shop.monkeypatch.undo()
    await shop.poll({CLICKS: [Record(b'{"user": "bob", "item": "milk"}', 4)]})
    assert (shop.store.progress.log_offset, shop.store.progress.applied, shop.store.progress.lost) == (5, 2, 3)


@with_shop
async def test_what_cannot_be_read_is_counted_as_lost_in_whichever_read_of_a_poll_it_was(shop):
    shop.apply({"user": "ann"})
    shop.consumer.positions[CLICKS] = 4
    reads = [Polled({}), Polled({}, Unreadable(CLICKS, 1, 1, 4))]
    polls = iter([FairPoll({}, {}, {0: shop.store}, False, reads)])

    async def poll(*_):
        if (polled := next(polls, None)) is None:
            raise ConsumerStoppedError
        return polled

    shop.monkeypatch.setattr("stream.worker.pipeline.poll", poll)
    await shop.pipeline.consume()
    assert (shop.store.progress.log_offset, shop.store.progress.lost) == (4, 3)


@with_shop
async def test_a_partition_of_requests_that_is_revoked_while_its_beginning_is_looked_up_ends_nothing(shop):
    shop.apply({"user": "ann"})
    shop.consumer.positions[REQUESTS] = 3

    async def beginning_offsets(partitions):
        shop.consumer.assigned.discard(REQUESTS)
        return dict.fromkeys(partitions, 5)

    shop.consumer.beginning_offsets = beginning_offsets
    await shop.poll(OffsetOutOfRangeError({REQUESTS: 3}), {CLICKS: shop.records({"user": "bob"})})
    assert shop.store.progress.applied == 2


@with_shop
async def test_requests_go_on_where_the_log_of_requests_begins_now(shop):
    shop.apply({"user": "ann"})
    shop.consumer.positions[REQUESTS] = 3
    shop.consumer.begin, shop.consumer.end = 5, 9
    await shop.poll(OffsetOutOfRangeError({REQUESTS: 3}))
    assert shop.consumer.positions[REQUESTS] == 5


@with_shop
async def test_an_invalid_request_goes_to_the_dead_letters_and_the_next_one_is_answered(shop):
    shop.apply({"user": "ann"})
    bad = [b"no request", b"[" * 5000, '{"user": "José"}'.encode("latin-1"), b'{"user": "\\ud800"}', None]
    await shop.poll({REQUESTS: [Record(value, n) for n, value in enumerate([*bad, b'{"user": "ann"}'])]})
    assert [topic for topic, *_ in shop.producer.sent] == [
        *[shop.config.topics.dead_letters] * len(bad),
        shop.config.topics.replies,
    ]


@with_shop
async def test_without_the_lease_nothing_is_sent(shop):
    shop.apply({"user": "ann"}, {"user": "bob", "event": "forget"})
    shop.lease.held = False

    async def refused(offsets):
        raise TimeoutError

    shop.consumer.commit = refused
    shop.start(shop.pipeline.answer())
    await shop.poll({REQUESTS: [Record(b"no request", 0), Record(b'{"user": "ann"}', 1)]}, {})
    assert shop.producer.sent == []


@with_shop
async def test_the_group_gets_the_next_offset_of_each_partition_in_its_own_log(shop):
    shop.apply({"user": "ann"}, {"user": "bob"})
    shop.store.progress.base = 1  # an embedded broker began a new log after one event
    await shop.poll({})
    assert shop.consumer.committed[CLICKS] == 1


@with_shop
async def test_the_group_is_committed_while_a_partition_of_requests_has_no_position_yet(shop):
    shop.apply({"user": "ann"})
    real = shop.consumer.position

    async def position(partition):
        return await (asyncio.Event().wait() if partition == REQUESTS else real(partition))

    shop.consumer.position = position
    await asyncio.wait_for(shop.poll({}), 10)
    assert shop.consumer.committed == {CLICKS: 1}


@pytest.mark.parametrize("held", [True, False])
def test_a_lapse_of_the_lease_is_logged_once_and_its_end_too(tmp_path, monkeypatch, caplog, held):
    async def run() -> None:
        shop = Shop(Config(data=tmp_path), monkeypatch)
        await shop.assign()
        shop.lease.held = held
        real = shop.consumer.commit

        async def refused(offsets):
            raise TimeoutError

        shop.consumer.commit = refused
        await shop.poll({}, {})
        shop.consumer.commit = real
        await shop.poll({})
        await shop.close()

    with caplog.at_level("INFO", "anabranch.worker"):
        asyncio.run(run())
    assert caplog.text.count("the group has not confirmed this worker") == (not held)
    assert caplog.text.count("it goes on") == (not held)
