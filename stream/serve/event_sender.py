"""Sends events to the topic of clicks, keyed by their users with Kafka's own partitioner."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from stream.config import Config
from stream.http.answers import Event, Unsent
from stream.kafka.connection import connection

ACKNOWLEDGED_WITHIN_S = 5.0
"""A client waits at most this long for Kafka. What is not acknowledged by then may still arrive."""
MAX_UNACKNOWLEDGED = 20_000
"""Events under way to Kafka. More are refused: while Kafka is away they would fill the memory."""
LATE = Unsent("Kafka has not acknowledged it in time; it may still arrive", again=True)
TOO_MANY = Unsent("too many events wait for Kafka", again=True)
TOO_LARGE = Unsent("the topic takes no message of this size", again=False)


class EventSender:
    """A producer that says for each event whether Kafka has it."""

    def __init__(self, config: Config) -> None:
        self._topic = config.topics.clicks
        self._producer = AIOKafkaProducer(
            **connection(config),
            acks="all",
            linger_ms=0,
            request_timeout_ms=int(ACKNOWLEDGED_WITHIN_S * 1000),
            max_request_size=2 * config.clicks.max_message_bytes,
        )
        self._unacknowledged = 0

    async def start(self) -> None:
        """Connect. Raises KafkaConnectionError."""
        await self._producer.start()

    async def stop(self) -> None:
        """Wait for what is under way, and close."""
        await self._producer.stop()

    async def publish(self, events: Sequence[Event]) -> list[Unsent | None]:
        """Send the events in their order; None for each that Kafka has acknowledged, else why it may not have it."""
        if self._unacknowledged + len(events) > MAX_UNACKNOWLEDGED:
            return [TOO_MANY] * len(events)
        self._unacknowledged += len(events)
        outcomes: list[Unsent | None] = [LATE] * len(events)
        sending = asyncio.create_task(self._send_all(events, outcomes))
        sending.add_done_callback(lambda _: self._end(len(events)))
        await asyncio.wait([sending], timeout=ACKNOWLEDGED_WITHIN_S)
        if sending.done():
            sending.result()
        return list(outcomes)

    def _end(self, count: int) -> None:
        self._unacknowledged -= count

    async def _send_all(self, events: Sequence[Event], outcomes: list[Unsent | None]) -> None:
        sent = [await self._send(event) for event in events]
        for index, event in enumerate(events):
            outcomes[index] = await self._outcome(event, sent[index])

    async def _send(self, event: Event) -> "asyncio.Future[Any] | KafkaError":
        try:
            future: asyncio.Future[Any] = await self._producer.send(
                self._topic, event.value, key=event.key, headers=event.headers
            )
        except KafkaError as error:
            return error
        return future

    async def _outcome(self, event: Event, sent: "asyncio.Future[Any] | KafkaError") -> Unsent | None:
        try:
            if isinstance(sent, KafkaError):
                raise sent
            try:
                await sent
            except MessageSizeTooLargeError:  # the whole batch was refused: for which of its messages?
                await self._producer.send_and_wait(self._topic, event.value, key=event.key, headers=event.headers)
        except MessageSizeTooLargeError:
            return TOO_LARGE
        except KafkaError:
            return LATE
        return None
