"""The path of an event, from the clicks topic to the recommendations topic.

The commit order, and what a crash after each step does (`tests/crash` dies there):

    1 decode            nothing is changed; the batch is read again
    2 apply in memory   lost with the process; the batch is read again
    3 write             state, journal and next offset are in RocksDB or none of them is. Dead letters were
                        acknowledged before, so a crash between can repeat one, never lose one
    4 rank the owed     the users are still owed: the journal past the `answered` mark says so
    5 produce           the message may be sent again after a restart, with the same partition and offset
    6 record answers    the message was sent and is known as sent
    7 commit the group  for lag monitors only: on assignment the store's own offset is sought
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from state import steps
from state.events import hash_id
from state.owed import Debt
from state.store import Store
from stream.config import Config
from stream.decode import DeadLetter, Decoder, Record
from stream.messages import Request
from stream.outbox import Outbox
from stream.partitions import Partitions
from stream.prequential import Prequential, decode_scores
from stream.ranker import Answer, Ranker

COMMIT_EVERY_S = 1.0
RANKED_HERE_USERS = 8
SENDING_BATCHES = 4
"""Batches of answers on their way to the broker while the next is ranked."""


class Worker(ConsumerRebalanceListener):  # type: ignore[misc]
    """Folds clicks into state and answers every touched user; one event loop, one thread for torch."""

    def __init__(
        self,
        config: Config,
        consumer: AIOKafkaConsumer,
        producer: AIOKafkaProducer,
        partitions: Partitions,
        ranker: Ranker,
    ) -> None:
        self._config, self._topics = config, config.topics
        self._consumer, self._outbox = consumer, Outbox(config.topics, producer)
        self._partitions, self._ranker = partitions, ranker
        self._decoder = Decoder(config.clicks)
        self._prequential = Prequential(config.worker.standing_users)
        self._turn = asyncio.Lock()  # held while users of a store are being answered: it must not close then
        self._touched = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        self._behind = False
        self._committed_at = 0.0
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
            self._behind = sum(map(len, polled.values())) >= limit
            for partition, records in polled.items():
                if partition.topic == self._topics.clicks:
                    await self._fold(partition.partition, records)
                else:
                    await self._reply(partition.partition, records)
            await self._commit_group()
            await asyncio.sleep(0)

    async def _fold(self, number: int, records: Sequence[Record]) -> None:
        store = self._partitions.stores.get(number)
        if store is None:  # revoked while the poll was under way; its next owner reads these again
            return
        decoded = self._decoder.decode(records, store.state.base)
        steps.reached(1)
        await self._outbox.bury(self._topics.clicks, number, decoded.dead)
        scores = decode_scores(store.prequential())
        tested = self._prequential.test(decoded.batch.events, scores)
        applied = store.apply(  # steps 2 and 3
            decoded.batch,
            records[-1].offset + 1 + store.state.base,
            dead=len(decoded.dead),
            key_mismatch=decoded.key_mismatch,
            prequential=msgspec.json.encode(scores) if tested else None,
        )
        self._ranker.clicked(applied.events)
        self._touched.set()

    async def answer(self) -> None:
        """Work the owed users off, newest first, for ever; ingest that is behind goes before."""
        while True:
            await self._touched.wait()
            self._touched.clear()
            while not self._behind and (owed := self._most_owed()) is not None:
                async with self._turn:
                    number, store = owed
                    if self._partitions.stores.get(number) is not store:
                        continue
                    debts = store.owed.take(self._config.worker.rank_batch_users)
                    if not debts:  # all who are owed have an older answer on its way
                        break
                    answers = await self._rank(number, debts)
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
        await self._outbox.recommend(answers)
        steps.reached(5)
        store.record_answers([(a.user, a.message) for a in answers])
        steps.reached(6)
        self._touched.set()  # a user whose answer was on its way may be owed another

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
            async with self._turn:
                debts = {user: Debt(store.state.next_offset, store.state.next_offset - 1, -1)}
                answers = await self._rank(number, debts)
            await self._outbox.reply(request, answers[0])

    async def _commit_group(self) -> None:
        if time.monotonic() - self._committed_at < COMMIT_EVERY_S:
            return
        self._committed_at = time.monotonic()
        offsets = {
            TopicPartition(self._topics.clicks, number): store.state.next_offset - store.state.base
            for number, store in self._partitions.stores.items()
        }
        for partition in self._consumer.assignment():
            if partition.topic == self._topics.requests:
                offsets[partition] = await self._consumer.position(partition)
        if offsets:
            # While a rebalance is under way it fails; the store's own offsets decide.
            with contextlib.suppress(KafkaError):
                await self._consumer.commit(offsets)
                steps.reached(7)

    def _most_owed(self) -> tuple[int, Store] | None:
        number, store = max(self._partitions.stores.items(), key=lambda entry: entry[1].owed.waiting, default=(0, None))
        return (number, store) if store is not None and store.owed.waiting else None

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        """Open the stores and seek to the offset each has come to."""
        clicks = [p for p in assigned if p.topic == self._topics.clicks]
        try:
            begins = await self._consumer.beginning_offsets(clicks)
            ends = await self._consumer.end_offsets(clicks)
            count = len(self._consumer.partitions_for_topic(self._topics.clicks) or ())
            for partition in clicks:
                store = self._partitions.open(partition.partition, count, begins[partition], ends[partition])
                self._consumer.seek(partition, max(store.state.next_offset - store.state.base, begins[partition]))
        except Exception as error:  # the Kafka client would swallow it, and clicks would pass by unread
            self._failure = error
        self._ranker.recount()
        self._touched.set()

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        """Let the answers under way finish, then close the stores."""
        async with self._turn:
            await asyncio.gather(*self._sending)
            for partition in revoked:
                if partition.topic == self._topics.clicks:
                    self._partitions.close(partition.partition)
            self._ranker.recount()
