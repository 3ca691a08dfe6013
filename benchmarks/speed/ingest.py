"""Durable ingest in events a second, next to plain consumption and to programs that a user could write instead.

All consume the same topic of real purchases from the same broker to its end, each in its own group:

    raw      aiokafka getmany, which does nothing with the records
    ours     decode, fold, one atomic RocksDB batch: the worker's own Decoder and Store
    quix     Quix Streams, the newest 100 items a user in its RocksDB state (needs the `bench` extra)
    take     a Faust agent, `stream.take(1000, within=1)`, stores nothing
    table    a Faust agent, the newest 100 items a user in a Table on RocksDB

Faust reads the first FAUST_EVENTS only: its rate does not depend on how far it reads. The broker is the Kafka at
KAFKA_HOME if there is one. The embedded broker lacks settings that Quix Streams reads, so it runs without that rival.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from state.identity import Identity
from state.settings import StateSettings
from state.store import Store
from stream.config import ClickSettings, Config, TopicSettings
from stream.kafka.decode import Decoder
from stream.kafka.publish import Pace, publish
from stream.kafka.topics import ensure
from stream.local.demo_feed import read_purchases
from stream.local.embedded_broker import EmbeddedBroker
from stream.worker.poll_size import PollSize
from tests.kafka import kafka, missing

EVENTS = 200_000
FAUST_EVENTS = 40_000
RUNS = 3
MAX_ATTEMPTS = 3


async def consume(broker: str, poll_size: PollSize, fold: Callable[[list[object]], None]) -> float:
    """Seconds from the first poll to the last of EVENTS records, in polls of the given size."""
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
            for records in (await consumer.getmany(timeout_ms=1000, max_records=poll_size.events)).values():
                fold(records)
                seen += len(records)
        return time.perf_counter() - started
    finally:
        await consumer.stop()


def raw(broker: str) -> float:
    """Events a second: aiokafka alone."""
    poll_size = worker_poll_size()
    poll_size.events = Config().worker.poll_max_events
    return EVENTS / asyncio.run(consume(broker, poll_size, lambda records: None))


def worker_poll_size() -> PollSize:
    """The poll size of a worker with the default settings."""
    worker = Config().worker
    return PollSize(worker.poll_max_events, worker.fold_hold_ms / 1000)


def ours(broker: str) -> float:
    """Events a second: the worker's path, the durable write included."""
    settings, decoder = StateSettings(), Decoder(ClickSettings())
    with tempfile.TemporaryDirectory() as folder:
        identity = Identity("bench", "clicks", 0, 1, settings.sequence_events, settings.neighbours_per_item)
        store = Store(Path(folder) / "s", identity, settings)

        poll_size = worker_poll_size()

        def fold(records: list[object]) -> None:
            began = time.perf_counter()
            decoded = decoder.decode(records)  # type: ignore[arg-type]
            store.apply(decoded.batch, records[-1].offset + 1)  # type: ignore[attr-defined]
            poll_size.update(len(records), time.perf_counter() - began)

        seconds = asyncio.run(consume(broker, poll_size, fold))
        assert store.progress.applied == EVENTS
        store.close()
    return EVENTS / seconds


def rival(name: str, events: int) -> Callable[[str], float]:
    """A function that runs a rival in a separate process and returns its events a second."""

    def run(broker: str) -> float:
        script = str(Path(__file__).with_name("ingest_rivals.py"))
        command = [sys.executable, script, name, broker, str(events)]
        for _ in range(MAX_ATTEMPTS):  # a new Kafka has no group coordinator at first, and Faust exits
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            if done.returncode == 0:
                return float(done.stdout.split()[-1])
        raise RuntimeError(
            f"{name} ended {MAX_ATTEMPTS} times without a result. Its last messages: {done.stderr[-2000:]}"
        )

    return run


def main() -> None:
    """Print medians and ratios."""
    runs = {"raw": raw, "ours": ours, "take": rival("take", FAUST_EVENTS), "table": rival("table", FAUST_EVENTS)}
    if find_spec("quixstreams") is None:
        print("quixstreams is not installed, so this run leaves it out. `make bench` installs it.", file=sys.stderr)
    elif reason := missing():
        print(
            f"{reason}. This run uses the embedded broker, without Quix Streams, which needs Kafka.",
            file=sys.stderr,
        )
    else:
        runs["quix"] = rival("quix", EVENTS)
    with tempfile.TemporaryDirectory() as folder, broker_for(Path(folder)) as broker:
        config = Config(broker=broker, topics=TopicSettings(partitions=1))
        ensure(config)
        clicks = read_purchases(EVENTS).clicks
        asyncio.run(publish(config, "clicks", clicks, "user", Pace(None)))
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(RUNS):
            for name, run in runs.items():
                rates[name].append(run(broker))
                print(f"{name}: {rates[name][-1]:,.0f} events/s", file=sys.stderr)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    document = {
        "events": EVENTS,
        "ratios": {f"ours/{n}": round(medians["ours"] / medians[n], 2) for n in medians if n != "ours"},
        "events_per_s": {n: [round(r) for r in sorted(found)] for n, found in rates.items()},
    }
    print(json.dumps(document))


@contextmanager
def broker_for(folder: Path) -> Iterator[str]:
    """The Kafka at KAFKA_HOME, else the embedded broker."""
    if missing() is None:
        with kafka() as address:
            yield address
    else:
        with EmbeddedBroker(folder) as embedded:
            yield embedded.address


if __name__ == "__main__":
    main()
