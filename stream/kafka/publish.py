"""Publish rows as JSON messages, at full speed or paced."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError

from stream.config import Config
from stream.kafka.connection import connection
from stream.kafka.diagnosis import unavailable
from stream.kafka.exchange import close, within
from stream.kafka.messages import encode

MAX_UNACKNOWLEDGED = 5_000
"""Messages sent before their acknowledgements are awaited."""


class Pace:
    """How fast to publish: a number of events a second, a multiple of the events' own time, or at full speed."""

    def __init__(self, speed: str | None) -> None:
        """`speed` is "500" (events/s), "60x" (times event time) or None (full speed). Raises ValueError."""
        self.times = float(speed[:-1]) if speed and speed.endswith("x") else None
        self.events_per_s = float(speed) if speed and self.times is None else None
        if (self.times or self.events_per_s or 1.0) <= 0:
            raise ValueError(f"{speed} is not more than 0")
        self._started: float | None = None
        self._first_ts = 0.0

    def due_s(self, count: int, ts: object) -> float:
        """Seconds until event number `count`, with the event time `ts` in ms, is due."""
        if self.events_per_s is None and self.times is None:
            return 0.0
        at = float(ts) if isinstance(ts, int | float) else 0.0
        if self._started is None:
            self._started, self._first_ts = time.monotonic(), at
        if self.events_per_s is not None:
            target = count / self.events_per_s
        else:
            assert self.times is not None
            target = (at - self._first_ts) / 1000.0 / self.times
        return self._started + target - time.monotonic()


async def publish(
    config: Config,
    topic: str,
    rows: Iterable[dict[str, Any]],
    key: str,
    pace: Pace,
    progress: Callable[[int], None] = lambda _: None,
    to_message: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: row,
) -> int:
    """Send `to_message` of each row as JSON, keyed by the row's field `key`; return how many were acknowledged.

    Raises BrokerUnavailable.
    """
    producer = AIOKafkaProducer(**connection(config), linger_ms=5, max_batch_size=256 << 10, acks="all")
    count = 0
    try:
        await within(config, "a connection to publish", producer.start())
        sent: list[asyncio.Future[Any]] = []
        for row in rows:
            wait_s = pace.due_s(count, row.get("ts"))
            if wait_s > 0.002:
                progress(count)
                await asyncio.sleep(wait_s)
            value = encode(to_message(row))
            sent.append(await producer.send(topic, value, key=str(row[key]).encode("utf-8", "replace")))
            count += 1
            if len(sent) >= MAX_UNACKNOWLEDGED:
                await asyncio.gather(*sent)
                sent.clear()
                progress(count)
        await asyncio.gather(*sent)
    except (KafkaConnectionError, KafkaError) as error:
        raise await unavailable(config, error, f"events to be acknowledged in {topic!r}") from None
    finally:
        await close(producer)
    progress(count)
    return count
