"""Asks the workers through Kafka: `requests` out, `replies` in. Any process can, on any machine."""

import asyncio
import uuid
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from stream.config import Config
from stream.errors import AnabranchError, TopicMismatch
from stream.kafka.connection import connection, consumer_connection
from stream.kafka.diagnosis import unavailable
from stream.kafka.documents import Document
from stream.kafka.exchange import close, within
from stream.kafka.keys import partition_of
from stream.kafka.messages import UNREADABLE, Reply, Request, encode
from stream.kafka.reader import Reader, positions
from stream.kafka.shapes import missing_topics
from stream.kafka.signing import signed
from stream.kafka.topics import partitions_of

MAX_WAITING = 10_000
"""Requests that wait for a reply at once, at most: further ones are refused here."""
POLL_MS = 200
SEND_WITHIN_MS = 5_000
LOOK_EVERY_MS = 30_000
"""How often the partitions of `replies` are looked at: somebody may add some, or make the topic again."""


class NotAnswered(AnabranchError):
    """No reply came in time, or one without an answer; `partition` was asked."""

    def __init__(self, message: str, partition: int, *, replied: bool = False) -> None:
        """`replied`: its worker is there, and has replied without an answer."""
        super().__init__(message)
        self.partition, self.replied = partition, replied


class Everywhere(NamedTuple):
    """The answers of all partitions to one question."""

    documents: dict[int, Document]
    missing: dict[int, str]
    """Partitions that did not answer, and why."""


class Waiting(NamedTuple):
    """A request that waits for its reply."""

    reply: asyncio.Future[Reply | Document]
    wanted: type[Reply] | type[Document]
    partition: int


class RequestClient:
    """Sends requests and waits for their replies, many at once. It reads every reply of the installation."""

    def __init__(self, config: Config) -> None:
        self._config, self._topics = config, config.topics
        self._name = uuid.uuid4().hex[:16]
        """Beginning of the ids of its requests: others' replies are not decoded."""
        self._sent = 0
        self._waiting: dict[bytes, Waiting] = {}
        self._partitions: list[int] = []
        self._listening: asyncio.Task[None] | None = None
        self._ending = False

    async def start(self) -> None:
        """Connect. Raises BrokerUnavailable, TopicMismatch."""
        config = self._config
        # A fetch that waits for more records blocks every later request on its connection.
        self._consumer = AIOKafkaConsumer(
            **consumer_connection(config), enable_auto_commit=False, fetch_max_wait_ms=50,
            metadata_max_age_ms=LOOK_EVERY_MS,
        )  # fmt: skip
        self._producer = AIOKafkaProducer(**connection(config), acks=1, linger_ms=0, request_timeout_ms=SEND_WITHIN_MS)
        try:
            await within(config, "a connection to ask the workers", self._connect())
        except BaseException:
            await close(self._consumer, self._producer)
            raise
        self._listening = asyncio.create_task(self._listen())

    async def _connect(self) -> None:
        topics, consumer = self._topics, self._consumer
        await consumer.start()
        await self._producer.start()
        replies = [TopicPartition(topics.replies, n) for n in await partitions_of(consumer, topics.replies)]
        self._partitions = await partitions_of(consumer, topics.requests)
        missing = {topics.replies: replies, topics.requests: self._partitions}
        if names := [name for name, found in missing.items() if not found]:
            raise TopicMismatch(missing_topics(self._config, names))
        consumer.assign(replies)
        await consumer.seek_to_end(*replies)
        for partition in replies:  # nothing that comes from now on is missed
            await consumer.position(partition)

    async def stop(self) -> None:
        """Close; those who still wait get NotAnswered."""
        if self._listening is None:
            return
        self._ending = True  # the Kafka client can swallow a cancellation
        self._listening.cancel()
        await asyncio.wait([self._listening])
        for waiting in self._waiting.values():
            if not waiting.reply.done():
                waiting.reply.set_exception(NotAnswered("the client was stopped", waiting.partition))
        await close(self._consumer, self._producer)

    @property
    def partitions(self) -> list[int]:
        """The partitions of `requests`, as many as those of `clicks`."""
        return self._partitions

    def partition_of(self, user: str) -> int:
        """The partition of a user whose events have Kafka's own partitioner."""
        return partition_of(user, len(self._partitions))

    async def ask(self, request: Request, timeout_s: float, partition: int | None = None) -> Reply | Document:
        """The answer to a request of a user; of another one with the partition that is asked.

        A recommendation comes as a Reply, all else as a Document. Each has the status `ok`. Raises NotAnswered where
        none comes in time, or one with another status; BrokerUnavailable where the broker takes no request.
        """
        number = partition if partition is not None else self.partition_of(str(request.user))
        if len(self._waiting) >= MAX_WAITING:
            raise NotAnswered(f"{MAX_WAITING:,} requests wait for a reply already: ask again later", number)
        self._sent += 1
        name = f"{self._name}-{self._sent}"
        future: asyncio.Future[Reply | Document] = asyncio.get_running_loop().create_future()
        wanted = Reply if request.want == "recommendation" else Document
        self._waiting[name.encode()] = Waiting(future, wanted, number)
        try:
            async with asyncio.timeout(timeout_s):
                request = msgspec.structs.replace(request, id=name)
                if request.want == "user":
                    request = signed(request, self._config.kafka.signing_keys)
                value = encode(request)
                key = str(request.user or request.item).encode() or None
                await self._producer.send_and_wait(self._topics.requests, value, key=key, partition=number)
                found = await future
        except TimeoutError:
            raise NotAnswered(f"no worker answered for partition {number} within {timeout_s:g} s", number) from None
        except KafkaError as error:
            raise await unavailable(self._config, error) from None
        finally:
            self._waiting.pop(name.encode(), None)
        if found.status == "refused":
            raise NotAnswered(
                f"the worker of partition {number} shows a user's history only to requests that its kafka.signing_key "
                f"has signed: set the same key here (ANABRANCH_KAFKA__SIGNING_KEY)", number, replied=True,
            )  # fmt: skip
        if found.status != "ok":
            raise NotAnswered(f"the worker of partition {number} replied {found.status!r}", number, replied=True)
        return found

    async def ask_all(self, request: Request, timeout_s: float, partitions: Iterable[int] | None = None) -> Everywhere:
        """The answers of all partitions, or of these, to a request that wants no recommendation.

        Raises BrokerUnavailable.
        """
        numbers = list(self._partitions if partitions is None else partitions)
        asking = (self.ask(request, timeout_s, number) for number in numbers)
        outcomes = dict(zip(numbers, await asyncio.gather(*asking, return_exceptions=True), strict=True))
        for outcome in outcomes.values():
            if isinstance(outcome, BaseException) and not isinstance(outcome, NotAnswered):
                raise outcome
        return Everywhere(
            {number: found for number, found in outcomes.items() if isinstance(found, Document)},
            {number: str(why) for number, why in outcomes.items() if isinstance(why, NotAnswered)},
        )

    async def _listen(self) -> None:
        reader = Reader(self._consumer)
        while not self._ending:
            try:
                self._read_new_partitions()
                polled = await reader.poll(timeout_ms=POLL_MS)
            except ConsumerStoppedError:
                return
            for records in polled.records.values():
                self._take(records)

    def _read_new_partitions(self) -> None:
        """Read every partition that `replies` has: a reply can be in each."""
        consumer, topic = self._consumer, self._topics.replies
        assigned = consumer.assignment()
        new = {TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic) or ()} - assigned
        if new:
            before = positions(consumer)
            consumer.assign([*assigned, *new])
            for partition, position in (before | dict.fromkeys(new, 0)).items():
                consumer.seek(partition, position)

    def _take(self, records: Iterable[Any]) -> None:
        for record in records:
            waiting = self._waiting.get(record.key or b"")
            if waiting is None or waiting.reply.done():
                continue
            try:
                waiting.reply.set_result(msgspec.json.decode(record.value or b"", type=waiting.wanted))
            except UNREADABLE:
                waiting.reply.set_exception(
                    NotAnswered(
                        f"the worker of partition {waiting.partition} does not know this request: it is of an older "
                        f"version", waiting.partition, replied=True,
                    )
                )  # fmt: skip
