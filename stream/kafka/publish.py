"""Publishing events from rows, at full speed or paced."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError

from stream.config import Config
from stream.kafka.connection import connection
from stream.kafka.diagnosis import unavailable

IN_FLIGHT = 5_000
"""Messages sent before their acknowledgements are awaited."""


class Pace:
    """How fast to publish: `events_per_s`, or `times` the events' own time; neither: as fast as it goes."""

    def __init__(self, speed: str | None) -> None:
        """`speed` is "500" (events/s) or "60x" (times event time). Raises ValueError."""
        self.times = float(speed[:-1]) if speed and speed.endswith("x") else None
        self.events_per_s = float(speed) if speed and self.times is None else None
        if (self.times or self.events_per_s or 1.0) <= 0:
            raise ValueError(f"{speed} is not more than 0")
        self._started: float | None = None
        self._first_ts = 0.0

    def due_s(self, count: int, ts: object) -> float:
        """Seconds until the event number `count`, which happened at `ts` ms, is due."""
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
    layout: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: row,
) -> int:
    """Send each row as JSON in its `layout`, keyed by its field `key`; return how many the broker acknowledged.

    Raises BrokerUnavailable.
    """
    producer = AIOKafkaProducer(**connection(config), linger_ms=5, max_batch_size=256 << 10, acks="all")
    try:
        await producer.start()
    except (KafkaConnectionError, KafkaError) as error:
        await producer.stop()
        raise await unavailable(config, error) from None
    count = 0
    try:
        sent: list[asyncio.Future[Any]] = []
        for row in rows:
            wait_s = pace.due_s(count, row.get("ts"))
            if wait_s > 0.002:
                progress(count)
                await asyncio.sleep(wait_s)
            value = msgspec.json.encode(layout(row))
            sent.append(await producer.send(topic, value, key=str(row[key]).encode("utf-8", "replace")))
            count += 1
            if len(sent) >= IN_FLIGHT:
                await asyncio.gather(*sent)
                sent.clear()
                progress(count)
        await asyncio.gather(*sent)
    except (KafkaConnectionError, KafkaError) as error:
        raise await unavailable(config, error) from None
    finally:
        await producer.stop()
    progress(count)
    return count
