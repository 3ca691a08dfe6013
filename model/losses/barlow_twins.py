"""Barlow Twins, the default transfer loss: two views of a user agree feature by feature.

Zbontar et al., 2021, arXiv 2103.03230.

z = (x - mean) / std over the batch        C = z_aᵀ z_b / B
loss = Σ_i (1 - C_ii)² + λ Σ_{i≠j} C_ij²   (here divided by d, so that the weight does not depend on d)
"""

import torch
from torch import Tensor


def barlow_twins(a: Tensor, b: Tensor, off_diagonal: float) -> Tensor:
    """Loss between two views [B, d] of the same users; λ is `off_diagonal`. 0 for a batch of one.

    >>> import torch
    >>> x = torch.tensor([[1.0, 2.0], [-1.0, 2.0], [1.0, -2.0], [-1.0, -2.0]])  # features that are independent
    >>> round(barlow_twins(x, x, 0.005).item(), 3)
    0.0
    """
    users, width = a.shape
    if users < 2:
        return a.sum() * 0.0
    a = (a - a.mean(0)) / (a.std(0, correction=0) + 1e-5)
    b = (b - b.mean(0)) / (b.std(0, correction=0) + 1e-5)
    c = a.T @ b / users
    diagonal = torch.diagonal(c)
    loss: Tensor = ((1 - diagonal) ** 2).sum() + off_diagonal * ((c**2).sum() - (diagonal**2).sum())
    return loss / width
