"""The time of each function of the fold, without Kafka: `python -m benchmarks.speed.fold_profile --batch 5000`.

Applies real purchases from memory to an empty store, first plain and then under cProfile. `--synthetic` uses events of
a million users instead, of whom few have two events. Seconds are processor time of the folding thread, so other load
has little effect on them. Only `process` includes RocksDB's own threads.
"""

import argparse
import cProfile
import json
import pstats
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.speed.synthetic import Synthetic
from state.events import EventBatch, make_batch
from state.identity import Identity
from state.kinds import code_of
from state.settings import StateSettings
from state.store import Store
from stream.local.demo_feed import read_purchases

FUNCTIONS_SHOWN = 25


def purchase_batches(count: int, size: int) -> list[EventBatch]:
    """The first purchases of The Complete Journey, in the batches that a decoder makes."""
    clicks = read_purchases(count).clicks
    users, items = [c["user"].encode() for c in clicks], [c["item"].encode() for c in clicks]
    ts, kind = np.array([c["ts"] for c in clicks]), code_of("purchase")
    rows = [np.arange(start, min(start + size, len(clicks))) for start in range(0, len(clicks), size)]
    slices = [slice(int(row[0]), int(row[-1]) + 1) for row in rows]
    return [
        make_batch(users[part], items[part], ts=ts[part], offset=row, kind=kind)
        for part, row in zip(slices, rows, strict=True)
    ]


def fold(batches: list[EventBatch], profile: cProfile.Profile | None) -> tuple[float, float, int]:
    """Apply the batches. Returns seconds of the folding thread, seconds of the process, and bytes on disk."""
    settings = StateSettings()
    with tempfile.TemporaryDirectory() as folder:
        identity = Identity("bench", "clicks", 0, 1, settings.sequence_events, settings.neighbours_per_item)
        store = Store(Path(folder) / "s", identity, settings)
        thread, process = time.thread_time(), time.process_time()
        if profile:
            profile.enable()
        for batch in batches:
            store.apply(batch, int(batch.events["offset"][-1]) + 1)
        if profile:
            profile.disable()
        spent = time.thread_time() - thread, time.process_time() - process
        store.close()
        disk = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
    return *spent, disk


def main() -> None:
    """Print the microseconds an event spends in each function."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--events", type=int, default=200_000)
    parse.add_argument("--batch", type=int, default=20_000, help="events applied at once")
    parse.add_argument("--synthetic", action="store_true")
    arguments = parse.parse_args()
    if arguments.synthetic:
        drawn = Synthetic(1_000_000, 200_000, 8)
        batches = [
            drawn.batch(0, number * arguments.batch, arguments.batch)
            for number in range(arguments.events // arguments.batch)
        ]
    else:
        batches = purchase_batches(arguments.events, arguments.batch)
    events = sum(len(batch.events) for batch in batches)
    thread_s, process_s, disk = fold(batches, None)
    profile = cProfile.Profile(time.thread_time)
    fold(batches, profile)
    found = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    own = sorted(((entry[2], entry[1], function) for function, entry in found.items()), reverse=True)
    total = sum(seconds for seconds, _, _ in own)
    print(f"{'own time':>9} {'us/event':>9} {'calls':>10}  function")
    for seconds, calls, (file, line, name) in own[:FUNCTIONS_SHOWN]:
        where = f"{Path(file).name}:{line} {name}" if line else name.strip("<>")
        print(f"{seconds / total:9.1%} {seconds * 1e6 / events:9.2f} {calls:10,}  {where}")
    document = {
        "events": events,
        "batch": arguments.batch,
        "us_per_event": {"fold": round(thread_s * 1e6 / events, 2), "process": round(process_s * 1e6 / events, 2)},
        "disk_bytes_per_event": round(disk / events),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
