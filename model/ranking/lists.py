"""The list: the k best items of each user, with what passes the filters."""

import numpy as np
import torch
from torch import Tensor

from model.encoders.vocabulary import Indices
from model.ranking.candidates import Candidates
from model.ranking.context import SCANNED_ITEMS, Context
from model.ranking.filters import Rules, dropped_for_everybody, dropped_for_users
from state.events import Floats


def best_of_all(scores: Tensor, k: int, answerable: np.ndarray) -> tuple[Floats, Indices]:
    """Scores and columns of the k best of [B, C], both [B, k], best first. Column 0 fills a row that has fewer.

    A user who is not `answerable` [B] (bool) gets none.
    """
    best, columns = np.zeros((len(scores), k), np.float32), np.zeros((len(scores), k), np.int64)
    width = min(k, scores.shape[1])
    values, found = torch.topk(scores, width, dim=1)
    real = torch.isfinite(values).numpy() & answerable[:, None]
    best[:, :width] = np.where(real, values.numpy(), 0.0)
    columns[:, :width] = np.where(real, found.numpy(), 0)
    return best, columns


def best_candidates(scores: Floats, items: Candidates, users: int, k: int) -> tuple[Floats, Indices, Indices]:
    """As `best_of_all`, of the scores [M] of candidate items; and their places [B, k] among them, -1 = none."""
    best, at = np.zeros((users, k), np.float32), np.full((users, k), -1)
    columns = np.zeros((users, k), np.int64)
    order = np.lexsort((-scores, items.user))
    owner = items.user[order]
    rank = np.arange(len(order)) - np.repeat(items.starts, items.lengths)
    kept = np.flatnonzero((rank < k) & np.isfinite(scores[order]))
    cells, order = (owner[kept], rank[kept]), order[kept]
    best[cells], columns[cells], at[cells] = scores[order], items.column[order], order
    return best, columns, at


def fill(best: Floats, columns: Indices, context: Context, items: Candidates, rules: Rules) -> None:
    """Fill lists [B, k] that have fewer than k items, in place, with popular items that pass the filters.

    Popular items with the longest half-life follow in their order; each has a score that is 1 less. Users without a
    history have no list. At most SCANNED_ITEMS items are looked at.
    """
    short = np.flatnonzero((columns[:, -1] == 0) & (context.lengths > 0))
    if not len(short):
        return
    popular = context.counts.most_popular_first(SCANNED_ITEMS, items.width)
    popular = popular[~dropped_for_everybody(popular, rules)]
    users, dropped = dropped_for_users(rules)
    for user in short.tolist():
        used = np.concatenate([items.column[items.user == user], dropped[users == user]])
        have = int(np.count_nonzero(columns[user]))
        found = popular[~np.isin(popular, used)][: columns.shape[1] - have]
        part = slice(have, have + len(found))
        lowest = best[user, have - 1] if have else 0.0
        columns[user, part], best[user, part] = found, lowest - np.arange(1, len(found) + 1)
