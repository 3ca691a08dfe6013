"""A partition on a new machine: seconds until its state matches the log, by replay and from a checkpoint.

    replay    an empty data directory, and the whole log through the worker's own Decoder and Store
    restore   an empty data directory, the checkpoint in the artifact store (a path), then the tail of the log

Both read the same topic of real purchases from the same broker, in turn. The checkpoint lacks the last `--tail` events.
At 200 events a second the tail is at most 120,000 with `checkpoints.every_s` at 600 s. The broker is the Kafka at
KAFKA_HOME if there is one, else the embedded one.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.speed.ingest import broker_for
from state.checkpoint import CheckpointStore, take
from state.store import Store
from stream.config import ClickSettings, Config, TopicSettings
from stream.kafka.decode import Decoder
from stream.kafka.publish import Pace, publish
from stream.kafka.topics import Log, ensure
from stream.local.demo_feed import read_purchases
from stream.stores.partition_stores import PartitionStores


async def apply_log(config: Config, store: Store, end: int) -> None:
    """Apply the log to a store, from its next offset up to `end`."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=config.broker,
        enable_auto_commit=False,
        fetch_max_bytes=16 << 20,
        max_partition_fetch_bytes=16 << 20,
    )
    await consumer.start()
    try:
        partition, decoder = TopicPartition("clicks", 0), Decoder(ClickSettings())
        consumer.assign([partition])
        consumer.seek(partition, store.progress.next_offset)
        while store.progress.next_offset < end:
            left = min(Config().worker.poll_max_events, end - store.progress.next_offset)
            for records in (await consumer.getmany(timeout_ms=1000, max_records=left)).values():
                store.apply(decoder.decode(records).batch, records[-1].offset + 1)
    finally:
        await consumer.stop()


def catch_up(config: Config, log: Log) -> float:
    """Seconds from an empty data directory to the end of the log."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        store = PartitionStores(msgspec.structs.replace(config, data=Path(folder))).open(0, log)
        asyncio.run(apply_log(config, store, log.end))
        seconds = time.perf_counter() - started
        assert store.progress.applied == log.end
        store.close()
    return seconds


def main() -> None:
    """Print medians and their ratio as JSON."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--events", type=int, default=1_000_000)
    parse.add_argument("--tail", type=int, default=20_000, help="events after the checkpoint")
    parse.add_argument("--runs", type=int, default=3)
    arguments = parse.parse_args()
    with tempfile.TemporaryDirectory() as folder, broker_for(Path(folder)) as broker:
        config = Config(broker=broker, data=Path(folder) / "data", topics=TopicSettings(partitions=1))
        ensure(config)
        asyncio.run(publish(config, "clicks", read_purchases(arguments.events).clicks, "user", Pace(None)))
        log = Log("bench", "", 1, 0, arguments.events)
        shared = msgspec.structs.replace(config, artifacts=str(Path(folder) / "artifacts"))
        store = PartitionStores(config).open(0, log)
        asyncio.run(apply_log(config, store, arguments.events - arguments.tail))
        started = time.perf_counter()
        take(store, Path(folder) / "copy")
        taken_s = time.perf_counter() - started
        assert store.identity is not None
        uploaded = CheckpointStore(shared.artifacts, store.identity).upload(Path(folder) / "copy", config.state)
        uploaded_s = time.perf_counter() - started - taken_s
        assert uploaded is not None
        store.close()
        seconds: dict[str, list[float]] = {"replay": [], "restore": []}
        for _ in range(arguments.runs):
            for name, how in (("replay", config), ("restore", shared)):
                seconds[name].append(round(catch_up(how, log), 2))
                print(f"{name}: {seconds[name][-1]:.2f} s", file=sys.stderr)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    document = {
        "events": arguments.events,
        "tail": arguments.tail,
        "ratios": {"restore/replay": round(medians["restore"] / medians["replay"], 3)},
        "seconds": {name: sorted(found) for name, found in seconds.items()},
        "checkpoint": {
            "bytes": sum(file.size for file in uploaded.files),
            "taken_s": round(taken_s, 2),
            "uploaded_s": round(uploaded_s, 2),
        },
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
