"""Memory and disk of a worker's state as it grows, and the time to the first answer after a restart or a restore.

Synthetic events of `--users` users and `--items` items, popular ones more often, go to the stores of `--partitions`
partitions as a worker applies them. RSS is that of the process, with everything a worker imports, without Kafka's
buffers and without a model. Then, over the same stores, in wall and processor seconds:

    replay     apply all events again: the time of the first run, without reading them from Kafka
    restart    a new process opens the stores and makes one recommendation by popularity, imports included
    restore    download all partitions from their checkpoints (a path), verify each file, and open them
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import stream.worker.service  # noqa: F401  a worker's imports count towards its memory
from benchmarks.speed.synthetic import Synthetic
from state.checkpoint import CheckpointStore, take
from state.identity import Identity
from state.pending import Unanswered
from state.settings import StateSettings
from state.store import Store
from stream.config import Config
from stream.worker.recommender import Recommender

EVENTS_PER_BATCH = 10_000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SAMPLES = 20
ROCKSDB_PROPERTIES = {
    "memtables": "rocksdb.cur-size-all-mem-tables",
    "indexes and filters": "rocksdb.estimate-table-readers-mem",
}


class Clock:
    """Wall and processor seconds since its creation, children included."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), self._cpu()

    def spent(self) -> dict[str, float]:
        """Wall and processor seconds so far."""
        now = time.perf_counter(), self._cpu()
        return {name: round(b - a, 2) for name, a, b in zip(("wall", "cpu"), self._began, now, strict=True)}

    def _cpu(self) -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime


def rss_mb() -> float:
    """Resident memory of this process, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


def identity_of(number: int, partitions: int) -> Identity:
    """The identity of a partition of this benchmark's log."""
    settings = StateSettings()
    return Identity("bench", "clicks", number, partitions, settings.sequence_events, settings.neighbours_per_item)


def open_stores(folder: Path, partitions: int) -> dict[int, Store]:
    """Open the stores of all partitions."""
    settings = StateSettings()
    return {n: Store(folder / f"clicks-{n}", identity_of(n, partitions), settings) for n in range(partitions)}


def close_stores(stores: dict[int, Store]) -> None:
    """Close the stores."""
    for store in stores.values():
        store.close()


def disk_bytes(folder: Path) -> int:
    """Bytes on disk."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def sample(stores: dict[int, Store], events: int) -> dict[str, float]:
    """Resident memory, and the memory that RocksDB reports, in MB."""
    found: dict[str, float] = {"events": events, "rss": round(rss_mb())}
    for name, rocksdb_property in ROCKSDB_PROPERTIES.items():
        columns = [column for store in stores.values() for column in store.database.families()]
        found[name] = round(sum(column.property_int_value(rocksdb_property) or 0 for column in columns) / 1e6)
    print(found, file=sys.stderr, flush=True)
    return found


def apply_events(
    stores: dict[int, Store], arguments: argparse.Namespace
) -> tuple[list[dict[str, float]], dict[str, float], int]:
    """Apply all events. Returns memory samples, the seconds it took, and a user of partition 0."""
    drawn = Synthetic(arguments.users, arguments.items, arguments.partitions)
    batches, samples = arguments.events // EVENTS_PER_BATCH, [sample(stores, 0)]
    took = {"wall": 0.0, "cpu": 0.0}
    user = 0
    for number in range(batches):
        store = stores[number % arguments.partitions]
        start = store.progress.next_offset
        batch = drawn.batch(number % arguments.partitions, start, EVENTS_PER_BATCH)
        clock = Clock()
        store.apply(batch, start + EVENTS_PER_BATCH)
        store.record_answers([(user, b"") for user in store.pending.claim(EVENTS_PER_BATCH)])
        for name, spent in clock.spent().items():
            took[name] += spent
        if number % arguments.partitions == 0:
            user = int(batch.events["user"][-1])
        if (number + 1) % max(batches // SAMPLES, 1) == 0:
            samples.append(sample(stores, (number + 1) * EVENTS_PER_BATCH))
    return samples, took, user


def answer_once(folder: Path, partitions: int, user: int) -> None:
    """Open the stores and make one recommendation, like a restarted worker."""
    stores = open_stores(folder, partitions)
    unanswered = Unanswered(0, stores[0].progress.next_offset - 1, -1)
    [answer] = Recommender(Config(), stores, None).recommend(0, {user: unanswered})
    assert answer.user_id
    close_stores(stores)


def upload_and_restore(folder: Path, partitions: int) -> tuple[dict[str, float], dict[str, float]]:
    """Copy all partitions to an artifact store and back. Returns the seconds of each."""
    settings, artifacts = StateSettings(), str(folder / "artifacts")
    stores, clock = open_stores(folder, partitions), Clock()
    for number, store in stores.items():
        take(store, folder / f"copy-{number}")
        assert CheckpointStore(artifacts, identity_of(number, partitions)).upload(folder / f"copy-{number}", settings)
        shutil.rmtree(folder / f"copy-{number}")
    uploaded = clock.spent()
    close_stores(stores)
    clock = Clock()
    for number in range(partitions):
        checkpoints = CheckpointStore(artifacts, identity_of(number, partitions))
        checkpoints.restore(checkpoints.usable()[0], folder / "elsewhere" / f"clicks-{number}")
    close_stores(open_stores(folder / "elsewhere", partitions))
    return uploaded, clock.spent()


def main() -> None:
    """Print the figures as JSON."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--events", type=int, default=10_000_000)
    parse.add_argument("--users", type=int, default=1_000_000)
    parse.add_argument("--items", type=int, default=200_000)
    parse.add_argument("--partitions", type=int, default=8)
    parse.add_argument("--folder", type=Path, help="where to write; default: a temporary directory")
    parse.add_argument("--answer", type=int, metavar="USER", help=argparse.SUPPRESS)
    arguments = parse.parse_args()
    if arguments.answer is not None:
        answer_once(arguments.folder, arguments.partitions, arguments.answer)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        stores = open_stores(folder, arguments.partitions)
        samples, replay, user = apply_events(stores, arguments)
        known = sum(s.progress.users for s in stores.values())
        edges = sum(s.progress.edges for s in stores.values())
        close_stores(stores)
        disk = disk_bytes(folder)
        clock = Clock()
        answer_flags = ["--folder", str(folder), "--partitions", str(arguments.partitions), "--answer", str(user)]
        subprocess.run([sys.executable, "-m", "benchmarks.speed.memory", *answer_flags], check=True)
        restart = clock.spent()
        uploaded, restore = upload_and_restore(folder, arguments.partitions)
    before_mb, rss = samples[0]["rss"], [s["rss"] for s in samples]
    seconds: dict[str, Any] = {"replay": replay, "restart": restart, "upload": uploaded, "restore": restore}
    document = {
        "ratios": {
            f"{name}/replay": {by: round(took[by] / replay[by], 4) for by in took}
            for name, took in (("restart", restart), ("restore", restore))
        },
        "edges": edges,
        "users": known,
        "rss_mb": {"imports and empty stores": before_mb, "on the way": rss[1:], "most": max(rss)},
        "rocksdb_mb": {name: [s[name] for s in samples[1:]] for name in ROCKSDB_PROPERTIES},
        "bytes_per_user": {"disk": round(disk / known), "memory": round((rss[-1] - before_mb) * 1e6 / known)},
        "bytes_per_edge_on_disk": round(disk / edges, 1),
        "seconds": {name: {by: round(s, 1) for by, s in took.items()} for name, took in seconds.items()},
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
