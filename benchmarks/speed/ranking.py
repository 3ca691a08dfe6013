"""Recommendations in a second of processor time, next to the forward pass and top-k of the model alone, and the memory.

RSS in MB: with everything a worker imports, torch included; with a version and the vocabulary; after ranking.
"""

import argparse
import json
import resource
import statistics
import time

import numpy as np
import torch

import stream.worker.service  # noqa: F401  a worker's imports count towards its memory
from benchmarks.speed.memory import rss_mb
from model.encoders.create import Create
from model.encoders.histories import to_histories
from model.encoders.vocabulary import Vocabulary
from model.ranking.fusion import Fusion
from model.ranking.stages import Stages
from model.settings import ModelSettings, RankingSettings
from state.events import make_events
from state.graph import MemoryGraph
from state.sequences import from_events
from state.settings import StateSettings

USERS, STEPS, RUNS = 2_048, 30, 5


def main() -> None:
    """Print both rates, their ratio, and the memory as JSON."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--items", type=int, default=12_000)
    parse.add_argument("--users", type=int, default=USERS)
    parse.add_argument("--batch", type=int, default=256, help="users in a forward pass: worker.rank_batch_users")
    arguments = parse.parse_args()
    items_known: int = arguments.items
    user_count: int = arguments.users
    size: int = arguments.batch
    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    n = np.arange(user_count * STEPS)
    items = np.minimum(draw.zipf(1.2, len(n)), items_known) + 1_000
    events = make_events(np.tile(np.arange(1, user_count + 1), STEPS), items, ts=1_600_000_000_000 + n)
    graph = MemoryGraph(StateSettings())
    graph.apply(events)
    memory = {"before": rss_mb()}
    hashes = np.arange(1_001, 1_001 + items_known, dtype=np.uint64)
    vocabulary = Vocabulary(hashes, [str(h) for h in hashes])
    model = Create(items_known, ModelSettings()).eval()
    ranking = Stages(model, vocabulary, Fusion(1.0, 8.0, 2.0, 1.0), RankingSettings())
    batches = [from_events(events[np.isin(events["user"], np.arange(s, s + size))]) for s in range(1, user_count, size)]
    memory["with a version"] = rss_mb()

    def bare() -> float:
        started = time.process_time()
        for batch in batches:
            histories = to_histories(batch, vocabulary)
            torch.topk(model.encode(histories) @ model.items.weight.detach().T, 10, dim=1)
        return user_count / (time.process_time() - started)

    def ours() -> float:
        started = time.process_time()
        for batch in batches:
            ranking.rank(batch, graph, 10)
        return user_count / (time.process_time() - started)

    bare(), ours()
    pairs = [(bare(), ours()) for _ in range(RUNS)]
    bare_rate, our_rate = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    memory |= {"after ranking": rss_mb(), "most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}
    print(
        json.dumps(
            {
                "items": items_known,
                "batch": size,
                "ratios": {"ours/bare": round(ratio, 2)},
                "recommendations_per_s": {"ours": round(our_rate), "bare": round(bare_rate)},
                "rss_mb": {name: round(mb) for name, mb in memory.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
