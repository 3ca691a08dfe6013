"""InfoNCE, a contrastive transfer loss: each view of a user is classified among the other views of the batch.

van den Oord et al., 2018, arXiv 1807.03748, in the symmetric form of CLIP.

loss = ½ Σ_b [ -log softmax_b'(a_b · b_b' / τ)_b  -  log softmax_b'(b_b · a_b' / τ)_b ] / B      on unit vectors
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def infonce(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Loss between two views [B, d] of the same users; 0 for a batch of one.

    >>> x = torch.eye(3)
    >>> infonce(x, x, 0.1).item() < 0.001 < infonce(x, x.flip(0), 0.1).item()
    True
    """
    similar = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature
    same = torch.arange(len(a))
    return (F.cross_entropy(similar, same) + F.cross_entropy(similar.T, same)) / 2
