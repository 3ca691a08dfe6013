"""Rebuild stores from the log on command, beside the serving ones, which they replace (`partition_stores.swap`)."""

import shutil
import time
from collections.abc import Callable
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from state.id_hash import UNKEYED, IdHash
from state.progress import Progress
from state.store import Store
from state.view import View, partition_path, partitions_in
from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka.connection import consumer_connection
from stream.kafka.decode import Decoder
from stream.kafka.diagnosis import unavailable
from stream.kafka.exchange import close, within
from stream.kafka.keys import misplaced
from stream.kafka.reader import Reader
from stream.kafka.topics import Log
from stream.stores.opener import read_logs
from stream.stores.partition_stores import EMBEDDED_CLUSTER, identity_of, rebuilt_path

POLL_MS = 1_000
NEXT_RECORDS_WITHIN_S = 60.0
"""A log that is not read to its end and brings nothing for so long is not waited for."""


class Since(NamedTuple):
    """Where a rebuild begins: at an offset of every partition, or at the first record from a time on."""

    offset: int | None = None
    """None, and no time: the earliest offset of the log."""
    ts_ms: int | None = None


class Rebuilt(NamedTuple):
    """A completed rebuild of a partition, not swapped in yet."""

    partition: int
    begin: int
    """Events before this offset are not in the rebuilt state."""
    end: int
    events: int


async def rebuild(
    config: Config, cluster: str, since: Since, report: Callable[[str], None], id_hash: IdHash = UNKEYED
) -> list[Rebuilt]:
    """Apply the log, up to its end now, to a new store for every partition in the data directory.

    Dead letters are counted, not sent again. Users who were answered are not answered again. The serving stores are not
    touched. Raises AnabranchError, StateError or KafkaError.
    """
    topic, numbers = config.topics.clicks, partitions_in(config.data, config.topics.clicks)
    if not numbers:
        raise AnabranchError(f"no state in {config.data}: `anabranch worker` builds it from the log by itself")
    consumer = AIOKafkaConsumer(
        **consumer_connection(config),
        enable_auto_commit=False,
        fetch_max_bytes=config.worker.fetch_max_bytes,
        max_partition_fetch_bytes=config.worker.fetch_max_bytes,
    )
    try:
        await within(config, "a connection to read the log", consumer.start())
        done = []
        partitions = [TopicPartition(topic, number) for number in numbers]
        logs = await within(config, "the ends of the log", read_logs(config, cluster, partitions))
        for partition, its_log in logs.items():
            consumer.assign([partition])
            begin = await _begin(consumer, partition, since, its_log)
            done.append(await _rebuild_one(config, consumer, partition, its_log, begin, report, id_hash))
    finally:
        await close(consumer)
    for rebuilt in done:  # only after all are complete
        path = partition_path(config.data, topic, rebuilt.partition)
        shutil.rmtree(rebuilt_path(path), ignore_errors=True)
        path.with_name(f"rebuilding-{path.name}").rename(rebuilt_path(path))
    return done


async def _begin(consumer: AIOKafkaConsumer, partition: TopicPartition, since: Since, its_log: Log) -> int:
    if since.ts_ms is not None:
        found = (await consumer.offsets_for_times({partition: since.ts_ms})).get(partition)
        return int(found.offset) if found is not None else its_log.stable_end
    if since.offset is None:
        return its_log.begin
    if since.offset > its_log.end:
        raise AnabranchError(
            f"offset {since.offset} lies beyond the end of partition {partition.partition}, {its_log.end}: "
            f"nothing would be read. `anabranch status` shows how far each partition reaches"
        )
    return max(since.offset, its_log.begin)


async def _rebuild_one(
    config: Config,
    consumer: AIOKafkaConsumer,
    partition: TopicPartition,
    its_log: Log,
    begin: int,
    report: Callable[[str], None],
    id_hash: IdHash,
) -> Rebuilt:
    number, decoder = partition.partition, Decoder(config.clicks, config.state, id_hash)
    path = partition_path(config.data, partition.topic, number)
    beside = path.with_name(f"rebuilding-{path.name}")
    shutil.rmtree(beside, ignore_errors=True)
    with View(config.data, partition.topic, config.state) as view:
        served = view.partitions.get(number)
        if served is not None and served.identity is not None and served.identity.cluster == EMBEDDED_CLUSTER:
            raise AnabranchError(
                f"{path} was built from an embedded broker, whose log holds only the events since its start: "
                f"a rebuild would lose all earlier events. It works with a Kafka of your own (--broker HOST:PORT)"
            )
        before = served.read_progress() if served is not None else Progress()
        answered = before.in_log(served.answered()) if served is not None else 0
        prequential = served.prequential() if served is not None else b""
    store = Store(beside, identity_of(config, number, its_log, id_hash), config.state)
    try:
        store.skip_to(begin)
        consumer.seek(partition, begin)
        reader, read_at = Reader(consumer), time.monotonic()
        while store.progress.next_offset < its_log.stable_end:
            polled = await reader.poll(partition, timeout_ms=POLL_MS, max_records=config.worker.poll_max_events)
            records = polled.records.get(partition, [])
            if polled.unreadable is not None:
                skipped = polled.unreadable
                store.skip_to(skipped.end, lost=skipped.end - skipped.begin)
            if not records and await consumer.position(partition) >= its_log.stable_end:
                break  # the offsets left are the broker's own records
            if not records and not polled.unreadable and time.monotonic() - read_at > NEXT_RECORDS_WITHIN_S:
                where = f"the next records of {partition.topic!r}, partition {number}"
                raise await unavailable(config, TimeoutError(f"none in {NEXT_RECORDS_WITHIN_S:.0f} s"), where)
            if not records:
                continue
            read_at = time.monotonic()
            decoded = decoder.decode(records)
            found = misplaced(decoded.keys, number, its_log.partitions)
            store.apply(
                decoded.batch,
                records[-1].offset + 1,
                dead=len(decoded.dead),
                key_mismatch=decoded.key_mismatch,
                keyless=found.keyless,
                foreign_partition=found.foreign,
            )
            report(f"partition {number}: {store.progress.next_offset:,} of {its_log.stable_end:,}")
        if store.progress.next_offset < its_log.stable_end:
            store.pass_over(its_log.stable_end)
        store.take_over(max(answered, 0), prequential, before.truncated)
        return Rebuilt(number, begin, store.progress.next_offset, store.progress.applied)
    finally:
        store.close()
