"""Metrics from ranks, kept event by event so that comparisons are paired.

A target's rank is the number of items scored at least as high: a tie counts against it, so that scores which say
nothing find nothing.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Ranks = npt.NDArray[np.int64]
CUTOFF = 10


def ranks_of(scores: "Tensor", targets: "Tensor") -> Ranks:
    """0-based rank of each target [B] in its row of scores [B, n]; masked items are -inf, padding too.

    >>> import torch
    >>> ranks_of(torch.tensor([[3.0, 1.0, 1.0], [0.0, 5.0, 1.0]]), torch.tensor([2, 1])).tolist()
    [2, 0]
    """
    own = scores.gather(1, targets[:, None])
    return ((scores >= own).sum(1) - 1).numpy()


def gains(ranks: Ranks, k: int = CUTOFF) -> npt.NDArray[np.float64]:
    """Each event's part of NDCG@k."""
    return np.where(ranks < k, 1.0 / np.log2(ranks + 2.0), 0.0)


def summary(ranks: Ranks) -> dict[str, float]:
    """NDCG@10, Recall@10, Recall@20 and MRR."""
    return {
        "ndcg@10": round(float(gains(ranks).mean()), 6),
        "recall@10": round(float((ranks < CUTOFF).mean()), 6),
        "recall@20": round(float((ranks < 20).mean()), 6),
        "mrr": round(float((1.0 / (ranks + 1.0)).mean()), 6),
    }


def lead(
    ranks: Ranks, over: Ranks, users: npt.NDArray[np.uint64], *, draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """How far NDCG@10 of `ranks` lies above `over`, relatively, with a 95% interval from a bootstrap.

    Both are ranks of the same events, [T], or [S, T] from trainings with S seeds. Users are drawn, all their events
    together, because they are not independent; and seeds, where there are several.
    """
    _, user = np.unique(users, return_inverse=True)
    sums = np.stack([[np.bincount(user, gained) for gained in gains(np.atleast_2d(r))] for r in (ranks, over)])
    draw, (_, seeds, people) = np.random.default_rng(seed), sums.shape
    of_user = draw.multinomial(people, np.full(people, 1 / people), draws)
    of_seed = draw.multinomial(seeds, np.full(seeds, 1 / seeds), draws)
    a, b = (((of_user @ side.T) * of_seed).sum(1) for side in sums)
    low, high = np.percentile(a / np.maximum(b, 1e-12) - 1, [2.5, 97.5])
    return float(sums[0].sum() / max(sums[1].sum(), 1e-12) - 1), float(low), float(high)
