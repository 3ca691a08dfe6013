"""Opens the stores of assigned partitions, off the event loop's thread.

Opening can take as long as a download, or wait for room on a disk. If the Kafka client waited too, it would lose its
place in the group. So the log of a partition is paused until its store is open (`stream/stores/assignment.py`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from state.errors import StoreBlocked
from state.store import Store
from stream.config import Config
from stream.errors import BrokerUnavailable
from stream.kafka.connection import consumer_connection
from stream.kafka.topics import Log, topic_id
from stream.stores.partition_stores import EMBEDDED_CLUSTER, PartitionStores

log = logging.getLogger("anabranch.worker")

OPEN_AGAIN_S = 5.0
"""Time between two attempts to open a store."""
MAX_HIGHWATER_POLLS, HIGHWATER_POLL_S = 80, 0.025


class Opened(NamedTuple):
    """A partition's store, opened against its log."""

    partition: int
    store: Store
    log_end: int
    """The last stable offset: a transaction that somebody leaves open must not keep the partition from answering."""


class Opener:
    """Opens one store after the other."""

    def __init__(self, config: Config, partition_stores: PartitionStores, cluster: str) -> None:
        self._config, self._partition_stores, self._cluster = config, partition_stores, cluster

    async def open(self, numbers: Sequence[int]) -> AsyncIterator[Opened]:
        """The stores that can be opened now, each as soon as it is open; the others are logged with the reason.

        Raises StateError where a store cannot be used and waiting would not change that.
        """
        partitions = [TopicPartition(self._config.topics.clicks, number) for number in numbers]
        try:
            logs = await read_logs(self._config, self._cluster, partitions)
        except (BrokerUnavailable, KafkaError) as error:
            log.error("no partition is opened for now: %s. Trying again in %.0f s", error, OPEN_AGAIN_S)
            return
        for partition, its_log in logs.items():
            number = partition.partition
            try:
                store = await asyncio.to_thread(self._partition_stores.open, number, its_log)
            except StoreBlocked as reason:
                log.error("partition %d is not read for now: %s. Trying again in %.0f s", number, reason, OPEN_AGAIN_S)
                continue
            yield Opened(number, store, its_log.stable_end)


async def read_logs(config: Config, cluster: str, partitions: list[TopicPartition]) -> dict[TopicPartition, Log]:
    """The logs of partitions as the cluster has them now. Raises KafkaError or BrokerUnavailable."""
    known_id = await read_topic_id(config, cluster)
    reader = AIOKafkaConsumer(**consumer_connection(config), enable_auto_commit=False, fetch_max_wait_ms=50)
    await reader.start()
    try:
        reader.assign(partitions)
        begins = await reader.beginning_offsets(partitions)
        ends = await reader.end_offsets(partitions)
        # The embedded broker reports the beginning of its last batch as the end, but the right end to a reader. A wrong
        # end could move a store aside, so the reader's end is used with every broker. A fetch also has both ends.
        for partition in partitions:
            reader.seek(partition, ends[partition])
        for _ in range(MAX_HIGHWATER_POLLS):
            if all(reader.highwater(p) is not None for p in partitions):
                break
            await asyncio.sleep(HIGHWATER_POLL_S)
        count = len(reader.partitions_for_topic(partitions[0].topic) or ())
        found = {}
        for p in partitions:
            end, stable = max(ends[p], reader.highwater(p) or 0), reader.last_stable_offset(p)
            unstable = end - max(stable, ends[p]) if stable is not None and stable >= 0 else 0
            found[p] = Log(cluster, known_id, count, begins[p], end, unstable)
        return found
    finally:
        await reader.stop()


async def read_topic_id(config: Config, cluster: str) -> str:
    """The id of the clicks topic now; empty if the cluster has no topic ids, or is the embedded broker."""
    return "" if cluster == EMBEDDED_CLUSTER else await asyncio.to_thread(topic_id, config, config.topics.clicks)
