"""The path of an event, from the clicks topic to the recommendations topic, in seven numbered steps.

The commit order, and what a crash after each step does (`tests/crash` kills the process there):

    1 decode            nothing is changed; the batch is read again. Dead letters, and tombstones of forgotten users
                        whom the store does not know, are acknowledged before step 3: a crash can repeat one, never
                        lose one
    2 apply in memory   lost with the process; the batch is read again
    3 write             state, journal and next offset are in RocksDB, or none of them is
    4 rank              the users are still pending: the journal past the `answered` offset has them
    5 send              the message may be sent again after a restart, with the same partition and offset
    6 record answers    the message was sent and is known as sent
    7 commit the group  for lag monitors only: on assignment the store's own offset is sought. Accepted, it renews the
                        lease: without that for a session timeout, steps 3 and 5 are not done

Three loops run side by side. `consume` does steps 1 to 3, `answer` does steps 4 to 6, and both of `consume` and
`keep_lease` do step 7. A poll has a share of every partition (`stream/worker/poll.py`), and requests are answered
between its batches: no flood keeps others waiting. Stores are used in a `hold`, in which they are not closed
(`stream/stores/assignment.py`): a partition that is revoked while its answers are being sent is given up after step 6.
Within a hold, `answering_lock` lets one ranking run at a time.
"""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from state import crash_points
from state.errors import StoreFault
from state.id_hash import UNKEYED, IdHash
from state.pending import Unanswered
from state.store import Applied, Store
from stream.config import Config
from stream.kafka.decode import Decoded, Decoder, Record
from stream.kafka.lease import Lease, LeaseLost
from stream.kafka.reader import Reader
from stream.live_metrics import LiveMetrics, decode_scores, encode_scores
from stream.stores.assignment import Assignment, Phase
from stream.tracing.headers import Trace, WaitingTraces, traces_of
from stream.tracing.spans import Spans
from stream.worker.direct_answers import DirectAnswers
from stream.worker.example_path import ExamplePath
from stream.worker.example_sender import ExampleSender
from stream.worker.group_commit import COMMIT_EVERY_S, GroupCommit
from stream.worker.key_warnings import KeyChecks
from stream.worker.log_position import LogPosition
from stream.worker.observed import Observed
from stream.worker.outbox import Outbox
from stream.worker.poll import poll
from stream.worker.poll_size import MAX_SLOW_RECORDS, PollSize, affordable
from stream.worker.recommendation import Answer
from stream.worker.recommender import Recommender
from stream.worker.requests import Requests
from stream.worker.sends_in_flight import SendsInFlight
from stream.worker.tombstones import Tombstones

NONE_LEFT = sys.maxsize
"""More than the records of any poll."""


class Pipeline:
    """Applies clicks to the state and answers every user they touch; one event loop, one thread for torch."""

    def __init__(
        self,
        config: Config,
        consumer: AIOKafkaConsumer,
        producer: AIOKafkaProducer,
        assignment: Assignment,
        recommender: Recommender,
        lease: Lease,
        *,
        id_hash: IdHash = UNKEYED,
        spans: Spans | None = None,
        observed: Observed | None = None,
        examples: ExampleSender | None = None,
    ) -> None:
        """Without `examples` none are sent."""
        self.observed = observed or Observed()
        instruments = self.observed.instruments
        self._config, self._topics = config, config.topics
        self._consumer, self._assignment, self._lease = consumer, assignment, lease
        self._reader = Reader(consumer, assignment.log_offset)
        self._recommender, self.outbox = recommender, Outbox(config.topics, producer, lease, instruments.dead_letters)
        self._log_position = LogPosition(config, consumer, assignment)
        self._decoder = Decoder(config.clicks, config.state, id_hash)
        self._keys = KeyChecks((config.topics.clicks, config.topics.requests), assignment.stores)
        self._poll_size = PollSize(config.worker.poll_max_events, config.worker.fold_hold_ms / 1000)
        self._metrics = LiveMetrics(config.worker.standing_users)
        self._spans, self._waiting_traces = spans or Spans(), WaitingTraces()
        self._in_flight, self._answering_lock = SendsInFlight(), asyncio.Lock()
        self._example_path = ExamplePath(recommender, examples, instruments.examples)
        self.last_shown = recommender.last_shown
        self._tombstones = Tombstones(assignment, self.outbox, self._in_flight, self._answering_lock, examples)
        self.requests = Requests(
            config, assignment, recommender, self.outbox, self._answering_lock, self._commit_the_group,
            self._keys.check, id_hash, instruments.requests,
        )  # fmt: skip
        self.direct = DirectAnswers(config, assignment, recommender, self._answering_lock, id_hash)
        self._group_commit = GroupCommit(config, consumer, assignment, lease, partial(instruments.step, "commit"))
        self._users_may_wait = asyncio.Event()
        """Set where the `answer` loop may have work."""
        self.caught_up_at = time.time()
        """When a poll last took all clicks that the log had."""
        self._behind = False
        """Whether the log holds more than the last poll took. Events are applied before users are answered then."""
        assignment.on_change = self._on_change

    async def consume(self) -> None:
        """Poll and apply, forever: steps 1 to 3, and 7. Raises StateError where a store cannot be used."""
        self._consumer.subscribe([self._topics.clicks, self._topics.requests], listener=self._assignment)
        while True:
            try:
                polled = await poll(
                    self._reader, self._consumer, self._assignment.stores, self._topics.clicks,
                    self._config.worker.poll_wait_ms, self._poll_size.events,
                )  # fmt: skip
            except ConsumerStoppedError:
                return
            self._in_flight.raise_failure()
            await self._commit_the_group()
            was_behind, self._behind = self._behind, polled.behind
            if not polled.behind:
                self.caught_up_at = time.time()
            left = await self._apply_some(polled.clicks, polled.stores, self._poll_size.events)
            await self._log_position.read_requests_again(await self.requests.answer(polled.requests))
            while left:  # they have many slow records
                await self._commit_the_group()
                left = await self._apply_some(left, polled.stores, MAX_SLOW_RECORDS)
            await self._log_position.follow(polled.reads)
            await self._assignment.reopen_faulted()
            if await self._assignment.catch_up() or (was_behind and not self._behind):
                self._users_may_wait.set()
            for number in list(self._assignment.stores):
                await self._tombstones.finish_erasures(number)
            await asyncio.sleep(0)

    async def answer(self) -> None:
        """Answer the pending users, newest first, forever: steps 4 to 6."""
        while True:
            await self._users_may_wait.wait()
            self._users_may_wait.clear()
            while not self._behind and self._lease.held and (number := self._most_pending()) is not None:
                if not await self._rank(number):
                    break
                await self._in_flight.wait_for_room()

    async def keep_lease(self) -> None:
        """Renew the lease, forever: step 7. A batch whose dead letters take longer than it would never be applied."""
        while True:
            await asyncio.sleep(COMMIT_EVERY_S)
            await self._commit_the_group()

    async def _apply_some(
        self, clicks: Mapping[TopicPartition, Sequence[Record]], polled_for: Mapping[int, Store], limit: int
    ) -> dict[TopicPartition, Sequence[Record]]:
        """Apply a batch of at most `limit` records of each partition; return the records that are left."""
        left: dict[TopicPartition, Sequence[Record]] = {}
        for partition, records in clicks.items():
            some = records[:limit]
            traces = traces_of(some)
            with self._spans.process(partition.partition, len(some), traces.values()):
                applied = await self._apply(partition, some, traces, polled_for.get(partition.partition))
            if applied < len(records):
                left[partition] = records[applied:]
        return left

    async def _apply(
        self,
        partition: TopicPartition,
        records: Sequence[Record],
        traces: Mapping[int, Trace],
        polled_for: Store | None,
    ) -> int:
        """Apply the records, or the first of them; return how many, NONE_LEFT where the rest is polled again."""
        ended = False  # stays False where a fault ends the hold, perhaps of another store: learning reads all of them
        async with self._assignment.hold(partition.partition) as store:
            if store is None or store is not polled_for:  # one that was opened since the poll can have another offset
                await self._log_position.read_again(partition)
                return NONE_LEFT
            try:
                if not self._log_position.follows(store, partition, records):
                    return NONE_LEFT
                began = time.perf_counter()
                records, decoded = await self._decode(store, partition.partition, records)
                unknown = await self._send_tombstones_of_unknown(store, partition.partition, decoded)
                decoded_at = time.perf_counter()
            except (LeaseLost, KafkaError):
                await self._log_position.read_again(partition)
                return NONE_LEFT
            applied = self._write(store, partition, records, decoded, unknown)
            ended_at = time.perf_counter()
            self._poll_size.update(len(records), ended_at - began)
            self.observed.applied(store, records, decoded_at - began, ended_at - decoded_at, applied.write_s)
            self._recommender.update(applied)
            self._recommender.clock.see(store.progress.newest_ts)
            self._example_path.follow(store, applied)
            if traces:
                logical = {store.progress.logical(offset): trace for offset, trace in traces.items()}
                self._waiting_traces.add(partition.partition, logical, applied.events)
            self._metrics.forget(applied.forgotten.tolist())
            ended = True
        if not ended:
            await self._log_position.read_again(partition)
        self._users_may_wait.set()
        return len(records) if ended else NONE_LEFT

    # 1 Decode

    async def _decode(self, store: Store, number: int, records: Sequence[Record]) -> tuple[Sequence[Record], Decoded]:
        """Decode the records, or the first of them where more would take long; send what goes before their write."""
        decoded = self._decoder.decode(records, store.progress)
        if (count := affordable(store, records, decoded)) < len(records):
            records = records[:count]
            decoded = self._decoder.decode(records, store.progress)
        crash_points.reached(1)
        await self.outbox.send_dead_letters(self._topics.clicks, number, decoded.dead)
        if not self._lease.held:
            raise LeaseLost
        return records, decoded

    async def _send_tombstones_of_unknown(self, store: Store, number: int, decoded: Decoded) -> list[str]:
        """Send tombstones for forgotten users whom the store does not know: the topic may have an older answer.

        Before the write, as dead letters are: the store keeps no record of such a user. Not while another owner's newer
        answer may be in the topic; the store keeps a record then.
        """
        if self._assignment.phase(number) is not Phase.ANSWERING:
            return []
        unknown = store.unknown_forgotten(decoded.batch)
        await self._tombstones.send_of_unknown(unknown)
        if not self._lease.held:
            raise LeaseLost
        return unknown

    # 2 Apply in memory
    # 3 Write: one call of the store, one WriteBatch; both crash points are in it (`state/store.py`)

    def _write(
        self, store: Store, partition: TopicPartition, records: Sequence[Record], decoded: Decoded, unknown: list[str]
    ) -> Applied:
        scores, events = decode_scores(store.prequential()), decoded.batch.events
        counted = events[store.kinds.counts[events["kind"]]]
        tested = self._metrics.test(counted, scores)  # against the recommendations before these events
        self._recommender.learn(store, counted)
        found = self._keys.check(partition, decoded.keys)
        applied = store.apply(
            decoded.batch,
            store.progress.logical(records[-1].offset + 1),
            dead=len(decoded.dead),
            key_mismatch=decoded.key_mismatch,
            keyless=found.keyless,
            foreign_partition=found.foreign,
            unknown=unknown,
            prequential=encode_scores(scores) if tested else None,
        )
        self.observed.scores[store] = scores
        return applied

    # 4 Rank

    async def _rank(self, number: int) -> bool:
        """Rank some users of a partition and begin to send; False where nothing is left to rank for now."""
        more = False  # stays False where a fault, or a lease that runs out, ends the hold
        async with self._assignment.hold(number) as store:
            if store is None:
                return True  # another partition may have users
            async with self._answering_lock:
                await self._tombstones.send(store)
                users = store.pending.claim(self._config.worker.rank_batch_users)
                if not users:  # a part of the journal had none; or all of them have an older answer in flight
                    await asyncio.sleep(0)
                    return not store.pending.in_memory
                traces = self._waiting_traces.take(number, users)
                began = time.perf_counter()
                try:
                    with self._spans.rank(number, len(users), traces.values()):
                        answers = await self._recommender.recommend_off_loop(number, users)
                except StoreFault:  # perhaps of another partition's store: ranking reads all of them
                    store.pending.release(users)
                    raise
                self.observed.instruments.step("rank", time.perf_counter() - began)
                crash_points.reached(4)
                for answer in answers:
                    self._metrics.remember(answer.user, answer.last_recommendation)
                self._in_flight.add(self._assignment.keep_holding(self._send(store, number, answers, users, traces)))
                more = True
        return more

    # 5 Send

    async def _send(
        self,
        store: Store,
        number: int,
        answers: list[Answer],
        users: Mapping[int, Unanswered],
        traces: Mapping[int, Trace],
    ) -> None:
        began = time.perf_counter()
        # A user who was forgotten during the ranking has no id; the tombstone follows.
        to_send = [answer for answer in answers if answer.user_id]
        try:
            with self._spans.send(number, len(to_send), traces) as headers:
                await self.outbox.send_recommendations(to_send, headers)
        except LeaseLost:
            store.pending.release(answer.user for answer in answers)
            self._waiting_traces.put_back(number, traces, users)
        else:
            crash_points.reached(5)
            sent_at = time.perf_counter()
            self.observed.sent(store, to_send, users, sent_at - began)
            self._record(store, answers)
            self.observed.instruments.step("record", time.perf_counter() - sent_at)
        self._users_may_wait.set()  # users may have become pending again while their answers were in flight

    # 6 Record the answers

    def _record(self, store: Store, answers: list[Answer]) -> None:
        store.record_answers([(answer.user, answer.message) for answer in answers])
        crash_points.reached(6)

    # 7 Commit the group

    async def _commit_the_group(self) -> None:
        if await self._group_commit.commit_if_due():  # the lease is held again
            self._users_may_wait.set()

    def _on_change(self) -> None:
        """A store was opened or closed."""
        self._recommender.versions.reset_clicks()
        self.last_shown.clear()  # another worker may apply what their users do next
        self._users_may_wait.set()  # its fault may have ended the ranking of another partition's users

    def _most_pending(self) -> int | None:
        """The partition with the most users that wait for an answer."""
        waiting = {number: store.pending.waiting for number, store in self._assignment.answering().items()}
        number = max(waiting, key=waiting.__getitem__, default=None)
        return number if number is not None and waiting[number] else None
