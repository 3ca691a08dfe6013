"""Asks workers through the topics `requests` and `replies`."""

import asyncio
import itertools
import logging
import uuid

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from stream.config import Config
from stream.kafka.connection import connection, consumer_connection
from stream.kafka.exchange import close
from stream.kafka.messages import UNREADABLE, Reply, Request, encode
from stream.kafka.reader import Reader
from stream.kafka.topics import partitions_of

log = logging.getLogger("anabranch.ask")

AGAIN_S = 1.0


class RequestClient:
    """Sends requests and waits for their replies; many at once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._producer = AIOKafkaProducer(**connection(config), linger_ms=0, acks=1)
        self._consumer = AIOKafkaConsumer(**consumer_connection(config), enable_auto_commit=False)
        self._name, self._count = uuid.uuid4().hex[:12], itertools.count()
        self._waiting: dict[str, asyncio.Future[Reply]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect. Raises KafkaConnectionError."""
        await self._producer.start()
        await self._consumer.start()
        topic = self._config.topics.replies
        partitions = [TopicPartition(topic, number) for number in await partitions_of(self._consumer, topic)]
        self._consumer.assign(partitions)
        await self._consumer.seek_to_end(*partitions)
        for partition in partitions:
            await self._consumer.position(partition)
        self._task = asyncio.create_task(self._read())

    async def stop(self) -> None:
        """Close."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await close(self._producer, self._consumer)

    async def ask(self, request: Request, timeout_s: float) -> Reply:
        """The reply. Raises TimeoutError."""
        name = f"{self._name}-{next(self._count)}"
        request = msgspec.structs.replace(request, id=name)
        self._waiting[name] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self._producer.send(self._config.topics.requests, encode(request), key=str(request.user).encode())
                return await self._waiting[name]
        except KafkaError as error:
            raise TimeoutError from error
        finally:
            del self._waiting[name]

    async def _read(self) -> None:
        ours, reader = self._name.encode(), Reader(self._consumer)
        while True:
            for records in (await reader.poll(timeout_ms=500)).records.values():
                for record in records:
                    if not (record.key or b"").startswith(ours):
                        continue
                    waiting = self._waiting.get(record.key.decode())
                    if waiting is None or waiting.done():
                        continue
                    try:
                        waiting.set_result(msgspec.json.decode(record.value, type=Reply))
                    except UNREADABLE:
                        continue
