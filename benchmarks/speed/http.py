"""Latency over HTTP at 500 requests a second, with everything on one machine: Kafka, worker, trainer, `serve`, clients.

The worker has a model of 13,000 items. Each request is a recommendation for one of the users, ranked when it is asked
for. They are sent when they are due (`benchmarks/speed/http_load.py`). Asked are `serve`, which asks the worker through
Kafka, and the worker's own interface. Last, a tenth of the requests sends a purchase, which Kafka acknowledges.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.speed.http_load import get, load, post, summary
from benchmarks.speed.ingest import broker_for
from stream.config import Config, TopicSettings
from stream.kafka.publish import Pace, publish
from stream.kafka.topics import cluster_id, ensure
from stream.local.child_process import Child
from stream.local.demo_feed import read_purchases
from stream.local.embedded_broker import free_port
from stream.stores.id_key import settle_key

LEARNED_EVENTS = 30_000
TOKEN = "token-of-the-benchmark"
ONE_CYCLE = {
    "ANABRANCH_TRAINER__EVERY_EVENTS": "1000000000",
    "ANABRANCH_TRAINER__EVERY_S": "1",
    "ANABRANCH_TRAINER__MIN_EVENTS": str(LEARNED_EVENTS * 9 // 10),  # it counts 100 events of a user at most
}
"""The trainer learns once, from nearly all events, and then waits."""


def messages(users: list[str], items: list[str], count: int, share_of_events: float, seed: int) -> list[bytes]:
    """Requests as they are on the wire."""
    drawn = random.Random(seed)

    def one() -> bytes:
        user = drawn.choice(users)
        if drawn.random() < share_of_events:
            return post("/v1/events", {"user": user, "item": drawn.choice(items), "event": "purchase"}, TOKEN)
        return get(f"/v1/users/{user}/recommendations")

    return [one() for _ in range(count)]


def cpu_s(broker: str) -> dict[str, float]:
    """Processor time so far, in seconds, of each process of ours that uses this broker."""
    used: dict[str, float] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if broker in command and "stream.cli" in command and command[0] == sys.executable:
                times = process.cpu_times()
                used[command[command.index("stream.cli") + 1]] = times.user + times.system
    return used


def measured(port: int, requests: list[bytes], per_s: float, broker: str) -> dict[str, Any]:
    """One run by a generator in a process of its own, and the processor time of each of ours a request, in ms."""
    before = cpu_s(broker)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([request.decode() for request in requests], file)
        file.flush()
        command = [sys.executable, "-m", "benchmarks.speed.http", "--generate", str(port), str(per_s), file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    for name, used in cpu_s(broker).items():
        found[f"{name}_cpu_ms"] = round((used - before[name]) * 1000 / len(requests), 2)
    return found


def generate(port: int, per_s: float, file: Path) -> None:
    """The generator's process."""
    requests = [request.encode() for request in json.loads(file.read_text())]
    print(json.dumps(summary(asyncio.run(load("127.0.0.1", port, requests, per_s)))))


def measure(per_s: float, seconds: float, runs: int, partitions: int) -> None:
    """Print the percentiles of each case, the median of the runs."""
    clicks = read_purchases(LEARNED_EVENTS).clicks
    users = sorted({str(click["user"]) for click in clicks})
    items = sorted({str(click["item"]) for click in clicks})
    with tempfile.TemporaryDirectory() as folder, broker_for(Path(folder)) as broker:
        config = Config(broker=broker, data=Path(folder) / "data", topics=TopicSettings(partitions=partitions))
        ensure(config)
        settle_key(config, cluster_id(config))
        asyncio.run(publish(config, "clicks", clicks, "user", Pace(None)))
        flags, command = ["--data", str(config.data), "--broker", broker], [sys.executable, "-m", "stream.cli"]
        worker_port, serve_port = free_port(), free_port()
        api = {"ANABRANCH_WORKER__HTTP": f"127.0.0.1:{worker_port}", "ANABRANCH_WORKER__API": "true"}
        token = {"ANABRANCH_SERVE__WRITE_TOKEN": TOKEN, "ANABRANCH_SERVE__HTTP": f"127.0.0.1:{serve_port}"}
        token["ANABRANCH_SERVE__CLIENT_REQUESTS_PER_S"] = "0"
        log = config.data / "worker.log"
        children = [
            Child("worker", [*command, "worker", *flags], log, api | token),
            Child("trainer", [*command, "trainer", "--own-session", *flags], config.data / "trainer.log", ONE_CYCLE),
            Child("serve", [*command, "serve", *flags], config.data / "serve.log", token),
        ]
        try:
            while "serving version" not in log.read_text():
                if not all(child.running for child in children):
                    raise RuntimeError("\n".join(child.last_lines() for child in children))
                time.sleep(0.5)
            cases = {
                "serve": (serve_port, 0.0),
                "worker": (worker_port, 0.0),
                "serve, a tenth events": (serve_port, 0.1),
            }
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
            for run in range(-1, runs):
                for name, (port, share) in cases.items():
                    count = int(per_s * (seconds if run >= 0 else 3))
                    one = measured(port, messages(users, items, count, share, run), per_s, broker)
                    print(f"{name}: {one} load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
                    if run >= 0:  # the first warms connections and caches
                        found[name].append(one)
        finally:
            for child in children:
                child.stop()
    document: dict[str, Any] = {"requests_per_s": per_s, "seconds": seconds, "runs": runs, "partitions": partitions}
    for name, of_runs in found.items():
        numbers = [key for key, value in of_runs[0].items() if isinstance(value, int | float)]
        document[name] = {key: round(statistics.median(one[key] for one in of_runs), 2) for key in numbers}
        document[name]["answers"] = {
            kind: sum(one["answers"].get(kind, 0) for one in of_runs)
            for kind in sorted({kind for one in of_runs for kind in one["answers"]})
        }
    document["load_average"] = [round(load, 1) for load in os.getloadavg()]
    print(json.dumps(document))


def main() -> None:
    """Measure with the options of the command line."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--per-s", type=float, default=500.0, help="requests a second")
    parse.add_argument("--seconds", type=float, default=20.0, help="length of a run")
    parse.add_argument("--runs", type=int, default=3, help="runs of each case")
    parse.add_argument("--partitions", type=int, default=2, help="partitions of the clicks")
    given = parse.parse_args()
    measure(given.per_s, given.seconds, given.runs, given.partitions)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--generate"]:
        generate(int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
