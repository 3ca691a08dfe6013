"""The best columns of a score matrix, without sorting scores that cannot be among them."""

import numpy as np
import torch
from torch import Tensor

from model.encoders.vocabulary import Indices

GROUPS_PER_BEST = 16
"""Groups of columns for each column that is wanted."""


def best_columns(scores: Tensor, count: int) -> tuple[Indices, Indices]:
    """Rows and columns of the `count` largest scores in each row of [B, C], in no order; of all C if there are fewer.

    Columns are put into groups. The n-th largest of the groups' maxima is not above the n-th largest score, so only
    scores that are not below it are compared. This costs a third of `torch.topk`.
    """
    columns = scores.shape[1]
    groups = GROUPS_PER_BEST * count
    whole = columns - columns % groups
    if whole > groups:
        values = scores.numpy()
        largest = values[:, :whole].reshape(len(values), -1, groups).max(1)
        bound = np.partition(largest, groups - count, axis=1)[:, groups - count]
        row, column = np.divmod(np.flatnonzero(values >= bound[:, None]), columns)
        lengths = np.bincount(row, minlength=len(values))
        if lengths.max() <= 4 * count:  # otherwise many scores are equal
            slot = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            left = np.full((len(values), lengths.max()), -np.inf, np.float32)
            left[row, slot] = values[row, column]
            best = np.argpartition(-left, count - 1, axis=1)[:, :count]
            at = (np.cumsum(lengths) - lengths)[:, None] + best
            return np.repeat(np.arange(len(values)), count), column[at.ravel()]
    found = torch.topk(scores, min(count, columns), dim=1, sorted=False).indices.numpy()
    return np.repeat(np.arange(len(found)), found.shape[1]), found.ravel()
