"""Recommendations a second for 12,000 items, next to the forward pass and top-k of the model alone."""

import json
import statistics
import time

import numpy as np
import torch

from model.encoders.create import Create
from model.encoders.histories import to_histories
from model.encoders.vocabulary import Vocabulary
from model.ranking.fusion import Fusion
from model.ranking.ranker import Ranker
from model.settings import ModelSettings, RankingSettings
from state.events import make_events
from state.graph import MemoryGraph
from state.sequences import from_events
from state.settings import StateSettings

ITEMS, USERS, STEPS, BATCH, RUNS = 12_000, 2_048, 30, 256, 5


def main() -> None:
    """Print both rates and their ratio as JSON."""
    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    n = np.arange(USERS * STEPS)
    items = np.minimum(draw.zipf(1.2, len(n)), ITEMS) + 1_000
    events = make_events(np.tile(np.arange(1, USERS + 1), STEPS), items, ts=1_600_000_000_000 + n)
    graph = MemoryGraph(StateSettings())
    graph.apply(events)
    hashes = np.arange(1_001, 1_001 + ITEMS, dtype=np.uint64)
    vocabulary = Vocabulary(hashes, [str(h) for h in hashes])
    model = Create(ITEMS, ModelSettings()).eval()
    ranking = Ranker(model, vocabulary, Fusion(1.0, 8.0, 2.0, 1.0), RankingSettings())
    batches = [from_events(events[np.isin(events["user"], np.arange(s, s + BATCH))]) for s in range(1, USERS, BATCH)]

    def bare() -> float:
        started = time.perf_counter()
        for batch in batches:
            histories = to_histories(batch, vocabulary)
            torch.topk(model.encode(histories) @ model.items.weight.detach().T, 10, dim=1)
        return USERS / (time.perf_counter() - started)

    def ours() -> float:
        started = time.perf_counter()
        for batch in batches:
            ranking.rank(batch, graph, 10)
        return USERS / (time.perf_counter() - started)

    bare(), ours()
    pairs = [(bare(), ours()) for _ in range(RUNS)]
    bare_rate, our_rate = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(
        json.dumps(
            {
                "items": ITEMS,
                "ratios": {"ours/bare": round(ratio, 2)},
                "recommendations_per_s": {"ours": round(our_rate), "bare": round(bare_rate)},
            }
        )
    )


if __name__ == "__main__":
    main()
