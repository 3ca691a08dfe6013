"""Publish JSON messages, at full speed or paced, as they come."""

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError, MessageSizeTooLargeError

from stream.config import Config
from stream.kafka.connection import connection
from stream.kafka.diagnosis import unavailable
from stream.kafka.exchange import close, within
from stream.kafka.messages import encode
from stream.kafka.topics import check_existence

MAX_UNACKNOWLEDGED = 5_000
"""Messages sent before their acknowledgements are awaited."""
MAX_READ_AHEAD = 1_000
"""Messages read from a pipe before they are sent."""


class Message(NamedTuple):
    """A message to publish."""

    key: bytes
    value: bytes
    ts: int | None = None
    """The event's time in ms."""
    line: int = 0
    """Where it was read."""


class Pace:
    """How fast to publish: a number of events a second, a multiple of the events' own time, or at full speed."""

    def __init__(self, speed: str | None) -> None:
        """`speed` is "500" (events/s), "60x" (times event time) or None (full speed). Raises ValueError."""
        self.times = float(speed[:-1]) if speed and speed.endswith("x") else None
        self.events_per_s = float(speed) if speed is not None and self.times is None else None
        number = self.times if self.times is not None else self.events_per_s
        if number is not None and not (number > 0 and math.isfinite(number)):
            raise ValueError(f"{speed} is not more than 0")
        self._started: float | None = None
        self._first_ts: int | None = None

    def due_s(self, count: int, ts: int | None) -> float:
        """Seconds until event number `count`, with the event time `ts` in ms, is due."""
        if self.events_per_s is None and self.times is None:
            return 0.0
        if self._started is None:
            self._started = time.monotonic()
        if self.events_per_s is not None:
            target = count / self.events_per_s
        elif ts is None:  # of no time of its own: when the one before it is due
            return 0.0
        else:
            assert self.times is not None
            self._first_ts = ts if self._first_ts is None else self._first_ts
            target = (ts - self._first_ts) / 1000.0 / self.times
        return self._started + target - time.monotonic()


async def publish_one(config: Config, topic: str, key: bytes, value: bytes, what: str) -> None:
    """Send one message, `what` in errors, and wait for its acknowledgement. Raises BrokerUnavailable, TopicMismatch."""

    async def send_and_wait() -> None:
        async with AIOKafkaProducer(**connection(config), acks="all") as producer:
            await producer.send_and_wait(topic, value, key=key)

    await asyncio.to_thread(check_existence, config, topic)
    await within(config, f"{what} to be acknowledged", send_and_wait())


async def publish(
    config: Config,
    topic: str,
    rows: Iterable[dict[str, Any]],
    key: str,
    pace: Pace,
    on_progress: Callable[[int], None] = lambda _: None,
    *,
    live: bool = False,
) -> int:
    """Send each row as JSON, keyed by its field `key`; return how many were acknowledged. Raises BrokerUnavailable.

    With `live` the rows may make one wait for them.
    """
    messages = (Message(str(row[key]).encode("utf-8", "replace"), encode(row), row.get("ts")) for row in rows)
    return await send(config, topic, messages, pace, on_progress=on_progress, live=live)


async def send(
    config: Config,
    topic: str,
    messages: Iterable[Message],
    pace: Pace,
    *,
    on_progress: Callable[[int], None] = lambda _: None,
    on_refused: Callable[[int, str], None] = lambda *_: None,
    live: bool = False,
) -> int:
    """Send the messages; return how many were acknowledged.

    `on_refused` gets the line of a message that is too large for the broker, and why. With `live` each message is sent
    when it comes, however long the next one takes. Raises BrokerUnavailable, and what `messages` raises.
    """
    producer = AIOKafkaProducer(**connection(config), linger_ms=5, max_batch_size=256 << 10, acks="all")
    sending = _Sending(producer, topic, on_refused)
    try:
        await within(config, "a connection to publish", producer.start())
        async for message in _as_they_come(messages) if live else _at_once(messages):
            wait_s = pace.due_s(sending.sent, message.ts)
            if wait_s > 0.002:
                on_progress(sending.acknowledged)
                await asyncio.sleep(wait_s)
            await sending.send(message)
            if live or sending.sent % MAX_UNACKNOWLEDGED == 0:
                on_progress(sending.acknowledged)
        await sending.settle(0)
    except (KafkaConnectionError, KafkaError) as error:
        raise await unavailable(config, error, f"events to be acknowledged in {topic!r}") from None
    finally:
        await close(producer)
    on_progress(sending.acknowledged)
    return sending.acknowledged


class _Sending:
    """Messages under way to the broker."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, on_refused: Callable[[int, str], None]) -> None:
        self._producer, self._topic, self._on_refused = producer, topic, on_refused
        self._unacknowledged: deque[tuple[asyncio.Future[Any], Message]] = deque()
        self.sent = self.acknowledged = 0

    async def send(self, message: Message) -> None:
        try:
            sent = await self._producer.send(self._topic, message.value, key=message.key)
        except MessageSizeTooLargeError:
            return self._refuse(message)
        self.sent += 1
        self._unacknowledged.append((sent, message))
        await self.settle(MAX_UNACKNOWLEDGED)

    async def settle(self, at_most: int) -> None:
        """Wait until at most so many messages are unacknowledged."""
        waiting = self._unacknowledged
        while waiting and (len(waiting) > at_most or waiting[0][0].done()):
            sent, message = waiting.popleft()
            try:
                await sent
            except MessageSizeTooLargeError:  # the broker refused a whole batch: which of its messages?
                try:
                    await self._producer.send_and_wait(self._topic, message.value, key=message.key)
                except MessageSizeTooLargeError:
                    self._refuse(message)
                    continue
            self.acknowledged += 1

    def _refuse(self, message: Message) -> None:
        self._on_refused(
            message.line,
            f"a message of {len(message.value):,} bytes is larger than the broker accepts for {self._topic!r} "
            f"(max.message.bytes)",
        )


async def _at_once(messages: Iterable[Message]) -> AsyncIterator[Message]:
    for message in messages:
        yield message


async def _as_they_come(messages: Iterable[Message]) -> AsyncIterator[Message]:
    """The messages, read in a thread: a reader that waits for the next line must not hold the ones before it."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[Message | BaseException | None]()
    room = threading.BoundedSemaphore(MAX_READ_AHEAD)

    def read(items: Iterator[Message]) -> None:
        end: BaseException | None = None
        try:
            for message in items:
                room.acquire()
                loop.call_soon_threadsafe(queue.put_nowait, message)
        except BaseException as error:
            end = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads on
            loop.call_soon_threadsafe(queue.put_nowait, end)

    threading.Thread(target=read, args=(iter(messages),), daemon=True, name="reader").start()
    while (found := await queue.get()) is not None:
        if isinstance(found, BaseException):
            raise found
        room.release()
        yield found
