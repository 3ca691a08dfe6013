"""The cost of tracing for ingest: processor time an event, in pairs of runs over the same records.

`python -m benchmarks.speed.tracing`. Three arms decode and write the same clicks with the worker's own Decoder and
Store, in turn, each time in another order:

    without  the code before tracing: nobody looks at headers
    off      as delivered: headers are looked for, and no click has one
    on       spans of each batch and each recorded click go to an exporter in memory; one click in a hundred is in a
             recorded trace (needs the `tracing` extra)

Printed are the median of each arm, and the median of the differences to `without` with the middle half of them; and
`headers_ns`, what it takes to see that a record has no header, the fastest of many passes over all records.
"""

import argparse
import contextlib
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from state.identity import Identity
from state.settings import StateSettings
from state.store import Store
from stream.config import ClickSettings, Config
from stream.kafka.decode import Decoder
from stream.tracing.headers import WaitingTraces, traces_of
from stream.tracing.spans import Spans

USERS, ITEMS = 5_000, 3_000
BATCH = 500
FIRST_MS = 1_700_000_000_000
PARTITION = TopicPartition("clicks", 0)


def records(count: int, traced_share: float) -> list[Any]:
    """Clicks as aiokafka returns them."""
    draw, made = random.Random(7), []
    for offset in range(count):
        user = f"user-{draw.randrange(USERS)}"
        value = json.dumps({"user": user, "item": f"item-{draw.randrange(ITEMS)}", "ts": FIRST_MS + offset}).encode()
        parent = f"00-{draw.getrandbits(128) | 1:032x}-{draw.getrandbits(64) | 1:016x}-01".encode()
        headers = (("traceparent", parent),) if draw.random() < traced_share else ()
        made.append(
            ConsumerRecord(
                "clicks", 0, offset, FIRST_MS + offset, 1, user.encode(), value, None, len(user), len(value), headers
            )
        )
    return made


def run(batches: Sequence[list[Any]], spans: Spans | None) -> float:
    """Processor seconds to decode and write the batches, and to answer for their contexts. None: without tracing."""
    settings, decoder, waiting = StateSettings(), Decoder(ClickSettings()), WaitingTraces()
    with tempfile.TemporaryDirectory() as folder:
        identity = Identity("bench", "clicks", 0, 1, settings.sequence_events, settings.neighbours_per_item)
        store = Store(Path(folder) / "s", identity, settings)
        began = time.process_time()
        for batch in batches:
            traces = MappingProxyType({}) if spans is None else traces_of(batch)
            with contextlib.nullcontext() if spans is None else spans.process(0, len(batch), traces.values()):
                applied = store.apply(decoder.decode(batch).batch, batch[-1].offset + 1)
                if traces:
                    waiting.add(0, traces, applied.events)
            if spans is not None:
                taken = waiting.take(0, store.pending.claim(BATCH))
                with spans.rank(0, BATCH, taken.values()):
                    pass
                with spans.send(0, BATCH, taken):
                    pass
            else:
                store.pending.claim(BATCH)
        seconds = time.process_time() - began
        store.close()
    return seconds


def main() -> None:
    """Print the figures, and a JSON line with them."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--events", type=int, default=50_000)
    parse.add_argument("--pairs", type=int, default=15)
    asked = parse.parse_args()

    def batches(traced_share: float) -> list[list[Any]]:
        every = records(asked.events, traced_share)
        return [every[start : start + BATCH] for start in range(0, len(every), BATCH)]

    plain, traced = batches(0.0), batches(0.01)
    arms: dict[str, Callable[[], float]] = {"without": lambda: run(plain, None), "off": lambda: run(plain, Spans())}
    if find_spec("opentelemetry") is not None:
        arms["on"] = lambda: run(traced, in_memory())
    for arm in arms.values():
        arm()  # imports, and files in the cache
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(asked.pairs):
        names = list(arms)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds[name].append(arms[name]())
    us = {name: [1e6 * s / asked.events for s in found] for name, found in seconds.items()}
    document: dict[str, Any] = {"events": asked.events, "pairs": asked.pairs, "headers_ns": headers_ns(plain)}
    for name, found in us.items():
        more = sorted(mine - base for mine, base in zip(found, us["without"], strict=True))
        low, _, high = statistics.quantiles(more, n=4) if len(more) > 1 else (more[0], 0, more[0])
        document[name] = {
            "us_per_event": round(statistics.median(found), 2),
            "more_us": round(statistics.median(more), 3),
            "more_us_middle_half": [round(low, 3), round(high, 3)],
            "more_percent": round(100 * statistics.median(more) / statistics.median(us["without"]), 2),
        }
    print(json.dumps(document))


def headers_ns(batches: Sequence[list[Any]]) -> float:
    """Nanoseconds a record without headers."""
    fastest = float("inf")
    for _ in range(50):
        began = time.perf_counter()
        for batch in batches:
            traces_of(batch)
        fastest = min(fastest, time.perf_counter() - began)
    return round(1e9 * fastest / sum(map(len, batches)), 1)


def in_memory() -> Spans:
    """Spans whose exporter does nothing."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from stream.tracing.open_telemetry import ExportingSpans

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    return ExportingSpans(Config(), provider)


if __name__ == "__main__":
    main()
