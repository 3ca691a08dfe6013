"""The path of an event, from the clicks topic to the recommendations topic.

The commit order, and what a crash after each step does (`tests/crash` dies there):

    1 decode            nothing is changed; the batch is read again
    2 apply in memory   lost with the process; the batch is read again
    3 write             state, journal and next offset are in RocksDB or none of them is. Dead letters were
                        acknowledged before, so a crash between can repeat one, never lose one
    4 rank the owed     the users are still owed: the journal past the `answered` mark says so
    5 produce           the message may be sent again after a restart, with the same partition and offset
    6 record answers    the message was sent and is known as sent
    7 commit the group  for lag monitors only: on assignment the store's own offset is sought. Accepted, it says that
                        the partitions are still ours: without that for a session timeout, 3 and 5 are not done
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from state import steps
from state.errors import StateError, StoreFault, StoreUnreadable
from state.events import hash_id
from state.owed import Debt
from state.store import Store
from stream.config import Config
from stream.decode import DeadLetter, Decoder, Record
from stream.errors import BrokerUnavailable
from stream.lease import Lease
from stream.messages import Request
from stream.opening import Opening, known_topic_id
from stream.outbox import LeaseLost, Outbox
from stream.partitions import Partitions, rebuilt_path, skip
from stream.prequential import Prequential, decode_scores
from stream.ranker import Answer, Ranker

COMMIT_EVERY_S = 1.0
RANKED_HERE_USERS = 8
LAPSED_FOR_S = 0.1
"""Between looks at whether the group confirms us again."""
WATCH_EVERY_S = 10.0
BROKERS_OWN = 1
"""Offsets in a row that hold no event: a transaction's end takes one. Where more are missing, the log is asked."""
SENDING_BATCHES = 4
"""Batches of answers on their way to the broker while the next is ranked."""


log = logging.getLogger("anabranch.worker")


class Worker(ConsumerRebalanceListener):  # type: ignore[misc]
    """Folds clicks into state and answers every touched user; one event loop, one thread for torch."""

    def __init__(
        self,
        config: Config,
        consumer: AIOKafkaConsumer,
        producer: AIOKafkaProducer,
        partitions: Partitions,
        ranker: Ranker,
        lease: Lease,
        *,
        cluster: str,
    ) -> None:
        self._config, self._topics = config, config.topics
        self._consumer, self._outbox = consumer, Outbox(config.topics, producer, lease)
        self._partitions, self._ranker, self._lease = partitions, ranker, lease
        self._cluster = cluster
        self._opening = Opening(config, consumer, partitions, cluster, self._opened)
        self._decoder = Decoder(config.clicks, config.state)
        self._prequential = Prequential(config.worker.standing_users)
        self._turn = asyncio.Lock()  # held while users of a store are being answered: it must not close then
        self._touched = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        self._faults: dict[int, StoreFault] = {}
        self._behind = False
        self._committed_at = 0.0
        self._told_of_lapse = False
        self._failure: BaseException | None = None

    async def consume(self) -> None:
        """Poll, fold, for ever. Raises StateError where a store cannot be used."""
        self._consumer.subscribe([self._topics.clicks, self._topics.requests], listener=self)
        limit, wait = self._config.worker.poll_max_events, self._config.worker.poll_wait_ms
        while True:
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
            for number, fault in list(self._faults.items()):
                await self.reopen(number, fault)
            for number in list(self._partitions.stores):
                await self._tend(number)
            await asyncio.sleep(0)

    async def open_assigned(self) -> None:
        """Open the stores of assigned partitions as they come, for ever: that can take a download."""
        try:
            await self._opening.run()
        except StateError as error:
            self._failure = error

    async def _fold(self, partition: TopicPartition, records: Sequence[Record]) -> None:
        number = partition.partition
        store = self._partitions.stores.get(number)
        if store is None or number in self._faults:  # revoked or closed meanwhile; whoever opens it reads these again
            return
        if records[0].offset + store.state.base < store.state.next_offset:
            log.error("partition %d: the log went back to offset %d", number, records[0].offset)
            return await self.reopen(number)
        try:
            if records[0].offset + store.state.base > store.state.next_offset + BROKERS_OWN:
                begin = (await self._consumer.beginning_offsets([partition]))[partition]
                if begin + store.state.base > store.state.next_offset:
                    skip(store, number, records[0].offset, self._topics.clicks)
            decoded = self._decoder.decode(records, store.state.base)
            steps.reached(1)
            await self._outbox.bury(self._topics.clicks, number, decoded.dead)
            if not self._lease.held:
                raise LeaseLost
            scores, events = decode_scores(store.prequential()), decoded.batch.events
            tested = self._prequential.test(events[store.kinds.counts[events["kind"]]], scores)
            applied = store.apply(  # steps 2 and 3
                decoded.batch,
                records[-1].offset + 1 + store.state.base,
                dead=len(decoded.dead),
                key_mismatch=decoded.key_mismatch,
                prequential=msgspec.json.encode(scores) if tested else None,
            )
        except StoreFault as fault:
            self._fault(fault)
        except (LeaseLost, KafkaError):
            if partition in self._consumer.assignment():
                self._consumer.seek(partition, store.state.next_offset - store.state.base)
            await asyncio.sleep(LAPSED_FOR_S)
        else:
            self._ranker.take_in(applied)
            self._prequential.forget(applied.forgotten.tolist())
            await self._tend(number)
            self._touched.set()

    async def _tend(self, number: int) -> None:
        """Do a little of what is left to do for users who are to be forgotten."""
        store = self._partitions.stores.get(number)
        if store is None or number in self._faults or not self._lease.held:
            return
        try:
            if untold := store.untold():
                async with self._turn:  # behind what is on its way to them, and before what they may be owed anew
                    if self._sending:
                        await asyncio.wait(self._sending)
                    await self._outbox.forget([erasure.id for erasure in untold])
                    if self._partitions.stores.get(number) is not store:
                        return
                    for erasure in untold:
                        store.told(erasure)
            store.sweep()
        except StoreFault as fault:
            self._fault(fault)
        except LeaseLost:
            return

    async def answer(self) -> None:
        """Work the owed users off, newest first, for ever; ingest that is behind goes before."""
        while True:
            await self._touched.wait()
            self._touched.clear()
            while not self._behind and self._lease.held and (owed := self._most_owed()) is not None:
                async with self._turn:
                    number, store = owed
                    if self._partitions.stores.get(number) is not store:
                        continue
                    debts = store.owed.take(self._config.worker.rank_batch_users)
                    if not debts:  # all who are owed have an older answer on its way
                        break
                    try:
                        answers = await self._rank(number, debts)
                    except StoreFault as fault:
                        store.owed.give_back(debts)
                        self._fault(fault)
                        break
                    steps.reached(4)
                    for answer in answers:
                        self._prequential.stand(answer.user, answer.standing)
                    sending = asyncio.create_task(self._send(store, answers))
                    self._sending.add(sending)
                    sending.add_done_callback(self._sent)
                while len(self._sending) >= SENDING_BATCHES:
                    await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)

    async def _send(self, store: Store, answers: list[Answer]) -> None:
        """Send while the next users are ranked: the broker's word takes as long as the ranking."""
        try:
            await self._outbox.recommend(answers)
            steps.reached(5)
            store.record_answers([(a.user, a.message) for a in answers])
            steps.reached(6)
        except LeaseLost:
            store.owed.give_back(a.user for a in answers)
        except StoreFault as fault:
            self._fault(fault)
        self._touched.set()  # a user whose answer was on its way may be owed another

    def _fault(self, fault: StoreFault) -> None:
        """Have the store of a fault opened anew before anything else is folded into it."""
        number = next((n for n, s in self._partitions.stores.items() if s.path == fault.path), None)
        if number is None:
            raise fault
        self._faults[number] = fault

    def _sent(self, sending: asyncio.Task[None]) -> None:
        self._sending.discard(sending)
        if not sending.cancelled() and (error := sending.exception()) is not None:
            self._failure = error

    async def _rank(self, number: int, debts: dict[int, Debt]) -> list[Answer]:
        # A few users are ranked sooner than a thread is woken; many would keep heartbeats and polls waiting.
        if len(debts) <= RANKED_HERE_USERS:
            return self._ranker.answer(number, debts)
        return await asyncio.to_thread(self._ranker.answer, number, debts)

    async def _reply(self, number: int, records: Sequence[Record]) -> None:
        """Answer "recommend for this user now" from the store of the user's partition."""
        store = self._partitions.stores.get(number)
        if store is None:
            return
        for record in records:
            try:
                request = msgspec.json.decode(record.value or b"", type=Request)
            except msgspec.MsgspecError as error:
                await self._outbox.bury(self._topics.requests, number, [DeadLetter(record, f"no request: {error}")])
                continue
            user = hash_id(request.user)
            try:
                async with self._turn:
                    debts = {user: Debt(store.state.next_offset, store.state.next_offset - 1, -1)}
                    answers = await self._rank(number, debts)
                await self._outbox.reply(request, answers[0])
            except LeaseLost:
                return
            except StoreFault as fault:
                return self._fault(fault)

    async def _commit_group(self) -> None:
        if self._lease.held and time.monotonic() - self._committed_at < COMMIT_EVERY_S:
            return
        self._committed_at = time.monotonic()
        offsets = {
            TopicPartition(self._topics.clicks, number): store.state.next_offset - store.state.base
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
        number, store = max(self._partitions.stores.items(), key=lambda entry: entry[1].owed.waiting, default=(0, None))
        return (number, store) if store is not None and store.owed.waiting and number not in self._faults else None

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        """Have the stores opened; until each is, nothing of its partition is read."""
        self._opening.add(p for p in assigned if p.topic == self._topics.clicks)

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        """Let the answers under way finish, then close the stores."""
        clicks = [p for p in revoked if p.topic == self._topics.clicks]
        self._opening.discard(clicks)
        await self._close([p.partition for p in clicks])

    def pause(self, paused: bool) -> None:
        """Stop or go on reading clicks; answers and requests are not affected."""
        self._opening.paused = paused
        clicks = [TopicPartition(self._topics.clicks, number) for number in self._partitions.stores]
        if paused:
            self._consumer.pause(*clicks)
        else:
            self._consumer.resume(*clicks)

    async def swap(self) -> int:
        """Put completed rebuilds in the place of the stores being served; return how many."""
        waiting = [n for n, store in self._partitions.stores.items() if rebuilt_path(store.path).exists()]
        for number in waiting:
            await self.reopen(number)
        return len(waiting)

    async def watch_log(self) -> None:
        """Notice a topic that is deleted and made again while it is read, for ever."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            for number, store in list(self._partitions.stores.items()):
                identity = store.identity
                with contextlib.suppress(KafkaError, BrokerUnavailable):
                    now = await known_topic_id(self._config, self._cluster)
                    if identity is not None and identity.topic_id and now not in ("", identity.topic_id):
                        await self.reopen(number)

    async def reopen(self, number: int, fault: StoreFault | None = None) -> None:
        """Close a store and open what is right for its partition now: one that is damaged is moved aside before."""
        await self._close([number])
        partition = TopicPartition(self._topics.clicks, number)
        if isinstance(fault, StoreUnreadable):
            self._partitions.move_aside(number, str(fault))
        if partition in self._consumer.assignment():
            self._opening.add([partition])

    async def _close(self, numbers: list[int]) -> None:
        async with self._turn, self._partitions.copying:
            await asyncio.gather(*self._sending, return_exceptions=True)
            for number in numbers:
                self._partitions.close(number)
                self._faults.pop(number, None)
            self._ranker.recount()

    def _opened(self) -> None:
        self._ranker.recount()
        self._touched.set()
