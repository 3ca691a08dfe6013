"""Scalable cross-entropy: the softmax over likely items only, found by random projections (Mezentsev et al., 2024).

arXiv 2409.18721. Each of n_b random directions b has a bucket of the outputs and items with the largest projections:

    O_b, I_b = top-s of outputs h by b·h, of items by b·E_j        b = Σ_n ε_n h_n / √N, ε normal
    ℓ_b(n)   = log(exp(E_y·h_n) + Σ_{j in I_b, j ≠ y} exp(E_j·h_n)) - E_y·h_n        y the true item, n in O_b
    L        = mean over n of max_b ℓ_b(n)

An output in several buckets counts its largest loss. An output in no bucket is left out of the step.

NDCG@10 is lower than with the full and the sampled softmax in the same time (`results/item_losses.txt`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.encoders.create import Create
from model.losses.item_loss import ItemLoss


def scalable_cross_entropy(encoded: Tensor, model: Create, targets: Tensor, buckets: int, size: int) -> Tensor:
    """Mean loss of encodings [N, d] against all items; `targets` [N] are row numbers of the item table.

    Memory is buckets · size² instead of N · n.
    """
    outputs, items = min(size, len(encoded)), min(size, model.item_count)
    with torch.no_grad():
        # Random combinations of the outputs: such directions are near the outputs.
        directions = torch.randn(buckets, len(encoded), dtype=encoded.dtype) @ encoded / len(encoded) ** 0.5
        own = torch.topk(directions @ encoded.T, outputs, dim=1).indices
        near = torch.topk(directions @ model.table()[1:].T, items, dim=1).indices + 1
    hidden = encoded[own]
    truth = targets[own]
    logits = hidden @ model.rows(near).transpose(1, 2)
    logits = logits.masked_fill(truth[:, :, None] == near[:, None, :], -1e9)
    true_logit = (hidden * model.rows(truth)).sum(2, keepdim=True)
    losses = torch.logsumexp(torch.cat([true_logit, logits], 2), 2) - true_logit[:, :, 0]
    largest = encoded.new_full((len(encoded),), -torch.inf).scatter_reduce(0, own.ravel(), losses.ravel(), "amax")
    return F.relu(largest[torch.isfinite(largest)]).mean()


def scalable(buckets: int = 32, size: int = 256) -> ItemLoss:
    """The loss in the form of `Experiment(item_loss=...)`."""
    return lambda h, targets, _rows, _ids, _negatives, model: scalable_cross_entropy(h, model, targets, buckets, size)
