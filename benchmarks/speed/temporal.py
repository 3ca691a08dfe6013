"""Milliseconds of queries about the past of a node with many edges, next to a scan of the same edges in RocksDB.

One user and one item have `--edges` edges each. The queries read the store's files, at times spread over the age of the
node. The floor is the time of a graph without timelines: it reads all edges of the node and takes those before t.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from state.events import Ids, make_batch, make_events
from state.identity import Identity
from state.settings import StateSettings
from state.store import Store

EVENTS_PER_BATCH = 5_000
NEWEST_EDGES = 50
START_MS = 1_600_000_000_000
YEAR_MS = 365 * 86_400_000
NODE = 1


def build(store: Store, edges: int, seed: int) -> None:
    """Give a user and an item, both number 1, this many edges each."""
    draw = np.random.default_rng(seed)
    ids = [str(n).encode() for n in range(200_000)]
    for start in range(0, 2 * edges, EVENTS_PER_BATCH):
        number = start + np.arange(EVENTS_PER_BATCH)
        user = np.where(number % 2, NODE, draw.integers(2, 100_000, EVENTS_PER_BATCH))
        item = np.where(number % 2, draw.integers(2, 20_000, EVENTS_PER_BATCH), NODE)
        ts = START_MS + number * (YEAR_MS // (2 * edges)) - draw.integers(0, 60_000, EVENTS_PER_BATCH)
        names = [[ids[n] for n in end.tolist()] for end in (user, item)]
        batch = make_batch(names[0], names[1], ts=ts, offset=number)
        # Node numbers replace hashes: the queries below are about node number 1.
        store.apply(batch._replace(events=make_events(user, item, ts=ts, offset=number)), start + EVENTS_PER_BATCH)


def timed(query: Callable[[int], object], times: Ids) -> dict[str, float]:
    """p50 and p99 in ms of a query at these times."""
    took = []
    for t in times.tolist():
        began = time.perf_counter()
        query(t)
        took.append((time.perf_counter() - began) * 1000)
    return {f"p{q}_ms": round(float(np.percentile(took, q)), 3) for q in (50, 99)}


def main() -> None:
    """Print the figures as JSON."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--edges", type=int, default=100_000)
    parse.add_argument("--questions", type=int, default=1_000)
    arguments = parse.parse_args()
    settings = StateSettings()
    identity = Identity("bench", "clicks", 0, 1, settings.sequence_events, settings.neighbours_per_item)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "s", identity, settings)
        build(store, arguments.edges, 0)
        store.close()  # and opened again, so that queries read the files
        store = Store(Path(folder) / "s", identity, settings)
        times = np.random.default_rng(1).integers(START_MS, START_MS + YEAR_MS, arguments.questions).astype(np.uint64)
        few = times[: max(20, arguments.questions // 20)]

        def scan(t: int) -> object:
            edges = store.items.between(NODE)
            return edges[: np.searchsorted(edges["ts"], t)][-NEWEST_EDGES:]

        found = {
            f"last {NEWEST_EDGES} users of the item": timed(lambda t: store.edges(NODE, NEWEST_EDGES, t), times),
            f"last {NEWEST_EDGES} items of the user": timed(lambda t: store.steps(NODE, NEWEST_EDGES, t), times),
            "sequence of the user": timed(lambda t: store.steps(NODE, settings.sequence_events, t), times),
            "degree of the item": timed(lambda t: store.degree(NODE, t), few),
            "popularity of the item": timed(lambda t: store.popularity(NODE, t), few),
            "what followed the item, by its last 50 users": timed(
                lambda t: store.transitions(NODE, t, NEWEST_EDGES), few
            ),
            "a day as numpy columns": timed(lambda t: store.window(t, t + 86_400_000), few),
            f"floor: last {NEWEST_EDGES} users by a scan": timed(scan, few),
        }
        store.close()
    ratio = (
        found[f"floor: last {NEWEST_EDGES} users by a scan"]["p50_ms"]
        / found[f"last {NEWEST_EDGES} users of the item"]["p50_ms"]
    )
    print(json.dumps({"edges": arguments.edges, "ratios": {"scan/last users, p50": round(ratio, 1)}, "ms": found}))


if __name__ == "__main__":
    main()
