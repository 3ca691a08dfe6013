"""Rankings in a second of processor time, one thread: of the stages, of the fusion, and of the model alone.

    bare     the forward pass and top-k of the model alone
    fusion   `Stages` without a ranker: the four signals of every item
    stages   `Stages` with a ranker: sources, candidate items, features, ranker, list

Each batch is ranked by all three, one after the other, so that other work on the machine hits them alike. Then each of
`--alone` users is ranked alone. RSS in MB: with everything a worker imports, torch included; with a version and the
vocabulary; after ranking.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

import stream.worker.service  # noqa: F401  a worker's imports count towards its memory
from benchmarks.speed.memory import rss_mb
from model.encoders.create import Create
from model.encoders.graph_table import DIM
from model.encoders.histories import to_histories
from model.encoders.vocabulary import Vocabulary
from model.ranker.network import Ranker
from model.ranking.features import NAMES, START
from model.ranking.fusion import Fusion
from model.ranking.stages import Stages
from model.settings import ModelSettings, RankingSettings
from state.events import Records, make_events
from state.graph import MemoryGraph
from state.sequences import Sequences, from_events
from state.settings import StateSettings

USERS, STEPS, RUNS, ALONE = 2_048, 30, 5, 200
WEEK_MS = 7 * 86_400_000
Rank = Callable[[Sequences], object]


def clicks(users: int, items: int) -> Records:
    """STEPS clicks of each user within four weeks: a few sessions each, popular items more often, some again."""
    draw = np.random.default_rng(0)
    sessions = draw.integers(0, 4 * WEEK_MS, (users, STEPS // 5))
    ts = np.repeat(sessions, 5, axis=1) + draw.exponential(60_000.0, (users, STEPS)).astype(np.int64)
    item = np.minimum(draw.zipf(1.2, (users, STEPS)), items)
    again = draw.random((users, STEPS)) < 0.3
    item[again] = np.take_along_axis(item, draw.integers(0, STEPS, (users, STEPS)), 1)[again]
    user = np.repeat(np.arange(1, users + 1), STEPS)
    order = np.argsort(ts.ravel(), kind="stable")
    return make_events(user[order], item.ravel()[order] + 1_000, ts=1_600_000_000_000 + ts.ravel()[order])


def seconds(rank: Rank, sequences: Sequences) -> float:
    """Processor time of one call."""
    started = time.process_time()
    rank(sequences)
    return time.process_time() - started


def medians(ranks: dict[str, Rank], inputs: list[Sequences], runs: int) -> dict[str, float]:
    """Seconds of each way to rank: the median of the inputs, each ranked by all in turn, `runs` times."""
    for rank in ranks.values():
        rank(inputs[0])
    found = [[seconds(rank, sequences) for rank in ranks.values()] for _ in range(runs) for sequences in inputs]
    return dict(zip(ranks, map(statistics.median, zip(*found, strict=True)), strict=True))


def main() -> None:
    """Print the rates, their ratios, the time of one user alone and the memory as JSON."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--items", type=int, default=12_000)
    parse.add_argument("--users", type=int, default=USERS)
    parse.add_argument("--batch", type=int, default=256, help="users in a forward pass: worker.rank_batch_users")
    parse.add_argument("--alone", type=int, default=ALONE, help="users that are ranked alone")
    arguments = parse.parse_args()
    items: int = arguments.items
    size: int = arguments.batch
    torch.set_num_threads(1)
    torch.manual_seed(0)
    events = clicks(arguments.users, items)
    graph = MemoryGraph(StateSettings())
    graph.apply(events)
    memory = {"before": rss_mb()}
    hashes = np.arange(1_001, 1_001 + items, dtype=np.uint64)
    vocabulary = Vocabulary(hashes, [str(h) for h in hashes])
    model = Create(items, ModelSettings()).eval()
    model.graph_table = torch.nn.functional.normalize(torch.randn(items + 1, DIM), dim=1).half()
    fusion, settings = Fusion(1.0, 8.0, 2.0, 1.0), RankingSettings()
    by_fusion = Stages(model, vocabulary, fusion, settings)
    by_ranker = Stages(model, vocabulary, fusion, settings, Ranker(len(NAMES), START))
    users = np.arange(1, arguments.users + 1)
    batches = [from_events(events[np.isin(events["user"], part)]) for part in np.split(users, users[size::size] - 1)]
    alone = [from_events(events[events["user"] == user]) for user in users[: arguments.alone]]
    memory["with a version"] = rss_mb()

    def bare(sequences: Sequences) -> object:
        return torch.topk(model.encode(to_histories(sequences, vocabulary)) @ model.items.weight.detach().T, 10, dim=1)

    ranks: dict[str, Rank] = {
        "bare": bare,
        "fusion": lambda sequences: by_fusion.rank(sequences, graph, 10),
        "stages": lambda sequences: by_ranker.rank(sequences, graph, 10),
    }
    batch_s = medians(ranks, batches, RUNS)
    one_s = medians(ranks, alone, 1)
    shown = by_ranker.rank(batches[0], graph, 10, shown=True).shown
    candidates = statistics.mean(len(one.items) for one in shown if one is not None)
    memory |= {"after ranking": rss_mb(), "most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}
    print(
        json.dumps(
            {
                "items": items,
                "batch": size,
                "ratios": {
                    "stages/fusion, seconds": round(batch_s["stages"] / batch_s["fusion"], 2),
                    "ours/bare": round(batch_s["bare"] / batch_s["stages"], 2),
                },
                "recommendations_per_s": {name: round(size / s) for name, s in batch_s.items()},
                "alone_ms": {name: round(1000 * s, 2) for name, s in one_s.items()},
                "candidate_items": round(candidates),
                "rss_mb": {name: round(mb) for name, mb in memory.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
