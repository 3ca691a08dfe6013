"""The Faust app around one worker: services to start and stop together, agents for what every worker must hear.

The firehose does not run through Faust's agents: it is one service around one batch consumer. The app's id is the
group's with the worker's instance, because agents of one app id share a topic's partitions, and every worker must hear
every pointer and command.
"""

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import faust
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaConnectionError, KafkaError
from mode import Service

from model.errors import ArtifactError
from state.errors import StateError, StoreUnreadable
from state.titles import Titles
from stream.config import Config
from stream.errors import BrokerUnavailable
from stream.kafka.commands import Commands
from stream.kafka.connection import connection, faust_connection
from stream.kafka.diagnosis import unavailable
from stream.kafka.lease import Lease
from stream.kafka.messages import Command, CommandReply, Pointer, encode
from stream.kafka.pointers import Pointers, apply_pointer, decode_pointer, read_pointers, write_last_pointers
from stream.kafka.topics import cluster_id, topic_id
from stream.stores.checkpoints import COPIES, Checkpoints
from stream.stores.partition_stores import EMBEDDED, PartitionStores, move_aside
from stream.worker.pipeline import Worker
from stream.worker.recommender import Recommender, ServedVersion
from stream.worker.served_versions import load_serving
from stream.worker.title_reader import read_titles

log = logging.getLogger("anabranch.worker")

T = TypeVar("T")

MAX_REQUEST_BYTES = 32 << 20
ASK_AGAIN_S = 1.0
FETCH_AGAIN_S = 5.0
"""After a version could not be fetched; each further try waits twice as long, at most five minutes."""


class Firehose(Service):
    """Owns the Kafka clients, the stores and the worker between them."""

    def __init__(self, config: Config, *, embedded: bool, **options: Any) -> None:
        super().__init__(**options)
        self._config = config
        self._embedded = embedded
        self.pointers = Pointers()
        self._load = asyncio.Lock()
        self._again_at = 0.0
        self._pause_s = FETCH_AGAIN_S
        self.failure: StateError | None = None
        self._to_close = contextlib.AsyncExitStack()
        """What has been opened so far: it may be told to stop while it starts."""

    async def on_start(self) -> None:
        config, to_close = self._config, self._to_close
        asyncio.get_running_loop().set_exception_handler(log_loop_error)
        threading.excepthook = log_thread_error
        cluster = EMBEDDED
        if not self._embedded:
            cluster = await self._answered(lambda: asyncio.to_thread(cluster_id, config))
        self._titles = open_titles(config.data)
        to_close.callback(self._titles.close)
        self._partitions = PartitionStores(config)
        to_close.push_async_callback(self._close_stores)
        lease = Lease(config.worker.session_timeout_ms)
        self._checkpoints = Checkpoints(config, self._partitions, lease)
        self._ranker = Recommender(config, self._partitions.stores, self._titles)
        self._consumer = AIOKafkaConsumer(
            **connection(config),
            group_id=config.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            partition_assignment_strategy=[RangePartitionAssignor],
            session_timeout_ms=config.worker.session_timeout_ms,
            heartbeat_interval_ms=config.worker.heartbeat_ms,
            fetch_max_bytes=config.worker.fetch_max_bytes,
            max_partition_fetch_bytes=config.worker.fetch_max_bytes,
        )
        self._producer = AIOKafkaProducer(
            **connection(config),
            acks="all",
            max_request_size=MAX_REQUEST_BYTES,
            linger_ms=0,
            # What lay here through a cut is not sent afterwards: by then the partition may be another worker's.
            request_timeout_ms=config.worker.session_timeout_ms,
        )
        self._title_reader = AIOKafkaConsumer(
            **connection(config), enable_auto_commit=False, auto_offset_reset="earliest"
        )
        for client in (self._producer, self._title_reader, self._consumer):
            to_close.push_async_callback(client.stop)
            await self._answered(client.start)
        self._worker = Worker(
            config, self._consumer, self._producer, self._partitions, self._ranker, lease, cluster=cluster
        )
        await self.follow(await self._answered(lambda: read_pointers(config)))

    async def _answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask a broker that may have gone away since it was waited for, until it answers."""
        while True:
            try:
                return await ask()
            except (BrokerUnavailable, KafkaConnectionError) as error:
                known = isinstance(error, BrokerUnavailable)
                log.warning("%s; trying again", error if known else await unavailable(self._config, error))
                await asyncio.sleep(ASK_AGAIN_S)

    async def hear(self, arrived: Pointer | None) -> None:
        """Follow a pointer that has come."""
        pointers = apply_pointer(self.pointers, arrived)
        if pointers != self.pointers:
            await self.follow(pointers)

    async def follow(self, pointers: Pointers) -> None:
        """Serve the champion and score the candidate; a bad artifact leaves the old one serving."""
        self.pointers = pointers
        ranker = self._ranker
        async with self._load:
            served = [await self._fetched(p, now) for p, now in self._wanted()]
            if served[0] is not None and served[0] is not ranker.serving:
                async with self._partitions.reading:
                    await asyncio.to_thread(ranker.serve, served[0])
                log.info("serving version %s", served[0].version)
            if served[1] is not ranker.candidate:
                async with self._partitions.reading:
                    await asyncio.to_thread(ranker.score, served[1])
                log.info("scoring version %s beside it", served[1].version if served[1] else "none")
            if self._missing():
                self._again_at, self._pause_s = time.monotonic() + self._pause_s, min(2 * self._pause_s, 300.0)
            else:
                self._pause_s = FETCH_AGAIN_S
            write_last_pointers(self._config.data, pointers)

    def _wanted(self) -> list[tuple[Pointer | None, ServedVersion | None]]:
        return [
            (self.pointers.champion, self._ranker.serving),
            (self.pointers.scored, self._ranker.candidate),
        ]

    def _missing(self) -> bool:
        return any(p is not None and (now is None or now.version != p.version) for p, now in self._wanted())

    async def _fetched(self, pointer: Pointer | None, now: ServedVersion | None) -> ServedVersion | None:
        if pointer is None or (now is not None and now.version == pointer.version):
            return now if pointer is not None else None
        try:
            return await asyncio.to_thread(load_serving, pointer, self._config)
        except ArtifactError as error:
            log.error("version %s is not served, what was goes on: %s", pointer.version, error)
            return now

    @Service.timer(1.0)
    async def _fetch_again(self) -> None:
        """An artifact store that was away may be back."""
        if self._missing() and time.monotonic() > self._again_at:
            await self.follow(self.pointers)

    @Service.task
    async def _consume(self) -> None:
        await self._or_end(self._worker.consume())

    @Service.task
    async def _answer(self) -> None:
        await self._or_end(self._worker.answer())

    @Service.task
    async def _open(self) -> None:
        await self._or_end(self._worker.tenure.open_assigned())

    @Service.task
    async def _watch(self) -> None:
        await self._or_end(self._worker.tenure.watch_log())

    @Service.task
    async def _checkpoint(self) -> None:
        await self._checkpoints.run()

    async def _or_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work; where its state cannot be used, end the whole worker as an operator would."""
        try:
            await work
        except StateError as error:
            self.failure = error
            os.kill(os.getpid(), signal.SIGTERM)

    @Service.task
    async def _read_titles(self) -> None:
        topic = self._config.topics.items
        if self._embedded:  # its log begins anew with it
            known = uuid.uuid4().hex
        else:
            known = await self._answered(lambda: asyncio.to_thread(topic_id, self._config, topic))
        await self._or_end(read_titles(self._title_reader, topic, known, self._titles, self._ranker.names))

    async def obey(self, command: Command) -> CommandReply | None:
        """Do what an operator says, and say what came of it; None where it is not for this worker."""
        try:
            if command.command in ("pause", "resume"):
                self._worker.tenure.pause(command.command == "pause")
                done = f"{command.command}d"
            elif command.command == "copy" and (folder := self._config.data / COPIES / command.id).exists():
                done = f"copied {await self._checkpoints.copy_all(folder)} partitions"
            elif command.command == "swap" and (swapped := await self._worker.tenure.swap()):
                done = f"swapped {swapped} partitions"
            else:
                return None
        except StateError as error:
            return CommandReply(command.id, "failed", f"worker {self._config.worker.instance}: {error}")
        return CommandReply(command.id, "done", f"worker {self._config.worker.instance}: {done}")

    async def _close_stores(self) -> None:
        async with self._partitions.reading:  # a checkpoint may be under way
            self._partitions.close_all()

    async def on_stop(self) -> None:
        await self._to_close.aclose()


def log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell of what went wrong beside the tasks we await.

    A request that the Kafka client gave up, because the broker is away, is none of it: we say so ourselves.
    """
    if not isinstance(context.get("exception"), KafkaError):
        loop.default_exception_handler(context)


def log_thread_error(failed: threading.ExceptHookArgs) -> None:
    """Tell of what ended a thread, but not of aiokafka's `close` where Faust's consumer stops while it connects."""
    where = failed.exc_traceback
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    closing = where is not None and Path(where.tb_frame.f_code.co_filename).parts[-2:] == ("aiokafka", "conn.py")
    if not (closing and failed.exc_type is AttributeError):
        threading.__excepthook__(failed)


def open_titles(data: Path) -> Titles:
    """The titles at hand; damaged ones are moved aside, and read again from the items topic."""
    try:
        return Titles(data)
    except StoreUnreadable as reason:
        move_aside(data / "titles", str(reason))
        return Titles(data)


class Process(faust.Worker):
    """Runs the app of one worker until a signal; then everything stops, or the process ends without having stopped.

    Kafka clients wait for a frozen broker without a bound. What the state has is durable, and the log has the rest.
    """

    def __init__(self, app: faust.App, firehose: Firehose, end_within_s: float) -> None:
        super().__init__(app, firehose, override_logging=False, redirect_stdouts=False, quiet=True, loglevel="warning")
        self.spinner = None  # it writes a terminal's escape codes even into a log
        self._firehose, self._end_within_s = firehose, end_within_s

    def install_signal_handlers(self) -> None:
        """Heed SIGINT and SIGTERM."""
        super().install_signal_handlers()
        for number, stop in ((signal.SIGINT, self._on_sigint), (signal.SIGTERM, self._on_sigterm)):
            self.loop.add_signal_handler(number, self._end, stop)

    @property
    def failure(self) -> StateError | None:
        """Why the worker ended by itself."""
        return self._firehose.failure

    def _end(self, stop: Callable[[], None]) -> None:
        stop()
        limit = threading.Timer(self._end_within_s, self._give_up)
        limit.daemon = True
        limit.start()

    def _give_up(self) -> None:
        log.warning(
            "not stopped %g s after being told to: no broker answers; ending without it, nothing is lost "
            "(worker.end_within_s)", self._end_within_s,
        )  # fmt: skip
        if (failure := self.failure) is not None:
            log.error("%s", failure)
        os._exit(0 if failure is None else 1)


def build(config: Config, *, embedded: bool = False) -> Process:
    """The process of one worker: its app, and the service beside its agents."""
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
    )
    firehose, once = Firehose(config, embedded=embedded), Commands()

    @app.agent(app.topic(config.topics.models, value_type=bytes, value_serializer="raw", internal=False))
    async def models(stream: Any) -> None:
        async for value in stream:
            await firehose.hear(decode_pointer(value))

    @app.agent(app.topic(config.topics.commands, value_type=bytes, value_serializer="raw", internal=False))
    async def commands(stream: Any) -> None:
        async for value in stream:
            command = once.accept(value)
            if command is not None and (reply := await firehose.obey(command)) is not None:
                await firehose._producer.send(config.topics.command_replies, encode(reply), key=command.id.encode())

    return Process(app, firehose, config.worker.end_within_s)
