"""Rebuild stores from the log on purpose, beside the ones being served, to take their place (`partitions.swap`)."""

import shutil
from collections.abc import Callable
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from state.store import Store
from state.view import View, partition_path, partitions_in
from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka.connection import connection
from stream.kafka.decode import Decoder
from stream.kafka.topics import Log
from stream.stores.opener import look_at
from stream.stores.partition_stores import EMBEDDED, identity_of, rebuilt_path

POLL_MS = 1_000


class Since(NamedTuple):
    """Where a rebuild begins: at an offset of every partition, or at the first record that is not older than a time."""

    offset: int | None = None
    """None, and no time: the earliest that the log holds."""
    ts_ms: int | None = None


class Rebuilt(NamedTuple):
    """A partition's rebuild, complete and waiting to be swapped in."""

    partition: int
    begin: int
    """Offsets before it are not in the rebuilt state."""
    end: int
    events: int


async def rebuild(config: Config, cluster: str, since: Since, told: Callable[[str], None]) -> list[Rebuilt]:
    """Fold the log, as far as it reaches now, into a new store for every partition in the data directory.

    Dead letters are counted, not sent again; who was answered is not answered again. Raises AnabranchError, StateError
    or KafkaError; the stores being served are not touched.
    """
    topic, numbers = config.topics.clicks, partitions_in(config.data, config.topics.clicks)
    if not numbers:
        raise AnabranchError(f"no state in {config.data}: `anabranch worker` builds it from the log by itself")
    consumer = AIOKafkaConsumer(
        **connection(config),
        enable_auto_commit=False,
        fetch_max_bytes=config.worker.fetch_max_bytes,
        max_partition_fetch_bytes=config.worker.fetch_max_bytes,
    )
    await consumer.start()
    try:
        done = []
        for partition, held in (await look_at(config, cluster, [TopicPartition(topic, n) for n in numbers])).items():
            consumer.assign([partition])
            begin = await _begin(consumer, partition, since, held)
            done.append(await _rebuild_one(config, consumer, partition, held, begin, told))
    finally:
        await consumer.stop()
    for rebuilt in done:  # all of them or none
        path = partition_path(config.data, topic, rebuilt.partition)
        shutil.rmtree(rebuilt_path(path), ignore_errors=True)
        path.with_name(f"rebuilding-{path.name}").rename(rebuilt_path(path))
    return done


async def _begin(consumer: AIOKafkaConsumer, partition: TopicPartition, since: Since, held: Log) -> int:
    if since.ts_ms is not None:
        found = (await consumer.offsets_for_times({partition: since.ts_ms})).get(partition)
        return int(found.offset) if found is not None else held.end
    if since.offset is None:
        return held.begin
    if since.offset > held.end:
        raise AnabranchError(
            f"offset {since.offset} lies beyond the end of partition {partition.partition}, {held.end}: "
            f"nothing would be read. `anabranch status` shows how far each partition reaches"
        )
    return max(since.offset, held.begin)


async def _rebuild_one(
    config: Config,
    consumer: AIOKafkaConsumer,
    partition: TopicPartition,
    held: Log,
    begin: int,
    told: Callable[[str], None],
) -> Rebuilt:
    number, decoder = partition.partition, Decoder(config.clicks, config.state)
    path = partition_path(config.data, partition.topic, number)
    beside = path.with_name(f"rebuilding-{path.name}")
    shutil.rmtree(beside, ignore_errors=True)
    with View(config.data, partition.topic, config.state) as view:
        served = view.partitions.get(number)
        if served is not None and served.identity is not None and served.identity.cluster == EMBEDDED:
            raise AnabranchError(
                f"{path} was built from an embedded broker, which keeps its log in memory since it was started: "
                f"a rebuild would lose what came before. It works with a Kafka of your own (--broker HOST:PORT)"
            )
        answered = served.answered() if served is not None else 0
        prequential = served.prequential() if served is not None else b""
    store = Store(beside, identity_of(config, number, held), config.state)
    try:
        store.skip_to(begin)
        consumer.seek(partition, begin)
        while store.progress.next_offset < held.end:
            polled = await consumer.getmany(partition, timeout_ms=POLL_MS, max_records=config.worker.poll_max_events)
            records = polled.get(partition, [])
            if not records and await consumer.position(partition) >= held.end:
                break  # what is left are the broker's own records
            if not records:
                continue
            decoded = decoder.decode(records)
            store.apply(
                decoded.batch,
                records[-1].offset + 1,
                dead=len(decoded.dead),
                key_mismatch=decoded.key_mismatch,
            )
            told(f"partition {number}: {store.progress.next_offset:,} of {held.end:,}")
        store.take_over(answered, prequential)
        return Rebuilt(number, begin, store.progress.next_offset, store.progress.applied)
    finally:
        store.close()
