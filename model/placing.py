"""The weight of one word by where it places what was chosen, not by how likely it makes it.

    gain(θ) = mean 3 / (3 + r)       r = Σ_j n_j · σ(θ · x_j − θ · x_target)

r is the smooth rank of ApproxNDCG (Qin, Liu and Li, 2010), n_j how many items a candidate stands for. A likelihood
weighs items by the share of all choices that they get. A user's own few items, who may come back to any of them, then
stand against the whole catalogue, and weigh too little for a list that has room for both.
"""

import torch
from torch import Tensor

from model.conditional_logit import Choices

HALF = 3.0
"""Ranks by which a gain is half: what lies far down counts for nothing, as for NDCG@10."""
RIDGE = 2.0
"""Of the squared distance from what was known, in spreads, over the number of choices."""
STEPS = torch.arange(-8.0, 16.1, 0.25)
"""Weights tried, in spreads of the word from where it was."""


def placed(choices: Choices, weights: Tensor, word: int, prior: float) -> Tensor:
    """`weights` [F] with that of one word moved to where the gain is best; `prior` was its weight before."""
    real = torch.isfinite(choices.correction)
    spread = choices.words[real].std(0).clamp(min=1e-6)[word]
    said = choices.words @ weights
    others = torch.where(real, choices.correction.exp(), torch.zeros(()))[:, 1:]
    ahead, moved = said[:, 1:] - said[:, :1], (choices.words[:, 1:, word] - choices.words[:, :1, word]) / spread
    gains = []
    for step in STEPS:
        rank = (torch.sigmoid(ahead + step * moved) * others).sum(1)
        far = weights[word] * spread + step - prior * spread
        gains.append((HALF / (HALF + rank)).mean() - RIDGE / len(said) * far**2)
    found = weights.clone()
    found[word] += STEPS[int(torch.stack(gains).argmax())] / spread
    return found
