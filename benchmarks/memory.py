"""Memory and disk of a worker's state as events go by, and how soon it answers after a restart.

Synthetic events of `--users` users and `--items` items, popular ones more often, go to the stores of `--partitions`
partitions as a worker applies them. RSS is the process's, without a model and without Kafka's client. A restart is
opening the stores and one recommendation (by popularity, as no version serves); its rival is folding all events again.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from state.events import EVENT, EventBatch, hash_id, hash_ids
from state.identity import Identity
from state.owed import Debt
from state.settings import StateSettings
from state.store import Store
from stream.config import Config
from stream.ranker import Ranker

BATCH = 10_000
BEGUN_MS = 1_600_000_000_000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def rss_mb() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


def opened(folder: Path, partitions: int) -> dict[int, Store]:
    """The stores."""
    settings = StateSettings()
    shape = settings.sequence_events, settings.neighbours_per_item
    return {
        n: Store(folder / f"clicks-{n}", Identity("bench", "clicks", n, partitions, *shape), settings)
        for n in range(partitions)
    }


def main() -> None:
    """Print the figures as JSON."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--events", type=int, default=10_000_000)
    parse.add_argument("--users", type=int, default=1_000_000)
    parse.add_argument("--items", type=int, default=200_000)
    parse.add_argument("--partitions", type=int, default=8)
    asked = parse.parse_args()
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stores = opened(folder, asked.partitions)
        before_mb, folding_s = rss_mb(), 0.0
        samples: list[float] = []
        batches = asked.events // BATCH
        for number in range(batches):
            partition = number % asked.partitions
            users = draw.integers(0, asked.users // asked.partitions, BATCH) * asked.partitions + partition
            items = (asked.items * draw.random(BATCH) ** 2).astype(np.int64)
            user_ids, item_ids = (
                [b"%s-%d" % (kind, n) for n in ids.tolist()] for kind, ids in ((b"u", users), (b"i", items))
            )
            store = stores[partition]
            start = store.state.next_offset
            events = np.zeros(BATCH, EVENT)
            events["user"], events["item"] = hash_ids(user_ids), hash_ids(item_ids)
            events["ts"] = BEGUN_MS + number * BATCH + np.arange(BATCH)
            events["offset"] = start + np.arange(BATCH)
            began = time.perf_counter()
            store.apply(EventBatch(events, user_ids, item_ids, {}), start + BATCH)
            store.record_answers([(user, b"") for user in store.owed.take(BATCH)])
            folding_s += time.perf_counter() - began
            if number % max(batches // 10, 1) == 0:
                samples.append(round(rss_mb()))
                print(f"{number * BATCH:,} events, {samples[-1]} MB", file=sys.stderr)
        end_mb = rss_mb()
        known = sum(s.state.users for s in stores.values())
        for store in stores.values():
            store.close()
        disk = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())

        began = time.perf_counter()
        stores = opened(folder, asked.partitions)
        user = hash_id(user_ids[0])
        debt = Debt(0, stores[partition].state.next_offset - 1, -1)
        [answer] = Ranker(Config(), stores, None).answer(partition, {user: debt})
        restart_s = time.perf_counter() - began
        assert answer.user_id == user_ids[0]
        for store in stores.values():
            store.close()
    document = {
        "ratios": {"restart/replay": round(restart_s / folding_s, 5)},
        "events": batches * BATCH,
        "users": known,
        "rss_mb": {"before": round(before_mb), "on the way": samples, "end": round(end_mb)},
        "bytes_per_user": {"disk": round(disk / known), "memory": round((end_mb - before_mb) * 1e6 / known)},
        "seconds": {"folding": round(folding_s, 1), "restart": round(restart_s, 2)},
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
