"""What metrics cost: a worker's path with them, and scraped each second, beside the same path without, in pairs.

    apply     records are polled, decoded and applied: large batches (a worker that is behind) and small ones
    answer    and each user is answered, with popular items: the cheapest ranking there is, so the largest share

Both run the worker's own pipeline on records in memory, with a store on the disk; the broker is a stand-in, so nothing
else is measured. Without metrics, every observation is a call that does nothing, and nobody asks. CPU seconds of the
process are compared. So the page is fetched after each CPU second of it, over HTTP and by the process itself: the cost
of asking is in the figures too. `page_ms` is the CPU time of one page, `observation_us` that of what is observed of one
batch. Together they say what the pairs should show: on a busy machine pairs differ by more than the cost.
"""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from aiohttp import web
from prometheus_client import generate_latest

from state.settings import StateSettings
from stream.config import Config
from stream.http.server import HttpServer
from stream.metrics.disk import Disk
from stream.metrics.route import add_metrics
from stream.metrics.samples import make_registry
from stream.stores.checkpoints import Checkpoints
from stream.worker.lag import Lag
from stream.worker.observed import Observed
from stream.worker.pipeline import Pipeline
from stream.worker.present import Present
from stream.worker.recommender import Recommender
from stream.worker.version_follower import VersionFollower
from tests.stream.fakes import CLICKS, FakeProducer, Owner

TS = 1_790_000_000_000
PAGES = 20
"""Pages that are made to time one."""


class Record(NamedTuple):
    """A record as the Kafka client gives it."""

    key: bytes
    value: bytes
    offset: int
    timestamp: int
    timestamp_type: int = 1
    headers: tuple[tuple[str, bytes], ...] = ()


class NoInstruments:
    """Observes nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Unobserved(Observed):
    """What a worker without metrics would have in place of them."""

    def __init__(self) -> None:
        super().__init__()
        self.instruments = NoInstruments()  # type: ignore[assignment]

    def applied(self, *_: Any) -> None:
        """Nothing."""

    def sent(self, *_: Any) -> None:
        """Nothing."""


async def scrape(port: int) -> None:
    """Fetch the page after each second of CPU time, without end."""
    scraped_at = time.process_time()
    while True:
        if time.process_time() - scraped_at >= 1.0:
            scraped_at = time.process_time()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"anabranch_ready" in await reader.read(-1)
            writer.close()
        await asyncio.sleep(0.1)


class Case(NamedTuple):
    """What is measured."""

    name: str
    events: int
    batch: int
    answers: bool


CASES = (
    Case("apply, batches of 50,000", 100_000, 50_000, False),
    Case("apply, batches of 500", 50_000, 500, False),
    Case("answer, batches of 500", 8_000, 500, True),
)


def records(count: int) -> list[Record]:
    """Clicks of many users on items of a long tail."""
    draw = random.Random(0)
    made = []
    for n in range(count):
        user, item = f"user-{draw.randrange(5_000)}", f"item-{int(draw.paretovariate(1.0)) % 3_000}"
        value = msgspec.json.encode({"user": user, "item": item, "ts": TS + n})
        made.append(Record(user.encode(), value, n, TS + n))
    return made


class Spent(NamedTuple):
    """CPU time of one run."""

    seconds: float
    page_ms: float
    observation_us: float


async def run(case: Case, clicks: list[Record], data: Path, *, measured: bool) -> Spent:
    """The case, and then one page and one batch's observations alone."""
    config = Config(data=data, state=StateSettings())
    with pytest.MonkeyPatch.context() as patch:
        owner, observed = Owner(config, patch), Observed() if measured else Unobserved()
        owner.consumer.partitions_for_topic = lambda topic: {0}  # type: ignore[attr-defined]
        recommender = Recommender(config, owner.assignment.stores, None)
        pipeline = Pipeline(
            config, owner.consumer, FakeProducer(), owner.assignment, recommender, owner.lease,  # type: ignore[arg-type]
            observed=observed,
        )  # fmt: skip
        await owner.assign()
        present = Present(
            config, owner.consumer, owner.assignment, owner.lease, pipeline, recommender.versions,  # type: ignore[arg-type]
            VersionFollower(config, recommender.versions, owner.assignment),
            Checkpoints(config, owner.assignment, owner.lease),  # type: ignore[arg-type]
            Lag(config, owner.consumer, owner.assignment, observed), Disk(data),
        )  # fmt: skip
        registry = make_registry(
            "worker", present.fill, Observed().instruments if not measured else observed.instruments
        )
        app = web.Application()
        add_metrics(app, registry)
        server, scraping = HttpServer(app, "127.0.0.1", 0), None
        if measured:
            scraping = asyncio.create_task(scrape(await server.start()))
        try:
            generate_latest(registry)  # the first one is slower
            for start in range(0, case.events, case.batch):
                owner.consumer.polls.append({CLICKS: list(clicks[start : start + case.batch])})
            answering = owner.start(pipeline.answer()) if case.answers else None
            began = time.process_time()
            await pipeline.consume()
            while answering is not None and owner.assignment.stores[0].pending.users:
                await asyncio.sleep(0.001)
            spent = time.process_time() - began
            began = time.process_time()
            for _ in range(PAGES):
                generate_latest(registry)
            page_ms = (time.process_time() - began) * 1000 / PAGES
            store, batch = owner.assignment.stores[0], clicks[: case.batch]
            began = time.process_time()
            for _ in range(PAGES):
                observed.applied(store, batch, 0.1, 0.1, 0.01)  # type: ignore[arg-type]
            observation_us = (time.process_time() - began) * 1e6 / PAGES
            assert owner.assignment.stores[0].progress.applied == case.events
        finally:
            if scraping is not None:
                scraping.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await scraping
                await server.stop()
            await owner.close()
    return Spent(spent, page_ms, observation_us)


def pair(case: Case, clicks: list[Record], first: bool) -> dict[bool, Spent]:
    """The case with metrics and without; `first`: with them first."""
    found = {}
    for measured in (first, not first):
        with tempfile.TemporaryDirectory() as folder:
            found[measured] = asyncio.run(run(case, clicks, Path(folder), measured=measured))
    return found


def main() -> None:
    """Print the median of the pairs' ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    chosen = parser.parse_args()
    clicks = records(max(case.events for case in CASES))
    pair(CASES[-1], clicks, True)  # the first of a process is slower
    document: dict[str, Any] = {}
    for case in CASES:
        pairs = [pair(case, clicks, n % 2 == 0) for n in range(chosen.pairs)]
        costs = sorted(100 * (found[True].seconds / found[False].seconds - 1) for found in pairs)
        document[case.name] = {
            "cost_percent": round(statistics.median(costs), 2),
            "costs_percent": [round(cost, 2) for cost in costs],
            "us_per_event_without": round(1e6 * statistics.median(f[False].seconds for f in pairs) / case.events, 2),
            "us_per_event_with": round(1e6 * statistics.median(f[True].seconds for f in pairs) / case.events, 2),
            "page_ms": round(statistics.median(f[True].page_ms for f in pairs), 2),
            "observation_us": round(statistics.median(f[True].observation_us for f in pairs)),
        }
        print(case.name, document[case.name], file=sys.stderr)
    print(json.dumps(document))


if __name__ == "__main__":
    main()
