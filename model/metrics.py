"""Metrics from ranks. Ranks are kept for each event, so that comparisons are paired.

The rank of a target is the number of other items that score at least as high. A tie counts against the target, so a
model that scores all items alike has no hits.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Ranks = npt.NDArray[np.int64]
CUTOFF = 10
"""A target of this rank or more is no hit: metrics at 10."""


def ranks_of(scores: "Tensor", targets: "Tensor") -> Ranks:
    """0-based rank of each target [B] in its row of scores [B, n]. Masked items and padding have -inf.

    >>> import torch
    >>> ranks_of(torch.tensor([[3.0, 1.0, 1.0], [0.0, 5.0, 1.0]]), torch.tensor([2, 1])).tolist()
    [2, 0]
    """
    own = scores.gather(1, targets[:, None])
    return ((scores >= own).sum(1) - 1).numpy()


def gains(ranks: Ranks, k: int = CUTOFF) -> npt.NDArray[np.float64]:
    """NDCG@k of each event, with one relevant item."""
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
    """The relative lead in NDCG@10 of `ranks` over `over`, with a 95% interval from a bootstrap.

    Both are ranks of the same events, [T], or [S, T] from trainings with S seeds. The bootstrap resamples seeds and
    whole users: the events of one user are not independent.
    """
    _, user = np.unique(users, return_inverse=True)
    sums = np.stack([[np.bincount(user, gained) for gained in gains(np.atleast_2d(r))] for r in (ranks, over)])
    draw, (_, seeds, people) = np.random.default_rng(seed), sums.shape
    of_user = draw.multinomial(people, np.full(people, 1 / people), draws)
    of_seed = draw.multinomial(seeds, np.full(seeds, 1 / seeds), draws)
    a, b = (((of_user @ side.T) * of_seed).sum(1) for side in sums)
    low, high = np.percentile(a / np.maximum(b, 1e-12) - 1, [2.5, 97.5])
    return float(sums[0].sum() / max(sums[1].sum(), 1e-12) - 1), float(low), float(high)
