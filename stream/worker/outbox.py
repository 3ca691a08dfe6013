"""Messages on their way to Kafka. Each call returns once the broker has acknowledged them, however long it is away.

Without the lease nothing is sent: another worker may own the partition, and its answers may be newer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, ProducerClosed

from stream.config import TopicSettings
from stream.kafka.decode import DeadLetter
from stream.kafka.lease import Lease, LeaseLost
from stream.kafka.messages import Request
from stream.worker.recommendation import Answer

log = logging.getLogger("anabranch.outbox")

SEND_AGAIN_S = 1.0
TRUNCATED_BYTES = 1000
"""Length to which a dead letter is cut if its topic does not accept its size."""


class Outbox:
    """Sends recommendations, replies, tombstones and dead letters. A message can be repeated, never lost.

    Every call tests the lease before each try, and raises LeaseLost without it. A try that has begun can outlast the
    lease by one request timeout of the producer, which is `worker.session_timeout_ms` too.
    """

    def __init__(self, topics: TopicSettings, producer: AIOKafkaProducer, lease: Lease) -> None:
        self._topics = topics
        self._producer = producer
        self._lease = lease

    async def send_recommendations(self, answers: Sequence[Answer]) -> None:
        """Send recommendations, keyed by user."""

        async def send() -> None:
            topic = self._topics.recommendations
            await asyncio.gather(*[await self._producer.send(topic, a.message, key=a.user_id) for a in answers])

        await self._retry_until_acknowledged("recommendations", send)

    async def send_reply(self, request: Request, answer: Answer) -> None:
        """Send the answer to a request."""
        message = msgspec.json.decode(answer.message)
        message |= {"user": str(request.user), "id": request.id}  # a user without events has no id in the state
        value, key = msgspec.json.encode(message), str(request.id).encode() or None

        async def send() -> None:
            await self._producer.send_and_wait(self._topics.replies, value, key=key)

        await self._retry_until_acknowledged("a reply", send)

    async def send_tombstones(self, users: Sequence[str]) -> None:
        """Replace these users' recommendations by tombstones."""

        async def send() -> None:
            topic = self._topics.recommendations
            await asyncio.gather(*[await self._producer.send(topic, None, key=user.encode()) for user in users])

        await self._retry_until_acknowledged("tombstones", send)

    async def send_dead_letters(self, topic: str, partition: int, dead: Sequence[DeadLetter]) -> None:
        """Send records unchanged, with the reason and their topic, partition and offset in headers."""

        async def send() -> None:
            await asyncio.gather(*(self._send_dead_letter(topic, partition, letter) for letter in dead))

        if dead:
            await self._retry_until_acknowledged("dead letters", send)

    async def _send_dead_letter(self, topic: str, partition: int, letter: DeadLetter) -> None:
        record = letter.record
        about = {"reason": letter.reason, "topic": topic, "partition": str(partition), "offset": str(record.offset)}
        headers = [(name, text.encode()) for name, text in about.items()]
        to, value = self._topics.dead_letters, record.value
        try:
            await self._producer.send_and_wait(to, value, key=record.key, headers=headers)
        except MessageSizeTooLargeError:
            value, key = value or b"", record.key
            headers.append(("truncated", str(len(value)).encode()))
            if key and len(key) > TRUNCATED_BYTES:
                headers.append(("truncated_key", str(len(key)).encode()))
                key = key[:TRUNCATED_BYTES]
            await self._producer.send_and_wait(to, value[:TRUNCATED_BYTES], key=key, headers=headers)

    async def _retry_until_acknowledged(self, what: str, send: Callable[[], Awaitable[None]]) -> None:
        while True:
            if not self._lease.held:
                raise LeaseLost
            try:
                await send()
                return
            except ProducerClosed:  # the worker stops; the next owner sends it
                raise LeaseLost from None
            except KafkaError as error:
                log.warning("the broker did not take %s (%s); trying again in %.0f s", what, error, SEND_AGAIN_S)
                await asyncio.sleep(SEND_AGAIN_S)
