"""Sampled softmax with negatives shared by the batch and logQ-corrected (Bengio and Senécal, 2008; Yi et al., 2019).

    loss = -log( exp(s_y) / ( exp(s_y) + (n-1)/K · Σ_{j in negatives, j ≠ y} exp(s_j) ) )

Negatives are uniform without replacement, so the correction is the same log((n-1)/K) for each.
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

    `items` is the size n of the catalogue the negatives were drawn from.
    """
    count = len(negative_ids)
    logits = encoded @ negatives.T + math.log(max(items - 1, 1) / count)
    logits = logits.masked_fill(positive_ids[:, None] == negative_ids[None, :], -1e9)
    own = (encoded * positives).sum(1)
    return (torch.logaddexp(own, torch.logsumexp(logits, 1)) - own).mean()
