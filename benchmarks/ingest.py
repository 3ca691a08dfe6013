"""Durable ingest, events a second, beside raw consumption and what a user would write instead.

Each consumes the same topic of real purchases from the same broker, with a group of its own, to its end:

    raw      aiokafka getmany, nothing done with the records
    ours     decode, fold, one atomic RocksDB batch: the worker's own Decoder and Store
    quix     Quix Streams, the newest 50 items a user in its RocksDB state (with the `bench` extra)
"""

import asyncio
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from state.partition import Identity
from state.settings import StateSettings
from state.store import Store
from stream.broker import EmbeddedBroker
from stream.config import Clicks, Config, Topics
from stream.decode import Decoder
from stream.demo import purchases
from stream.publish import Pace, publish
from stream.topics import ensure

EVENTS = 200_000
RUNS = 3
POLL = 20_000


async def consume(broker: str, fold: Callable[[list[object]], None]) -> float:
    """Seconds from the first poll to the last of EVENTS records."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker,
        enable_auto_commit=False,
        fetch_max_bytes=16 << 20,
        max_partition_fetch_bytes=16 << 20,
    )
    await consumer.start()
    try:
        partition = TopicPartition("clicks", 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        seen, started = 0, time.perf_counter()
        while seen < EVENTS:
            for records in (await consumer.getmany(timeout_ms=1000, max_records=POLL)).values():
                fold(records)
                seen += len(records)
        return time.perf_counter() - started
    finally:
        await consumer.stop()


def raw(broker: str) -> float:
    """aiokafka alone."""
    return asyncio.run(consume(broker, lambda records: None))


def ours(broker: str) -> float:
    """The worker's path up to and with the durable write."""
    settings, decoder = StateSettings(), Decoder(Clicks())
    with tempfile.TemporaryDirectory() as folder:
        identity = Identity("bench", "clicks", 0, 1, settings.sequence_events, settings.neighbours_per_item)
        store = Store(Path(folder) / "s", identity, settings)

        def fold(records: list[object]) -> None:
            decoded = decoder.decode(records)  # type: ignore[arg-type]
            store.apply(decoded.batch, records[-1].offset + 1)  # type: ignore[attr-defined]

        seconds = asyncio.run(consume(broker, fold))
        assert store.state.applied == EVENTS
        store.close()
    return seconds


def quix(broker: str) -> float:
    """Quix Streams with the same list of newest items a user."""
    from quixstreams import Application

    with tempfile.TemporaryDirectory() as folder:
        app = Application(
            broker_address=broker,
            consumer_group=f"quix-{uuid.uuid4().hex}",
            auto_offset_reset="earliest",
            state_dir=folder,
            loglevel="ERROR",
        )
        first = 0.0

        def fold(value: dict[str, object], state: object) -> None:
            nonlocal first
            first = first or time.perf_counter()
            items = state.get("items", [])  # type: ignore[attr-defined]
            items.append([value["item"], value["ts"]])
            state.set("items", items[-50:])  # type: ignore[attr-defined]

        stream = app.dataframe(app.topic("clicks", value_deserializer="json", key_deserializer="str"))
        stream.update(fold, stateful=True)
        app.run(count=EVENTS, timeout=60)
        return time.perf_counter() - first


def main() -> None:
    """Print medians and ratios."""
    rivals = {"raw": raw, "ours": ours}
    try:
        import quixstreams  # noqa: F401

        rivals["quix"] = quix
    except ImportError:
        print("quixstreams is not installed (pip install '.[bench]'): no rival in this run")
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(Path(folder)) as broker:
        ensure(Config(broker=broker.address, topics=Topics(partitions=1)))
        clicks = purchases(EVENTS).clicks
        asyncio.run(publish(broker.address, "clicks", clicks, "user", Pace(None)))
        rates: dict[str, list[float]] = {name: [] for name in rivals}
        for _ in range(RUNS):
            for name, run in rivals.items():
                rates[name].append(EVENTS / run(broker.address))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    document = {
        "events": EVENTS,
        "ratios": {f"ours/{n}": round(medians["ours"] / medians[n], 2) for n in medians if n != "ours"},
        "events_per_s": {n: [round(r) for r in sorted(found)] for n, found in rates.items()},
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
