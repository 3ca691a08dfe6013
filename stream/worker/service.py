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
from typing import Any, TypeVar

import faust
from aiokafka.errors import KafkaConnectionError
from mode import Service

from state.errors import StateError
from state.id_hash import UNKEYED, IdHash
from stream.config import Config
from stream.errors import AnabranchError, BrokerUnavailable, GroupInstanceTaken
from stream.http.server import CannotListen
from stream.kafka.commands import RecordTime
from stream.kafka.connection import faust_connection
from stream.kafka.diagnosis import unavailable
from stream.kafka.faust_consumer import CommittedTransport
from stream.kafka.lease import Lease
from stream.kafka.messages import encode
from stream.kafka.pointers import decode_pointer, read_pointers
from stream.kafka.rarely import Rarely
from stream.kafka.topics import cluster_id, topic_id
from stream.members.member import Member, begin
from stream.members.publish import MemberPublisher
from stream.metrics.disk import Disk
from stream.stores.assignment import Assignment
from stream.stores.checkpoints import Checkpoints
from stream.stores.partition_stores import EMBEDDED_CLUSTER, PartitionStores
from stream.times import now_ms
from stream.tracing.spans import Spans
from stream.tracing.start import start_spans
from stream.worker.clients import METADATA_MAX_AGE_MS, click_consumer, producer, title_consumer
from stream.worker.direct_answers import HttpApi
from stream.worker.example_sender import ExampleSender
from stream.worker.lag import Lag
from stream.worker.member_record import describe
from stream.worker.observed import Observed
from stream.worker.operator_commands import OperatorCommands
from stream.worker.pages import WorkerPages
from stream.worker.pipeline import Pipeline
from stream.worker.present import Present
from stream.worker.process import Process, log_loop_error, log_thread_error
from stream.worker.recommender import Recommender
from stream.worker.status_file import WorkerReporter, WorkerStatus
from stream.worker.title_reader import open_titles, read_titles
from stream.worker.topic_watch import TopicWatch
from stream.worker.version_follower import VersionFollower

log = logging.getLogger("anabranch.worker")

T = TypeVar("T")

SUBSCRIBED_WITHIN_S = 5.0
"""After the group has assigned the topic `models`, its reading begins within this time."""
RETRY_S = 1.0
"""Pause between two attempts to reach a broker that is away."""


class WorkerService(Service):
    """Owns the clients and the stores of one worker, and runs its tasks."""

    def __init__(
        self,
        config: Config,
        id_hash: IdHash,
        *,
        embedded: bool,
        api: HttpApi | None = None,
        spans: Spans | None = None,
        **options: Any,
    ) -> None:
        """`api` is the interface for shops, where this worker has it."""
        super().__init__(**options)
        self._api, self._spans = api, spans or Spans()
        self._config, self._id_hash, self._embedded = config, id_hash, embedded
        self.failure: StateError | AnabranchError | None = None
        self._to_close = contextlib.AsyncExitStack()
        """The clients and stores that are open so far: the worker can be stopped while it starts."""
        self._ready, self._rarely = asyncio.Event(), Rarely()
        self._member = self._before_stop = begin("worker", config.worker.instance, config.worker.http)
        self._observed, self._disk = Observed(), Disk(config.data)
        self._pages = WorkerPages(config, self, self._observed.instruments, self._disk, api)

    async def on_start(self) -> None:
        config, id_hash, to_close = self._config, self._id_hash, self._to_close
        to_close.push_async_callback(asyncio.to_thread, self._spans.close)  # the last thing: it can wait
        asyncio.get_running_loop().set_exception_handler(log_loop_error)
        threading.excepthook = log_thread_error
        try:
            await self._pages.start()
        except CannotListen as error:
            self.failure = error
            raise
        to_close.push_async_callback(self._pages.stop)
        self._publisher = MemberPublisher(config, self._record)
        to_close.push_async_callback(self._stop_publishing)
        self._publisher.start()
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
        self._examples = ExampleSender(config, self._producer, lease, self._observed.instruments.examples)
        self._pipeline = Pipeline(
            config, consumer, self._producer, self._assignment, self._recommender, lease, id_hash=id_hash,
            observed=self._observed, spans=self._spans, examples=self._examples,
        )  # fmt: skip
        self._lag = Lag(config, consumer, self._assignment, self._observed)
        self._status = WorkerReporter(config.data, self._look)
        self._status.started(config.worker.instance, self._member.started_ts)
        self._commands = OperatorCommands(config, self._assignment, self._checkpoints)
        self._versions = VersionFollower(config, self._recommender.versions, self._assignment, id_hash)
        to_close.push_async_callback(self._versions.close)
        await self._versions.begin(await self._retry(lambda: read_pointers(config)))
        present = Present(
            config, consumer, self._assignment, lease, self._pipeline, self._recommender.versions, self._versions,
            self._checkpoints, self._lag, self._disk,
        )  # fmt: skip
        if self._api is not None:
            to_close.push_async_callback(self._api.close)
            self._api.begin(self._pipeline.direct)
        self._pages.started(present)
        self._ready.set()

    async def on_stop(self) -> None:
        self._before_stop = self._record()
        await self._to_close.aclose()

    @Service.task
    async def _consume(self) -> None:
        await self._lasting("consume", self._pipeline.consume())

    @Service.task
    async def _answer(self) -> None:
        await self._lasting("answer", self._pipeline.answer())

    @Service.task
    async def _answer_directly(self) -> None:
        await self._lasting("answer over HTTP", self._pipeline.direct.run())

    @Service.task
    async def _send_examples(self) -> None:
        await self._examples.run()

    @Service.task
    async def _learn_online(self) -> None:
        await self._lasting("learn online", self._recommender.versions.rankers.run())

    @Service.task
    async def _keep_lease(self) -> None:
        await self._lasting("keep the lease", self._pipeline.keep_lease())

    @Service.task
    async def _open_stores(self) -> None:
        await self._lasting("open stores", self._assignment.open_assigned())

    @Service.task
    async def _follow_lag(self) -> None:
        await self._lag.follow()

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

    async def _stop_publishing(self) -> None:
        await self._publisher.stop(self._before_stop)  # with the partitions that it served

    def _record(self) -> Member:
        """What the worker publishes of itself now."""
        if not self._ready.is_set():
            return self._member
        return describe(
            self._member, self._status.current, self._assignment, self._lag,
            self._recommender.versions.champion, self._versions.problem,
        )  # fmt: skip

    def _look(self, status: WorkerStatus) -> None:
        """Fill in what the worker does now."""
        paused, outbox = self._assignment.paused, self._pipeline.outbox.counts
        status.paused_ts = (status.paused_ts or status.ts) if paused else 0
        status.confirmed, status.joined = self._lease.held, self._assignment.joined
        status.caught_up_ts = int(self._pipeline.caught_up_at * 1000)
        status.event_ts = self._recommender.clock.now if self._recommender.clock.has_begun else 0
        phases = self._assignment.phases()
        status.phases = {number: phase.words for number, phase in sorted(phases.items())}
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

    async def _lasting(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do work that ends with the worker only."""
        with self._pages.lasting(name):
            await self._or_end(work)

    async def _or_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work. If the state cannot be used, end the whole worker as an operator would."""
        try:
            await work
        except (StateError, GroupInstanceTaken) as error:
            self.failure = error
            os.kill(os.getpid(), signal.SIGTERM)

    async def _retry(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask a broker until it answers."""
        self._pages.waits_for = f"it waits for the broker at {self._config.broker}"
        while True:
            try:
                answer = await ask()
                self._pages.waits_for = ""
                return answer
            except (BrokerUnavailable, KafkaConnectionError) as error:
                known = isinstance(error, BrokerUnavailable)
                self._pages.waits_for = str(error if known else await unavailable(self._config, error))
                log.warning("%s; trying again", self._pages.waits_for)
                await asyncio.sleep(RETRY_S)


def build(config: Config, id_hash: IdHash = UNKEYED, *, embedded: bool = False, api: HttpApi | None = None) -> Process:
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
    service = WorkerService(config, id_hash, embedded=embedded, api=api, spans=spans)

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
