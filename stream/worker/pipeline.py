"""The path of an event, from the clicks topic to the recommendations topic.

The commit order, and what a crash after each step does (`tests/crash` dies there):

    1 decode            nothing is changed; the batch is read again
    2 apply in memory   lost with the process; the batch is read again
    3 write             state, journal and next offset are in RocksDB or none of them is. Dead letters were
                        acknowledged before, so a crash between can repeat one, never lose one
    4 rank the owed     the users are still owed: the journal past the `answered` mark says so. Before it has folded
                        all that the log held when the partition became ours, which the owner before may have answered,
                        nothing is said: a word taken back would stand where we die and that owner comes back
    5 produce           the message may be sent again after a restart, with the same partition and offset
    6 record answers    the message was sent and is known as sent; where nobody is owed anything, that is known too
    7 commit the group  for lag monitors only: on assignment the store's own offset is sought. Accepted, it says that
                        the partitions are still ours: without that for a session timeout, 3 and 5 are not done
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from state import crash_points as steps
from state.errors import StoreFault
from state.events import hash_id
from state.pending import Unanswered
from state.store import Store
from stream.config import Config
from stream.kafka.decode import DeadLetter, Decoder, Record
from stream.kafka.lease import Lease
from stream.kafka.messages import UNREADABLE, Request
from stream.live_metrics import LiveMetrics, decode_scores
from stream.stores.assignment import Assignment
from stream.stores.partition_stores import PartitionStores, look_at_clocks, skip
from stream.worker.outbox import LeaseLost, Outbox
from stream.worker.poll_size import PollSize
from stream.worker.recommender import Answer, Recommender

COMMIT_EVERY_S = 1.0
RANKED_HERE_USERS = 8
LAPSED_FOR_S = 0.1
"""Between looks at whether the group confirms us again."""
BROKERS_OWN = 1
"""Offsets in a row that hold no event: a transaction's end takes one. Where more are missing, the log is asked."""
SENDING_BATCHES = 4
"""Batches of answers on their way to the broker while the next is ranked."""


log = logging.getLogger("anabranch.worker")


class Worker:
    """Folds clicks into state and answers every touched user; one event loop, one thread for torch."""

    def __init__(
        self,
        config: Config,
        consumer: AIOKafkaConsumer,
        producer: AIOKafkaProducer,
        partitions: PartitionStores,
        ranker: Recommender,
        lease: Lease,
        *,
        cluster: str,
    ) -> None:
        self._config, self._topics = config, config.topics
        self._consumer, self._outbox = consumer, Outbox(config.topics, producer, lease)
        self._partitions, self._ranker, self._lease = partitions, ranker, lease
        self.tenure = Assignment(config, consumer, partitions, cluster, settled=self._settled, changed=self._changed)
        self._decoder = Decoder(config.clicks, config.state)
        self._prequential = LiveMetrics(config.worker.standing_users)
        self._stride = PollSize(config.worker.poll_max_events, config.worker.fold_hold_ms / 1000)
        self._touched = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        self._behind = False
        self._committed_at = 0.0
        self._told_of_lapse = False
        self._cluster, self._clocks_seen = cluster, False
        self._failure: BaseException | None = None

    async def consume(self) -> None:
        """Poll, fold, for ever. Raises StateError where a store cannot be used."""
        self._consumer.subscribe([self._topics.clicks, self._topics.requests], listener=self.tenure)
        wait = self._config.worker.poll_wait_ms
        while True:
            limit = self._stride.events
            try:
                polled = await self._consumer.getmany(timeout_ms=wait, max_records=limit)
            except ConsumerStoppedError:
                return
            if self._failure is not None:
                raise self._failure
            await self._commit_group()
            behind, self._behind = self._behind, sum(map(len, polled.values())) >= limit
            if behind and not self._behind:
                self._touched.set()
            for partition, records in polled.items():
                if partition.topic == self._topics.clicks:
                    await self._fold(partition, records)
                else:
                    await self._reply(partition.partition, records)
            await self.tenure.mend()
            if await self.tenure.catch_up():
                self._touched.set()
            for number in self.tenure.stores():
                await self._tend(number)
            await asyncio.sleep(0)

    async def _fold(self, partition: TopicPartition, records: Sequence[Record]) -> None:
        number = partition.partition
        store = self.tenure.store(number)
        if store is None:
            return
        if not self._clocks_seen:
            self._clocks_seen = True
            look_at_clocks(records[0], self._config, self._cluster)
        if store.progress.logical(records[0].offset) < store.progress.next_offset:
            log.error("partition %d: the log went back to offset %d", number, records[0].offset)
            return await self.tenure.reopen(number)
        try:
            if store.progress.logical(records[0].offset) > store.progress.next_offset + BROKERS_OWN:
                begin = (await self._consumer.beginning_offsets([partition]))[partition]
                if self.tenure.store(number) is not store:
                    return
                if store.progress.logical(begin) > store.progress.next_offset:
                    skip(store, number, records[0].offset, self._config)
            began = time.perf_counter()
            decoded = self._decoder.decode(records, store.progress)
            decoded_s = time.perf_counter() - began
            steps.reached(1)
            await self._outbox.bury(self._topics.clicks, number, decoded.dead)
            if not self._lease.held:
                raise LeaseLost
            if self.tenure.store(number) is not store:  # it was another's while the dead letters were on their way
                return
            scores, events = decode_scores(store.prequential()), decoded.batch.events
            counted = events[store.kinds.counts[events["kind"]]]
            tested = self._prequential.test(counted, scores)
            self._ranker.learn(store, counted)
            began = time.perf_counter()
            applied = store.apply(  # steps 2 and 3
                decoded.batch,
                store.progress.logical(records[-1].offset + 1),
                dead=len(decoded.dead),
                key_mismatch=decoded.key_mismatch,
                prequential=msgspec.json.encode(scores) if tested else None,
            )
        except StoreFault as fault:
            self.tenure.fault(fault)
        except (LeaseLost, KafkaError):
            if partition in self._consumer.assignment():
                self._consumer.seek(partition, store.progress.log_offset)
            await asyncio.sleep(LAPSED_FOR_S)
        else:
            self._stride.took(len(records), decoded_s + time.perf_counter() - began)
            self._ranker.take_in(applied)
            self._prequential.forget(applied.forgotten.tolist())
            await self._tend(number)
            self._touched.set()

    async def _tend(self, number: int) -> None:
        """Do a little of what is left to do for users who are to be forgotten; say where nobody is owed anything."""
        store = self.tenure.store(number)
        if store is None or not self._lease.held:
            return
        try:
            if number in self.tenure.speaking():
                if store.erasures.without_tombstone():
                    async with self.tenure.turn:
                        if self._partitions.stores.get(number) is not store:
                            return
                        await self._tell(store)
                store.record_all_answered()
            store.erasures.sweep()
        except StoreFault as fault:
            self.tenure.fault(fault)
        except LeaseLost:
            return

    async def _tell(self, store: Store) -> None:
        """Send tombstones to the forgotten, behind what is on its way to them. The caller has the turn."""
        if not store.tombstones():
            return
        if self._sending:
            await asyncio.wait(self._sending)
        gone = store.tombstones()
        await self._outbox.forget([erasure.id for erasure in gone])
        store.record_tombstones(gone)

    async def answer(self) -> None:
        """Work the owed users off, newest first, for ever; ingest that is behind goes before."""
        while True:
            await self._touched.wait()
            self._touched.clear()
            while not self._behind and self._lease.held and (owed := self._most_owed()) is not None:
                async with self.tenure.turn:
                    number, store = owed
                    if self._partitions.stores.get(number) is not store:
                        continue
                    try:
                        await self._tell(store)
                        unanswered = store.pending.claim(self._config.worker.rank_batch_users)
                    except LeaseLost:
                        break
                    except StoreFault as fault:
                        self.tenure.fault(fault)
                        break
                    if not unanswered and store.pending.in_memory:  # all of them have an older answer on its way
                        break
                    if not unanswered:
                        await asyncio.sleep(0)
                        continue
                    try:
                        answers = await self._rank(number, unanswered)
                    except StoreFault as fault:
                        store.pending.release(unanswered)
                        self.tenure.fault(fault)
                        break
                    steps.reached(4)
                    for answer in answers:
                        self._prequential.remember(answer.user, answer.standing)
                    sending = asyncio.create_task(self._send(store, answers))
                    self._sending.add(sending)
                    sending.add_done_callback(self._sent)
                while len(self._sending) >= SENDING_BATCHES:
                    await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)

    async def _send(self, store: Store, answers: list[Answer]) -> None:
        """Send while the next users are ranked: the broker's word takes as long as the ranking."""
        try:
            # Who was forgotten while being ranked has no id any more; the tombstone comes behind this.
            await self._outbox.recommend([a for a in answers if a.user_id])
            steps.reached(5)
            store.record_answers([(a.user, a.message) for a in answers])
            steps.reached(6)
        except LeaseLost:
            store.pending.release(a.user for a in answers)
        except StoreFault as fault:
            self.tenure.fault(fault)
        self._touched.set()  # a user whose answer was on its way may be owed another

    def _sent(self, sending: asyncio.Task[None]) -> None:
        self._sending.discard(sending)
        if not sending.cancelled() and (error := sending.exception()) is not None:
            self._failure = error

    async def _rank(self, number: int, unanswered: dict[int, Unanswered]) -> list[Answer]:
        # A few users are ranked sooner than a thread is woken; many would keep heartbeats and polls waiting.
        if len(unanswered) <= RANKED_HERE_USERS:
            return self._ranker.answer(number, unanswered)
        return await asyncio.to_thread(self._ranker.answer, number, unanswered)

    async def _reply(self, number: int, records: Sequence[Record]) -> None:
        """Answer "recommend for this user now" from the store of the user's partition."""
        store = self._partitions.stores.get(number)
        if store is None:
            return
        for record in records:
            try:
                try:
                    request = msgspec.json.decode(record.value or b"", type=Request)
                    user = hash_id(str(request.user))
                except (*UNREADABLE, UnicodeEncodeError) as error:
                    await self._outbox.bury(self._topics.requests, number, [DeadLetter(record, f"no request: {error}")])
                    continue
                async with self.tenure.turn:
                    if self._partitions.stores.get(number) is not store:
                        return
                    unanswered = {user: Unanswered(store.progress.next_offset, store.progress.next_offset - 1, -1)}
                    answers = await self._rank(number, unanswered)
                await self._outbox.reply(request, answers[0])
            except LeaseLost:
                return
            except StoreFault as fault:
                return self.tenure.fault(fault)

    async def _commit_group(self) -> None:
        if self._lease.held and time.monotonic() - self._committed_at < COMMIT_EVERY_S:
            return
        self._committed_at = time.monotonic()
        offsets = {
            TopicPartition(self._topics.clicks, number): store.progress.log_offset
            for number, store in self._partitions.stores.items()
        }
        if not offsets:
            return
        asked_at = self._lease.now()
        # While a rebalance is under way it fails; the store's own offsets decide.
        with contextlib.suppress(KafkaError, TimeoutError):
            for partition in self._consumer.assignment():
                if partition.topic == self._topics.requests:
                    offsets[partition] = await self._consumer.position(partition)
            await asyncio.wait_for(self._consumer.commit(offsets), self._config.worker.session_timeout_ms / 1000)
            lapsed = not self._lease.held
            self._lease.confirmed(asked_at)
            steps.reached(7)
            if lapsed:
                self._touched.set()
            if self._told_of_lapse:
                log.info("the group confirms this worker again: it goes on")
                self._told_of_lapse = False
        if not self._lease.held and not self._told_of_lapse and self._lease.was_held:
            self._told_of_lapse = True
            log.warning(
                "the group has not confirmed this worker for %.1f s (the broker at %s is away or slow, or this process "
                "was stopped): nothing is folded or sent until it does",
                self._config.worker.session_timeout_ms / 1000, self._config.broker,
            )  # fmt: skip

    def _most_owed(self) -> tuple[int, Store] | None:
        number, store = max(
            self.tenure.speaking().items(), key=lambda entry: entry[1].pending.waiting, default=(0, None)
        )
        return (number, store) if store is not None and store.pending.waiting else None

    async def _settled(self) -> None:
        await asyncio.gather(*self._sending, return_exceptions=True)

    def _changed(self) -> None:
        self._ranker.reset_clicks()
        self._touched.set()
