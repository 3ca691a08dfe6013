"""Reads the topic `members`: the newest record of every process, and whether it lives."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream.config import Config
from stream.errors import BrokerUnavailable, TopicMismatch
from stream.kafka.connection import consumer_connection
from stream.kafka.diagnosis import unavailable
from stream.kafka.exchange import close, within
from stream.kafka.reader import Reader
from stream.kafka.shapes import missing_topics
from stream.kafka.topics import partitions_of
from stream.members.member import decode_member
from stream.members.sightings import SeenMember, Sightings

log = logging.getLogger("anabranch.members")

POLL_MS = 250
HEAD_RECORDS, TAIL_OFFSETS = 2_000, 5_000
"""What is read of the past: the newest offsets, and before them the beginning, where compaction leaves one record of
each member. A log that is not compacted grows by 86,400 records a member and day."""
CHECK_AFTER_S, CHECK_WITHIN_S = 0.5, 2.0
"""After this long without a record the broker is asked whether it is there, and answers within this time."""
LONGEST_STEP_S = 1.0
"""A reader that was stopped for longer has not listened, and others have not been silent."""
BEGIN_WITHIN_S, AGAIN_S = 5.0, 1.0
TRIES_OF_EMPTY = 10
"""The embedded broker reports the beginning of its last batch as the end. A fetch brings the right one; a partition
that brings nothing this often is empty."""


class _Listener:
    """One connection to the topic, and what it has brought."""

    def __init__(self, config: Config, consumer: AIOKafkaConsumer) -> None:
        self._config, self._consumer, self._reader = config, consumer, Reader(consumer)
        self._partitions: list[TopicPartition] = []
        self.sightings, self.now = Sightings(), 0.0
        self._counted_at, self._quiet_s = time.monotonic(), 0.0

    async def begin(self) -> None:
        """Connect, and read the past. Raises KafkaError, TopicMismatch."""
        topic = self._config.topics.members
        await self._consumer.start()
        self._partitions = [TopicPartition(topic, n) for n in await partitions_of(self._consumer, topic)]
        if not self._partitions:
            raise TopicMismatch(missing_topics(self._config, [topic]))
        self._consumer.assign(self._partitions)
        await self._consumer.seek_to_beginning(*self._partitions)
        for partition in self._partitions:
            await self._read_past(partition)
        self._counted_at, self._quiet_s = time.monotonic(), 0.0
        self.sightings.caught_up(self.now)

    async def _read_past(self, partition: TopicPartition) -> None:
        [end] = (await self._consumer.end_offsets([partition])).values()
        tail, head, tries = end - TAIL_OFFSETS, 0, 0
        while True:
            position = await self._consumer.position(partition)
            if position < tail and head >= HEAD_RECORDS:
                self._consumer.seek(partition, tail)
            known = self._consumer.highwater(partition)
            if position >= max(end, known or 0) and (known is not None or tries >= TRIES_OF_EMPTY):
                return
            records = (await self._reader.poll(partition, timeout_ms=50)).records.get(partition, [])
            self._note(records)
            head, tries = head + len(records), 0 if records else tries + 1

    def _note(self, records: list[Any]) -> None:
        for record in records:
            if record.value is None:
                self.sightings.forget((record.key or b"").decode(errors="replace"))
            elif (member := decode_member(record.value)) is not None and record.key == member.key.encode():
                self.sightings.saw(member, self.now, record.timestamp, of_broker=record.timestamp_type == 1)

    async def listen(self) -> None:
        """Take what comes next. Raises KafkaError or OSError where no broker answers."""
        polled = (await self._reader.poll(timeout_ms=POLL_MS)).records
        now = time.monotonic()
        self._quiet_s += min(now - self._counted_at, LONGEST_STEP_S)
        self._counted_at = now
        if not polled and self._quiet_s < CHECK_AFTER_S:
            return
        if not polled:
            async with asyncio.timeout(CHECK_WITHIN_S):
                await self._consumer.end_offsets(self._partitions)
        self.now, self._quiet_s = self.now + self._quiet_s, 0.0
        for records in polled.values():
            self._note(records)


@contextlib.asynccontextmanager
async def _listener(config: Config) -> AsyncIterator[_Listener]:
    # A fetch that waits for more records blocks every later request on its connection.
    consumer = AIOKafkaConsumer(**consumer_connection(config), enable_auto_commit=False, fetch_max_wait_ms=100)
    try:
        yield _Listener(config, consumer)
    finally:
        await close(consumer)


class MembersFollower:
    """Follows the members of an installation in a task, for as long as a process runs. `members` costs nothing."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._listener: _Listener | None = None
        self._task: asyncio.Task[None] | None = None
        self._begun, self._ending = asyncio.Event(), False
        self.problem = "the members have not been read yet"
        """Why what `members` returns is not of now: no broker answers. Empty: it is."""

    async def start(self) -> None:
        """Begin; return when the members are known, or after BEGIN_WITHIN_S. Then `problem` says what is missing."""
        self._task = asyncio.create_task(self._run())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEGIN_WITHIN_S):
                await self._begun.wait()

    async def stop(self) -> None:
        """Follow no longer."""
        if self._task is not None:
            self._ending = True  # the Kafka client can swallow a cancellation
            self._task.cancel()
            await asyncio.wait([self._task])

    def members(self) -> list[SeenMember]:
        """Every member that is known, by kind and name. While no broker answers, as they were."""
        return self._listener.sightings.members(self._listener.now) if self._listener is not None else []

    async def _run(self) -> None:
        while not self._ending:
            try:
                async with _listener(self._config) as listener:
                    await within(self._config, "the members", listener.begin())
                    self._listener, self.problem = listener, ""
                    self._begun.set()
                    while not self._ending:
                        await listener.listen()
            except (BrokerUnavailable, TopicMismatch) as error:
                self.problem = str(error)
            except (KafkaError, OSError) as error:
                self.problem = f"{self._config.broker} does not answer"
                self.problem = str(await unavailable(self._config, error))
            except Exception as error:
                self.problem = f"the members cannot be read: {error!r}"
                log.exception("the members cannot be read")
            await asyncio.sleep(AGAIN_S)


async def read_members(config: Config) -> list[SeenMember]:
    """The members now, for a command. It waits until each has published again, or has been silent for long enough to
    be dead: a second, or four. Raises BrokerUnavailable, TopicMismatch."""
    async with _listener(config) as listener:

        async def read() -> list[SeenMember]:
            await listener.begin()
            while listener.sightings.in_doubt(listener.now):
                await listener.listen()
            return listener.sightings.members(listener.now)

        return await within(config, "the members", read())
