"""How far the stores are behind the log: in offsets, and in seconds."""

import asyncio
import contextlib
import time

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from state.store import Store
from stream.config import Config
from stream.stores.assignment import Assignment
from stream.worker.observed import Observed

ASK_EVERY_S = 5.0
"""While an operator's pause lasts nothing is fetched, so the ends of the logs are asked for."""


class Lag:
    """Compares the stores with the ends of their logs, which every fetch brings."""

    def __init__(self, config: Config, consumer: AIOKafkaConsumer, assignment: Assignment, observed: Observed) -> None:
        self._topic, self._consumer, self._assignment = config.topics.clicks, consumer, assignment
        self._observed = observed
        self._ends: dict[int, int] = {}
        """The ends as they were asked for during a pause."""
        self._at_the_end: dict[int, tuple[Store, float]] = {}
        """When each store last had all of its log, s."""

    async def follow(self) -> None:
        """Note when stores have all of their logs, once a second, forever."""
        asked_at = 0.0
        while True:
            if not self._assignment.paused:
                self._ends = {}
            elif time.monotonic() - asked_at > ASK_EVERY_S:
                asked_at = time.monotonic()
                await self._ask()
            self.note()
            await asyncio.sleep(1.0)

    def note(self) -> None:
        """Note which stores have all of their logs now."""
        now, before = time.time(), self._at_the_end
        self._at_the_end = {}
        for number, store in self._assignment.stores.items():
            if self.events(number) == 0:
                self._at_the_end[number] = store, now
            elif number in before and before[number][0] is store:
                self._at_the_end[number] = before[number]

    def end(self, number: int) -> int | None:
        """The last stable offset of a partition's log; None where its store is not open.

        Nothing can be read behind it while somebody's transaction is open, and nothing lags.
        """
        opened, partition = self._assignment.log_ends().get(number), TopicPartition(self._topic, number)
        if opened is None or partition not in self._consumer.assignment():
            return None
        return max(opened, self._consumer.last_stable_offset(partition) or 0, self._ends.get(number, 0))

    def events(self, number: int) -> int | None:
        """How many offsets of a partition are not applied; None where its store is not open."""
        end = self.end(number)
        return None if end is None else max(end - self._assignment.stores[number].progress.log_offset, 0)

    def seconds(self, number: int) -> float | None:
        """For how long the oldest record that is not applied has been in the log, at most; None where not known."""
        behind = self.events(number)
        if not behind:
            return behind
        store = self._assignment.stores[number]
        times = self._observed.click_times.get(store)
        newest_ms = times.newest_ms if times is not None and times.newest_ms else store.progress.newest_ts
        noted, at = self._at_the_end.get(number, (None, 0.0))
        return max(time.time() - max(newest_ms / 1000, at if noted is store else 0.0), 0.0)

    async def _ask(self) -> None:
        partitions = [TopicPartition(self._topic, number) for number in self._assignment.stores]
        if partitions:
            with contextlib.suppress(KafkaError, TimeoutError):  # a broker that is away: the ends of before
                ends = await self._consumer.end_offsets(partitions)
                self._ends = {partition.partition: end for partition, end in ends.items()}
