"""Sampled softmax with negatives shared by the batch and logQ-corrected (Bengio and Senécal, 2008; Yi et al., 2019).

    loss = -log( exp(s_y) / ( exp(s_y) + n/K · Σ_{j in negatives, j ≠ y} exp(s_j) ) )

K of n items are drawn as negatives, without replacement. Each item is drawn with probability K/n; the correction
subtracts log(K/n).
"""

import math

import torch
from torch import Tensor


def sampled_softmax(
    encoded: Tensor,
    positives: Tensor,
    positive_ids: Tensor,
    negatives: Tensor,
    negative_ids: Tensor,
    items: int,
) -> Tensor:
    """Mean loss of encodings [N, d] against their positives' rows [N, d] and shared negatives' rows [K, d].

    `items` is n, the size of the catalogue from which the negatives are drawn.

    >>> table = torch.eye(3)
    >>> ids = torch.tensor([0, 1, 2])
    >>> loss = sampled_softmax(table[:1], table[:1], ids[:1], table, ids, 3)  # with all items: the softmax itself
    >>> bool(torch.isclose(loss, -torch.log_softmax(table[:1] @ table.T, 1)[0, 0]))
    True
    """
    count = len(negative_ids)
    logits = encoded @ negatives.T + math.log(items / count)
    logits = logits.masked_fill(positive_ids[:, None] == negative_ids[None, :], -1e9)
    own = (encoded * positives).sum(1)
    return (torch.logaddexp(own, torch.logsumexp(logits, 1)) - own).mean()
