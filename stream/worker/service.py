"""The parts of a worker that start and stop together: Kafka clients, stores, and the tasks between them.

Clicks do not run through Faust's agents: one service around one batch consumer reads them. Agents serve the `models`
and `commands` topics. Agents of one app id share a topic's partitions, but every worker must receive every pointer and
command. So the app's id is the group's id with the worker's instance.
"""

import asyncio
import contextlib
import logging
import os
import signal
import threading
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import faust
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaConnectionError
from mode import Service

from state.errors import StateError, StoreUnreadable
from state.id_hash import UNKEYED, IdHash
from state.titles import Titles
from stream.config import Config
from stream.errors import BrokerUnavailable, GroupInstanceTaken
from stream.kafka.commands import RecordTime
from stream.kafka.connection import connection, consumer_connection, faust_connection
from stream.kafka.diagnosis import unavailable
from stream.kafka.faust_consumer import CommittedTransport
from stream.kafka.lease import Lease
from stream.kafka.messages import encode
from stream.kafka.pointers import decode_pointer, read_pointers
from stream.kafka.rarely import Rarely
from stream.kafka.topics import cluster_id, topic_id
from stream.stores.assignment import CHECK_TOPIC_EVERY_S, Assignment
from stream.stores.checkpoints import Checkpoints
from stream.stores.partition_stores import EMBEDDED_CLUSTER, PartitionStores, move_aside
from stream.times import now_ms
from stream.tracing.spans import Spans
from stream.tracing.start import start_spans
from stream.worker.operator_commands import OperatorCommands
from stream.worker.pipeline import Pipeline
from stream.worker.process import Process, log_loop_error, log_thread_error
from stream.worker.recommender import Recommender
from stream.worker.status_file import WorkerReporter, WorkerStatus
from stream.worker.title_reader import read_titles
from stream.worker.topic_watch import TopicWatch
from stream.worker.version_follower import VersionFollower

log = logging.getLogger("anabranch.worker")

T = TypeVar("T")

MAX_REQUEST_BYTES = 32 << 20
METADATA_MAX_AGE_MS = int(CHECK_TOPIC_EVERY_S * 1000)
"""How soon a topic that was deleted and created again is read."""
GIVING_UP_SESSIONS = 3
"""How many session timeouts a rebalance waits for a worker that gives up its partitions: one until the worker learns of
it, one until its lease has run out, and one until a send that had begun has ended."""
SUBSCRIBED_WITHIN_S = 5.0
"""After the group has assigned the topic `models`, its reading begins within this time."""
RETRY_S = 1.0
"""Pause between two attempts to reach a broker that is away."""


class WorkerService(Service):
    """Owns the clients and the stores of one worker, and runs its tasks."""

    def __init__(
        self, config: Config, id_hash: IdHash, *, embedded: bool, spans: Spans | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self._spans = spans or Spans()
        self._config, self._id_hash, self._embedded = config, id_hash, embedded
        self.failure: StateError | GroupInstanceTaken | None = None
        self._to_close = contextlib.AsyncExitStack()
        """The clients and stores that are open so far: the worker can be stopped while it starts."""
        self._ready, self._rarely = asyncio.Event(), Rarely()

    async def on_start(self) -> None:
        config, id_hash, to_close = self._config, self._id_hash, self._to_close
        asyncio.get_running_loop().set_exception_handler(log_loop_error)
        threading.excepthook = log_thread_error
        cluster = EMBEDDED_CLUSTER
        if not self._embedded:
            cluster = await self._retry(lambda: asyncio.to_thread(cluster_id, config))
        self._titles = open_titles(config.data, id_hash)
        to_close.callback(self._titles.close)
        lease = self._lease = Lease(config.worker.session_timeout_ms)
        consumer, self._producer, self._title_reader = click_consumer(config), producer(config), title_consumer(config)
        self._assignment = Assignment(config, consumer, PartitionStores(config, id_hash), lease, cluster)
        to_close.push_async_callback(self._assignment.close_all)
        self._checkpoints = Checkpoints(config, self._assignment, lease)
        self._recommender = Recommender(config, self._assignment.stores, self._titles)
        for client in (self._producer, self._title_reader, consumer):
            to_close.push_async_callback(client.stop)
            await self._retry(client.start)
        # Before the consumer leaves the group: its partitions have another owner at once.
        to_close.push_async_callback(self._assignment.close_all)
        to_close.push_async_callback(asyncio.to_thread, self._spans.close)
        self._pipeline = Pipeline(
            config,
            consumer,
            self._producer,
            self._assignment,
            self._recommender,
            lease,
            id_hash=id_hash,
            spans=self._spans,
        )
        self._status = WorkerReporter(config.data, self._look)
        self._status.started(config.worker.instance, now_ms())
        self._commands = OperatorCommands(config, self._assignment, self._checkpoints)
        self._versions = VersionFollower(config, self._recommender.versions, self._assignment, id_hash)
        to_close.push_async_callback(self._versions.close)
        await self._versions.begin(await self._retry(lambda: read_pointers(config)))
        self._ready.set()

    async def on_stop(self) -> None:
        await self._to_close.aclose()

    @Service.task
    async def _consume(self) -> None:
        await self._or_end(self._pipeline.consume())

    @Service.task
    async def _answer(self) -> None:
        await self._or_end(self._pipeline.answer())

    @Service.task
    async def _keep_lease(self) -> None:
        await self._or_end(self._pipeline.keep_lease())

    @Service.task
    async def _open_stores(self) -> None:
        await self._or_end(self._assignment.open_assigned())

    @Service.task
    async def _watch_topic(self) -> None:
        await self._or_end(self._assignment.watch_topic())

    @Service.task
    async def _watch_shapes(self) -> None:
        await TopicWatch(self._config).run()

    @Service.task
    async def _take_checkpoints(self) -> None:
        await self._checkpoints.run()

    @Service.task
    async def _read_titles(self) -> None:
        topic = self._config.topics.items
        if self._embedded:  # its log begins again with each start
            known_id = uuid.uuid4().hex
        else:
            known_id = await self._retry(lambda: asyncio.to_thread(topic_id, self._config, topic))
        names = self._recommender.names
        await self._or_end(read_titles(self._title_reader, topic, known_id, self._titles, names, self._id_hash))

    @Service.timer(1.0)
    async def _retry_versions(self) -> None:
        await self._versions.retry()

    @Service.timer(1.0)
    async def _report_status(self) -> None:
        if self._ready.is_set():
            self._status.report(now_ms())

    def _look(self, status: WorkerStatus) -> None:
        """Fill in what the worker does now."""
        paused, outbox = self._assignment.paused, self._pipeline.outbox.counts
        status.paused_ts = (status.paused_ts or status.ts) if paused else 0
        status.confirmed = self._lease.held
        status.caught_up_ts = int(self._pipeline.caught_up_at * 1000)
        phases = self._assignment.phases()
        status.phases = {number: phase.name.lower().replace("_", " ") for number, phase in sorted(phases.items())}
        status.too_many_requests = self._pipeline.requests.too_many
        status.sent_smaller, status.unsendable = outbox.smaller, outbox.unsendable
        status.lost_dead_letters = outbox.lost_dead_letters

    async def on_pointer(self, value: bytes | None) -> None:
        """Follow a pointer from the models topic."""
        await self._ready.wait()
        await self._versions.on_pointer(decode_pointer(value, self._config.kafka.signing_keys, self._rarely))

    async def read_pointers_again(self) -> None:
        """Follow the pointers that came between the first look and the subscription of the agent.

        Without a committed offset the agent begins at the end of the topic, and would miss them.
        """
        await self._ready.wait()
        await asyncio.sleep(SUBSCRIBED_WITHIN_S)
        for pointer in await self._retry(lambda: read_pointers(self._config)):
            await self._versions.on_pointer(pointer)

    async def on_command(self, value: bytes | None, sent: RecordTime) -> None:
        """Carry out an operator's command and send its outcome."""
        await self._ready.wait()
        if (reply := await self._commands.on_command(value, sent)) is not None:
            await self._producer.send(self._config.topics.command_replies, encode(reply), key=reply.id.encode())

    async def _or_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work. If the state cannot be used, end the whole worker as an operator would."""
        try:
            await work
        except (StateError, GroupInstanceTaken) as error:
            self.failure = error
            os.kill(os.getpid(), signal.SIGTERM)

    async def _retry(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask a broker until it answers."""
        while True:
            try:
                return await ask()
            except (BrokerUnavailable, KafkaConnectionError) as error:
                known = isinstance(error, BrokerUnavailable)
                log.warning("%s; trying again", error if known else await unavailable(self._config, error))
                await asyncio.sleep(RETRY_S)


def click_consumer(config: Config) -> AIOKafkaConsumer:
    """The consumer of clicks and requests, a member of the group."""
    return AIOKafkaConsumer(
        **consumer_connection(config),
        group_id=config.group,
        group_instance_id=config.worker.group_instance_id or None,
        enable_auto_commit=False,
        auto_offset_reset="none",  # the reader learns of it: the log lost its beginning, or its end
        partition_assignment_strategy=[RangePartitionAssignor],
        session_timeout_ms=config.worker.session_timeout_ms,
        rebalance_timeout_ms=GIVING_UP_SESSIONS * config.worker.session_timeout_ms,
        heartbeat_interval_ms=config.worker.heartbeat_ms,
        fetch_max_bytes=config.worker.fetch_max_bytes,
        max_partition_fetch_bytes=config.worker.fetch_max_bytes,
        metadata_max_age_ms=METADATA_MAX_AGE_MS,
    )


def producer(config: Config) -> AIOKafkaProducer:
    """The producer of everything that the worker sends."""
    return AIOKafkaProducer(
        **connection(config),
        acks="all",
        max_request_size=MAX_REQUEST_BYTES,
        linger_ms=0,
        # A message that waited here while the network was cut is dropped: the partition may be another worker's.
        request_timeout_ms=config.worker.session_timeout_ms,
    )


def title_consumer(config: Config) -> AIOKafkaConsumer:
    """The consumer of titles, without a group: every worker reads all of them."""
    return AIOKafkaConsumer(**consumer_connection(config), enable_auto_commit=False, auto_offset_reset="earliest")


def open_titles(data: Path, id_hash: IdHash) -> Titles:
    """The titles on this disk; damaged ones are moved aside, and read again from the items topic."""
    try:
        return Titles(data, id_hash)
    except StoreUnreadable as reason:
        move_aside(data / "titles", str(reason))
        return Titles(data, id_hash)


def build(config: Config, id_hash: IdHash = UNKEYED, *, embedded: bool = False) -> Process:
    """The process of one worker: its app, its service, and an agent for each topic that every worker reads.

    Raises ConfigError: tracing is configured and not installed.
    """
    app = faust.App(
        f"{config.group}-{config.worker.instance}",
        **faust_connection(config),
        datadir=str(config.data / "faust"),
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        broker_session_timeout=config.worker.session_timeout_ms / 1000,
        broker_heartbeat_interval=config.worker.heartbeat_ms / 1000,
        broker_max_poll_interval=300.0,
        stream_wait_empty=False,
        consumer_auto_offset_reset="latest",
        consumer_metadata_max_age_ms=METADATA_MAX_AGE_MS,
    )
    app.transport = CommittedTransport(app.conf.broker_consumer, app)
    spans = start_spans(config, f"worker/{config.worker.instance}")
    service = WorkerService(config, id_hash, embedded=embedded, spans=spans)

    @app.on_partitions_assigned.connect
    async def assigned(*_: Any, **__: Any) -> None:
        service.add_future(service.read_pointers_again())

    @app.agent(app.topic(config.topics.models, value_type=bytes, value_serializer="raw", internal=False))
    async def models(stream: Any) -> None:
        async for value in stream:
            await service.on_pointer(value)

    @app.agent(app.topic(config.topics.commands, value_type=bytes, value_serializer="raw", internal=False))
    async def commands(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            await service.on_command(
                event.value, RecordTime(int(message.timestamp * 1000), message.timestamp_type == 1)
            )

    return Process(app, service, lambda: service.failure, config.worker.end_within_s)
