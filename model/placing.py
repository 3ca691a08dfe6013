"""Weights of a few words by where they place what was chosen, not by how likely they make it.

    gain(θ) = mean [r < 10] / log2(r + 2)       r = Σ_j n_j · [θ · x_j ≥ θ · x_target]

That is NDCG@10 among the candidates j, of which each stands for n_j items. A likelihood weighs items by the share of
all choices that they get: a user's own few items, who may come back to any of them, stand against the whole catalogue
then, and weigh too little for a list that has room for both. The gain has steps and no slope, so one weight after the
other is moved along a grid, and held to what was known.
"""

from collections.abc import Collection

import torch
from torch import Tensor

from model.conditional_logit import Choices
from model.metrics import CUTOFF

RIDGE = 2.0
"""Of the squared distance from what was known, in spreads, over the number of choices."""
STEPS = torch.arange(-8.0, 16.1, 0.25)
"""Tried of each weight, in spreads of the word from where it is."""
ROUNDS = 2


def placed(
    choices: Choices, weights: Tensor, prior: Tensor, words: Collection[int], signed: Collection[int] = ()
) -> Tensor:
    """`weights` [F] with those of `words` moved to where the gain is best; `prior` [F] is what they were before.

    Words that are not `signed` keep a weight above 0, or one of 0 if they have none.
    """
    real = torch.isfinite(choices.correction)
    spreads = choices.words[real].std(0).clamp(min=1e-6)
    others = torch.where(real, choices.correction.exp(), torch.zeros(()))[:, 1:]
    found = weights.clone()
    for word in [*words] * ROUNDS:
        if found[word] <= 0 and word not in signed:
            continue
        said, spread = choices.words @ found, spreads[word]
        ahead, moved = said[:, 1:] - said[:, :1], (choices.words[:, 1:, word] - choices.words[:, :1, word]) / spread
        tried = found[word] * spread + STEPS
        gains = []
        for weight, step in zip(tried, STEPS, strict=True):
            rank = ((ahead + step * moved >= 0) * others).sum(1)
            gain = torch.where(rank < CUTOFF, 1.0 / torch.log2(rank + 2.0), 0.0).mean()
            gains.append(gain - RIDGE / len(said) * (weight - prior[word] * spread) ** 2)
        allowed = torch.stack(gains).masked_fill(tried <= 0, -torch.inf) if word not in signed else torch.stack(gains)
        found[word] = tried[int(allowed.argmax())] / spread
    return found
