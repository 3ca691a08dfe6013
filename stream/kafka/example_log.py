"""Reads the newest examples of all partitions, without a consumer group, and goes on from where it stopped.

Memory is bounded by `newest` examples, some 5 kB each. The first reading begins as many records before the end of each
partition, and further back where compaction has left too few.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from model.ranker.examples import Example
from stream.config import Config
from stream.kafka.connection import consumer_connection
from stream.kafka.diagnosis import unavailable
from stream.kafka.examples import NoExample, OtherSchema, unpack
from stream.kafka.exchange import close
from stream.kafka.rarely import Rarely
from stream.kafka.reader import Reader
from stream.kafka.topics import partitions_of

log = logging.getLogger("anabranch.examples")

READ_WITHIN_S = 60.0
"""A reading ends after this time with what it has; the next one goes on."""
POLL_MS = 100
POLLS_OF_EMPTY = 3
"""A partition without records may report no end to its reader."""
FURTHER_BACK = 4
SPARE = 1.25
"""Older examples are dropped where there are this many times as many as wanted."""


class ExampleLog:
    """The newest examples of the topic."""

    def __init__(self, config: Config, hash_of: Callable[[bytes], int], newest: int) -> None:
        """`hash_of` hashes the id of a user."""
        self._config, self._topic, self._hash_of, self._newest = config, config.topics.examples, hash_of, newest
        self._by_user: dict[bytes, list[Example]] = {}
        self._count = 0
        self._positions: dict[int, int] = {}
        self._rarely = Rarely()
        self.skipped: Counter[str] = Counter()
        """Messages that were not read as examples, since the start: `malformed`, or of another `schema`."""

    def __len__(self) -> int:
        return min(self._count, self._newest)

    def examples(self) -> list[Example]:
        """The newest examples, in the order of their events."""
        return [example for _, example in self.keyed()]

    def keyed(self) -> list[tuple[bytes, Example]]:
        """The same, each with the id of its user."""
        every = [(user, example) for user, examples in self._by_user.items() for example in examples]
        every.sort(key=lambda entry: (entry[1].ts, entry[1].moment, entry[0]))
        return every[-self._newest :]

    async def read(self) -> bool:
        """Read what is new; False where there is no such topic for us. Raises BrokerUnavailable."""
        config = self._config
        # A fetch that waits for more records blocks every later request on its connection.
        consumer = AIOKafkaConsumer(
            **consumer_connection(config), enable_auto_commit=False, fetch_max_wait_ms=50,
            auto_offset_reset="earliest",
        )  # fmt: skip
        try:
            await consumer.start()
            partitions = [TopicPartition(self._topic, number) for number in await partitions_of(consumer, self._topic)]
            if not partitions:
                return False
            async with asyncio.timeout(READ_WITHIN_S):
                await self._read(consumer, partitions)
        except TimeoutError:
            log.info("the reading of examples goes on later: not all were read within %.0f s", READ_WITHIN_S)
        except (KafkaError, OSError) as error:
            raise await unavailable(config, error, f"the examples of {self._topic!r}") from None
        finally:
            await close(consumer)
        return True

    async def _read(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        begins = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        if any(self._positions.get(p.partition, 0) > ends[p] for p in partitions):  # the topic was created again
            self._positions = {}
        if self._positions:
            starts = {p: max(self._positions.get(p.partition, begins[p]), begins[p]) for p in partitions}
            return await self._read_from(consumer, starts, ends)
        window = self._newest  # of each: one partition may have all of the newest
        while True:
            self._by_user, self._count = {}, 0
            starts = {p: max(ends[p] - window, begins[p]) for p in partitions}
            await self._read_from(consumer, starts, ends)
            if self._count >= self._newest or starts == begins:
                return None
            window *= FURTHER_BACK

    async def _read_from(
        self, consumer: AIOKafkaConsumer, starts: dict[TopicPartition, int], ends: dict[TopicPartition, int]
    ) -> None:
        consumer.assign(list(starts))
        for partition, start in starts.items():
            consumer.seek(partition, start)
        reader, left, silent = Reader(consumer), set(starts), 0
        while left:
            polled = (await reader.poll(timeout_ms=POLL_MS)).records
            silent = 0 if polled else silent + 1
            for records in polled.values():
                self._take(records)
            for partition in list(left):
                known = consumer.highwater(partition)  # the embedded broker reports a lower end than a reader gets
                at_end = await consumer.position(partition) >= max(ends[partition], known or 0)
                if at_end and (known is not None or silent >= POLLS_OF_EMPTY):
                    left.discard(partition)
        self._positions = {p.partition: await consumer.position(p) for p in starts}

    def _take(self, records: Iterable[Any]) -> None:
        """Add the examples of these records; a tombstone removes those of its user."""
        from model.ranking.features import NAMES, SCHEMA  # imports torch

        for record in records:
            if not record.key:
                self._skip("malformed", "it has no key")
            elif record.value is None:
                self._count -= len(self._by_user.pop(record.key, ()))
            else:
                try:
                    self._add(record.key, unpack(record.value, self._hash_of(record.key), SCHEMA, len(NAMES)))
                except OtherSchema as why:
                    self._skip("schema", str(why))
                except NoExample as why:
                    self._skip("malformed", str(why))
        if self._count > self._newest * SPARE:
            kept = self.keyed()
            self._by_user, self._count = {}, 0
            for user, example in kept:
                self._add(user, example)

    def _add(self, user: bytes, example: Example) -> None:
        examples = self._by_user.setdefault(user, [])
        if not any((e.moment, e.ts) == (example.moment, example.ts) for e in examples):  # not sent twice
            examples.append(example)
            self._count += 1

    def _skip(self, word: str, why: str) -> None:
        self.skipped[word] += 1
        if self._rarely.may_log(word):
            log.warning(
                "a message of %r is skipped: %r; %d since the start", self._topic, why[:200], self.skipped[word]
            )
