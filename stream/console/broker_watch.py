"""The broker as this process sees it: whether it answers, how far the log goes, which versions are named, how fast
recommendations follow their clicks. One client, asked every few seconds, and each time within a limit."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream.config import Config
from stream.console.latency import LatencyProbe, Sent
from stream.errors import AnabranchError
from stream.kafka.connection import consumer_connection
from stream.kafka.exchange import close
from stream.kafka.pointers import Pointers, read_last_pointers, read_pointers
from stream.kafka.topics import partitions_of
from stream.times import now_ms

log = logging.getLogger("anabranch.console")

LOOK_EVERY_S, LOOK_WITHIN_S = 5.0, 5.0
POINTERS_EVERY_S = 10.0
MAX_LATENCIES = 500


class BrokerWatch:
    """Looks at the broker until it is cancelled."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.answers = False
        """Whether the broker answered the last time."""
        self.since_ts = 0
        """Since when it answers, or does not; 0: it has not been asked yet."""
        self.why = ""
        """Why it does not answer."""
        self.ends: dict[int, int] = {}
        """The next offset of each partition of `clicks`."""
        self.pointers: Pointers = read_last_pointers(config.data)
        self._latencies: list[float] = []
        self._consumer: AIOKafkaConsumer | None = None
        self._probe = LatencyProbe(config)
        self._pointers_at = 0.0
        self._again = asyncio.Event()
        self._ending = False

    @property
    def asked(self) -> bool:
        """Whether it is known yet if the broker answers."""
        return self.since_ts > 0

    @property
    def newest(self) -> list[Sent]:
        """What was recommended last, as far as it was sampled; the newest first."""
        return list(self._probe.newest)[::-1]

    def take_latencies(self) -> list[float]:
        """The sampled times from a click to its recommendation, ms, since they were last taken."""
        taken, self._latencies = self._latencies, []
        return taken

    def look_again(self) -> None:
        """Read the pointers again now: somebody has moved one."""
        self._pointers_at = 0.0
        self._again.set()

    async def run(self) -> None:
        """Look every LOOK_EVERY_S."""
        while not self._ending:
            if await self._tried(self._read_ends()):
                self._note(True)
                # These tell nothing of the broker: a busy machine takes its time.
                await self._tried(self._read_pointers())
                await self._tried(self._sample_latencies())
            else:
                self._note(False)
            self._again.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), LOOK_EVERY_S)

    async def stop(self, task: asyncio.Task[None]) -> None:
        """End `run`, which is this task, and close the clients."""
        self._ending = True  # the Kafka client can swallow a cancellation
        task.cancel()
        await asyncio.wait([task], timeout=LOOK_WITHIN_S)
        await self._close()

    async def _close(self) -> None:
        """Close the clients; the next look opens them again."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await close(consumer)
        await self._probe.close()

    def _note(self, answers: bool) -> None:
        if answers != self.answers or not self.since_ts:
            self.since_ts = now_ms()
        self.answers = answers
        self.why = "" if answers else self.why

    async def _tried(self, look: Coroutine[Any, Any, None]) -> bool:
        """Whether this succeeded; where not, the clients are closed, and opened again the next time."""
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                await look
            return True
        except (KafkaError, OSError, AnabranchError) as error:  # TimeoutError is an OSError
            self.why = str(error) or f"It gave no answer within {LOOK_WITHIN_S:.0f} s."
        except Exception as error:
            log.exception("the console cannot look at the broker")
            self.why = type(error).__name__
        await self._close()
        return False

    async def _read_ends(self) -> None:
        config = self._config
        if self._consumer is None:
            self._consumer = AIOKafkaConsumer(**consumer_connection(config), enable_auto_commit=False)
            await self._consumer.start()
        topic = config.topics.clicks
        partitions = [TopicPartition(topic, number) for number in await partitions_of(self._consumer, topic)]
        ends = await self._consumer.end_offsets(partitions) if partitions else {}
        self.ends = {partition.partition: end for partition, end in ends.items()}

    async def _read_pointers(self) -> None:
        if time.monotonic() - self._pointers_at > POINTERS_EVERY_S or not self._pointers_at:
            self.pointers = await read_pointers(self._config)
            self._pointers_at = time.monotonic()

    async def _sample_latencies(self) -> None:
        self._latencies = (self._latencies + await self._probe.sample(self.ends.keys()))[-MAX_LATENCIES:]
