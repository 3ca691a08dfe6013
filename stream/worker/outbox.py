"""What the worker sends. Each call returns once the broker has it: a broker that is away is waited for, with a line.

A worker whose lease has run out sends nothing more: the partition may be another's by now, and its answers newer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, ProducerClosed

from stream.config import TopicSettings
from stream.kafka.decode import DeadLetter
from stream.kafka.lease import Lease
from stream.kafka.messages import Request
from stream.worker.recommender import Answer

log = logging.getLogger("anabranch.outbox")

TRY_AGAIN_S = 1.0
KEPT_BYTES = 1000
"""Of a dead letter that is larger than its topic takes."""


class LeaseLost(Exception):
    """Another worker may own the partition: what was to be said is that worker's to say."""


class Outbox:
    """Recommendations, replies and dead letters on their way to Kafka; a repeat is possible, a loss is not.

    Every call raises LeaseLost where the lease is no longer held.
    """

    def __init__(self, topics: TopicSettings, producer: AIOKafkaProducer, lease: Lease) -> None:
        self._topics = topics
        self._producer = producer
        self._lease = lease

    async def recommend(self, answers: Sequence[Answer]) -> None:
        """Send recommendations."""

        async def send() -> None:
            topic = self._topics.recommendations
            await asyncio.gather(*[await self._producer.send(topic, a.message, key=a.user_id) for a in answers])

        await self._insist("recommendations", send)

    async def reply(self, request: Request, answer: Answer) -> None:
        """Send the answer to a request."""
        message = msgspec.json.decode(answer.message)
        message |= {"user": str(request.user), "id": request.id}  # a user without events has no id in the dictionary
        value, key = msgspec.json.encode(message), str(request.id).encode() or None
        await self._insist("a reply", lambda: self._producer.send_and_wait(self._topics.replies, value, key=key))

    async def forget(self, users: Sequence[str]) -> None:
        """Send tombstones in place of these users' recommendations."""

        async def send() -> None:
            topic = self._topics.recommendations
            await asyncio.gather(*[await self._producer.send(topic, None, key=user.encode()) for user in users])

        await self._insist("tombstones", send)

    async def bury(self, topic: str, partition: int, dead: Sequence[DeadLetter]) -> None:
        """Send dead letters as they came, with their reason and where they lay in headers."""

        async def send() -> None:
            await asyncio.gather(*(self._bury_one(topic, partition, letter) for letter in dead))

        if dead:
            await self._insist("dead letters", send)

    async def _bury_one(self, topic: str, partition: int, letter: DeadLetter) -> None:
        record = letter.record
        told = {"reason": letter.reason, "topic": topic, "partition": str(partition), "offset": str(record.offset)}
        headers = [(name, text.encode()) for name, text in told.items()]
        to, value = self._topics.dead_letters, record.value
        try:
            await self._producer.send_and_wait(to, value, key=record.key, headers=headers)
        except MessageSizeTooLargeError:
            value, key = value or b"", record.key
            headers.append(("truncated", str(len(value)).encode()))
            if key and len(key) > KEPT_BYTES:
                headers.append(("truncated_key", str(len(key)).encode()))
                key = key[:KEPT_BYTES]
            await self._producer.send_and_wait(to, value[:KEPT_BYTES], key=key, headers=headers)

    async def _insist(self, what: str, send: Callable[[], Awaitable[object]]) -> None:
        while True:
            if not self._lease.held:
                raise LeaseLost
            try:
                await send()
                return
            except ProducerClosed:  # we are stopping; whom it concerned is still owed it
                raise LeaseLost from None
            except KafkaError as error:
                log.warning("the broker did not take %s (%s); trying again in %.0f s", what, error, TRY_AGAIN_S)
                await asyncio.sleep(TRY_AGAIN_S)
