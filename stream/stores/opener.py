"""Assigned partitions whose store is not open yet, and how it comes to be.

Opening can take long (a checkpoint to download) or be put off (a full disk), and the Kafka client would lose its place
in the group if it waited for that. So a partition is paused when it is assigned, and read once its store is there.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from state.errors import StoreBlocked
from stream.config import Config
from stream.errors import BrokerUnavailable
from stream.kafka.connection import connection
from stream.kafka.topics import Log, topic_id
from stream.stores.partition_stores import EMBEDDED, PartitionStores

log = logging.getLogger("anabranch.worker")

TRY_AGAIN_S = 5.0
ASKED_TIMES, ASKED_FOR_MS = 20, 100


class Opener:
    """Opens stores one after the other, off the event loop's thread, and seeks to the offset each has come to."""

    def __init__(
        self,
        config: Config,
        consumer: AIOKafkaConsumer,
        partitions: PartitionStores,
        cluster: str,
        opened: Callable[[], None],
    ) -> None:
        self._config, self._consumer, self._partitions = config, consumer, partitions
        self._cluster, self._opened = cluster, opened
        self._waiting: dict[TopicPartition, None] = {}
        self._added = asyncio.Event()
        self.behind: dict[int, int] = {}
        """Partitions, and what the end of their log was when they were assigned, until it is reached."""
        self.paused = False
        """By an operator: what is opened meanwhile is not read yet."""

    def add(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop reading these until their stores are open."""
        added = dict.fromkeys(partitions)
        self._consumer.pause(*added)
        self._waiting |= added
        self._added.set()

    def discard(self, partitions: Iterable[TopicPartition]) -> None:
        """These are another worker's now."""
        for partition in partitions:
            self._waiting.pop(partition, None)
            self.behind.pop(partition.partition, None)

    async def run(self) -> None:
        """Open what waits, for ever. Raises StateError where a store cannot be used and waiting would not mend it."""
        while True:
            await self._added.wait()
            self._added.clear()
            while self._waiting:
                asked = list(self._waiting)
                try:
                    held = await look_at(self._config, self._cluster, asked)
                except (BrokerUnavailable, KafkaError) as error:
                    log.error("no partition is opened for now: %s. Trying again in %.0f s", error, TRY_AGAIN_S)
                    held = {}
                for partition, its_log in held.items():
                    try:
                        await self._open(partition, its_log)
                    except StoreBlocked as reason:
                        log.error(
                            "partition %d is not read for now: %s. Trying again in %.0f s",
                            partition.partition, reason, TRY_AGAIN_S,
                        )  # fmt: skip
                if self._waiting.keys() & asked:
                    await asyncio.sleep(TRY_AGAIN_S)

    async def _open(self, partition: TopicPartition, held: Log) -> None:
        store = await asyncio.to_thread(self._partitions.open, partition.partition, held)
        waited = partition in self._waiting
        self._waiting.pop(partition, None)
        if not waited or partition not in self._consumer.assignment():  # it was revoked meanwhile
            store.close()
            return
        self.behind[partition.partition] = held.end
        self._partitions.stores[partition.partition] = store
        self._consumer.seek(partition, store.progress.log_offset)
        if not self.paused:
            self._consumer.resume(partition)
        self._opened()


async def look_at(config: Config, cluster: str, partitions: list[TopicPartition]) -> dict[TopicPartition, Log]:
    """The logs of partitions as the cluster has them now. Raises KafkaError or BrokerUnavailable."""
    known = await known_topic_id(config, cluster)
    look = AIOKafkaConsumer(**connection(config), enable_auto_commit=False, fetch_max_wait_ms=50)
    await look.start()
    try:
        look.assign(partitions)
        begins = await look.beginning_offsets(partitions)
        ends = await look.end_offsets(partitions)
        # The embedded broker answers that question with the begin of its last batch; what it says to a reader is right.
        # A store is thrown away over this number, so a reader is asked everywhere.
        for partition in partitions:
            look.seek(partition, ends[partition])
        for _ in range(ASKED_TIMES):
            await look.getmany(timeout_ms=ASKED_FOR_MS, max_records=1)
            if all(look.highwater(p) is not None for p in partitions):
                break
        count = len(look.partitions_for_topic(partitions[0].topic) or ())
        return {p: Log(cluster, known, count, begins[p], max(ends[p], look.highwater(p) or 0)) for p in partitions}
    finally:
        await look.stop()


async def known_topic_id(config: Config, cluster: str) -> str:
    """What the cluster calls the clicks topic now; empty where that cannot be known, or means nothing."""
    return "" if cluster == EMBEDDED else await asyncio.to_thread(topic_id, config, config.topics.clicks)
