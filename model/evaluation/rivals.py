"""Rivals that need no training: scores of all items from counts.

Each counts histories `past` once and returns a scorer of batches of histories, [B, n + 1]. Column 0 is padding.
"""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from model.encoders.histories import Histories

HistoryScorer = Callable[[Histories], Tensor]


def popularity(past: Histories, ts: np.ndarray, items: int, half_life_s: float | None = None) -> HistoryScorer:
    """Clicks of each item. With a half-life, the weight of a click halves every `half_life_s` of its age."""
    weight = np.ones(len(ts)) if half_life_s is None else np.exp2((ts - ts.max()) / 1000.0 / half_life_s)
    counts = torch.from_numpy(np.bincount(past.items, weight, minlength=items + 1).astype(np.float32))
    return lambda histories: counts.expand(len(histories), -1).clone()


def item_knn(past: Histories, items: int, age_decay: float) -> HistoryScorer:
    """Cosine of two items over the users who clicked both, summed over the history.

    An item of the history that is a steps old counts `age_decay`^a.
    """
    users = past.users
    clicked = sp.csr_matrix((np.ones(len(users), np.float32), (users, past.items)), shape=(len(past), items + 1))
    clicked.data[:] = 1.0
    together = (clicked.T @ clicked).tocsr()
    degree = np.maximum(together.diagonal(), 1e-9)
    together.setdiag(0)
    scale = sp.diags(1.0 / np.sqrt(degree))
    return _summed((scale @ together @ scale).tocsr().astype(np.float32), items, age_decay)


def transitions(past: Histories, items: int, window: int, age_decay: float) -> HistoryScorer:
    """How often an item followed the items of the history within `window` steps, each time counting 1 / lag.

    An item of the history that is a steps old counts `age_decay`^a. At 0 only the newest item counts.
    """
    users = past.users
    left, right, weight = [], [], []
    for lag in range(1, window + 1):
        same = np.flatnonzero(users[lag:] == users[:-lag])
        left.append(past.items[same])
        right.append(past.items[same + lag])
        weight.append(np.full(len(same), 1.0 / lag, np.float32))
    shape = (items + 1, items + 1)
    follows = sp.csr_matrix((np.concatenate(weight), (np.concatenate(left), np.concatenate(right))), shape=shape)
    return _summed(follows, items, age_decay)


def _summed(neighbours: sp.csr_matrix, items: int, age_decay: float) -> HistoryScorer:
    def score(histories: Histories) -> Tensor:
        age = histories.ages
        user = histories.users
        weight = np.power(age_decay, age).astype(np.float32)
        counts = sp.csr_matrix((weight, (user, histories.items)), shape=(len(histories), items + 1))
        return torch.from_numpy((counts @ neighbours).toarray())

    return score
