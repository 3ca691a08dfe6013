"""Latency from click to recommendation at 200 events a second while the trainer learns, next to an aiokafka echo.

Both answer the same clicks at the same time from the same broker. One is a worker with a model of 13,000 items and a
trainer that starts a cycle as soon as one ends. The other consumes a click and produces it again. The answer to a
click is the first recommendation to its user that reflects its offset or a later one.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.speed.ingest import broker_for
from stream.config import Config, TopicSettings
from stream.kafka.messages import Recommendation
from stream.kafka.publish import Pace, publish
from stream.kafka.topics import ensure
from stream.local.child_process import Child
from stream.local.demo_feed import read_purchases

LEARNED_EVENTS = 30_000
EVENTS_PER_S = 200
SECONDS = 20
RUNS = 3
ECHO_TOPIC = "replies"
TRAINER_ENVIRONMENT = {
    "ANABRANCH_TRAINER__EVERY_EVENTS": "200",
    "ANABRANCH_TRAINER__MIN_EVENTS": "1",
    "ANABRANCH_TRAINER__EVERY_S": "1",
}


async def echo(broker: str) -> None:
    """Consume clicks and produce them again, without end."""
    consumer = AIOKafkaConsumer("clicks", bootstrap_servers=broker, auto_offset_reset="latest")
    producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all", linger_ms=0)
    await consumer.start()
    await producer.start()
    async for record in consumer:
        await producer.send(ECHO_TOPIC, str(record.offset).encode(), key=record.key)


async def probe(broker: str, clicks: list[dict[str, object]]) -> tuple[list[float], list[float]]:
    """Send clicks at EVENTS_PER_S. Returns the seconds from each click to its recommendation and to its echo."""
    # One reader for each topic: in one client each topic would wait for the other.
    readers = [AIOKafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False) for _ in range(2)]
    producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all", linger_ms=0)
    for reader, topic in zip(readers, ("recommendations", ECHO_TOPIC), strict=True):
        await reader.start()
        reader.assign([TopicPartition(topic, 0)])
        await reader.seek_to_end()
        await reader.position(TopicPartition(topic, 0))
    await producer.start()
    answered: dict[str, list[tuple[int, float]]] = {}
    echoed: dict[int, float] = {}

    async def read_answers() -> None:
        async for record in readers[0]:
            message = msgspec.json.decode(record.value, type=Recommendation)
            answered.setdefault(message.user, []).append((message.offset, time.perf_counter()))

    async def read_echoes() -> None:
        async for record in readers[1]:
            echoed[int(record.value)] = time.perf_counter()

    readings = [asyncio.create_task(read_answers()), asyncio.create_task(read_echoes())]
    began, sent = time.perf_counter(), []
    for number, click in enumerate(clicks):
        await asyncio.sleep(max(0.0, began + number / EVENTS_PER_S - time.perf_counter()))
        user = str(click["user"])
        at = time.perf_counter()
        sent.append((user, at, await producer.send("clicks", msgspec.json.encode(click), key=user.encode())))
    offsets = [(await future).offset for _, _, future in sent]
    await asyncio.sleep(3.0)
    for task, reader in zip(readings, readers, strict=True):
        task.cancel()
        await reader.stop()
    await producer.stop()
    ours = []
    for (user, at, _), offset in zip(sent, offsets, strict=True):
        answers = answered.get(user, [])
        first = bisect_left(answers, (offset, 0.0))
        ours.append(answers[first][1] - at if first < len(answers) else float("inf"))
    return ours, [echoed.get(o, float("inf")) - at for (_, at, _), o in zip(sent, offsets, strict=True)]


def main() -> None:
    """Print p50 and p99 of both, and their ratios."""
    clicks = read_purchases(LEARNED_EVENTS + RUNS * EVENTS_PER_S * SECONDS).clicks
    runs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder, broker_for(Path(folder)) as broker:
        config = Config(broker=broker, data=Path(folder) / "data", topics=TopicSettings(partitions=1))
        ensure(config)
        asyncio.run(publish(config, "clicks", clicks[:LEARNED_EVENTS], "user", Pace(None)))
        flags = ["--data", str(config.data), "--broker", broker]
        command = [sys.executable, "-m", "stream.cli"]
        log = config.data / "worker.log"
        children = [
            Child("worker", [*command, "worker", *flags], log),
            Child(
                "trainer",
                [*command, "trainer", "--own-session", *flags],
                config.data / "trainer.log",
                TRAINER_ENVIRONMENT,
            ),
        ]
        echo_process = subprocess.Popen([sys.executable, "-m", "benchmarks.speed.latency", "echo", broker])
        try:
            while "serving version" not in log.read_text():
                if not all(child.running for child in children):
                    raise RuntimeError("\n".join(child.last_lines() for child in children))
                time.sleep(0.5)
            for run in range(RUNS):
                start = LEARNED_EVENTS + run * EVENTS_PER_S * SECONDS
                pair = asyncio.run(probe(broker, clicks[start : start + EVENTS_PER_S * SECONDS]))
                found: dict[str, float] = {}
                for name, seconds in zip(("ours", "echo"), pair, strict=True):
                    percentiles = statistics.quantiles(seconds, n=100)
                    found[f"{name}_p50_ms"], found[f"{name}_p99_ms"] = percentiles[49] * 1000, percentiles[98] * 1000
                print({k: round(v, 1) for k, v in found.items()}, file=sys.stderr)
                runs.append(found)
            print(log.read_text()[-2000:], file=sys.stderr)
            versions = log.read_text().count("serving version")
        finally:
            echo_process.terminate()
            echo_process.wait()
            for child in children:
                child.stop()
    medians = {k: statistics.median(r[k] for r in runs) for k in runs[0]}
    document = {
        "ratios": {p: round(medians[f"ours_{p}_ms"] / medians[f"echo_{p}_ms"], 2) for p in ("p50", "p99")},
        "ms": {k: [round(v, 1) for v in sorted(r[k] for r in runs)] for k in medians},
        "events_per_s": EVENTS_PER_S,
        "versions_served_meanwhile": versions,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    if sys.argv[1:2] == ["echo"]:
        asyncio.run(echo(sys.argv[2]))
    else:
        main()
