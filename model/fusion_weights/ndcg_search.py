"""The weight of one word by where it places what was chosen, not by how likely it makes it.

    gain(θ) = mean [r < 10] / log2(r + 2)       r = Σ_j n_j · [θ · x_j ≥ θ · x_target]

That is NDCG@10 among the candidates j, of which each stands for n_j items. A likelihood weighs items by the share of
all choices that they get. A user's own few items, who may come back to any of them, then stand against the whole
catalogue, and weigh too little for a list that has room for both. The gain has steps and no slope, so the weight is
moved along a grid.
"""

import torch
from torch import Tensor

from model.fusion_weights.conditional_logit import ChoiceSets
from model.metrics import gains

RIDGE = 2.0
"""Of the squared distance from what was known, in spreads, over the number of choices."""
STEPS = torch.arange(-8.0, 16.1, 0.25)
"""Weights tried, in spreads of the word from where it was."""


def best_weight(choices: ChoiceSets, weights: Tensor, word: int, prior: float) -> Tensor:
    """`weights` [F] with that of one word moved to where the gain is best; `prior` was its weight before."""
    real = torch.isfinite(choices.correction)
    spread = choices.signals[real].std(0).clamp(min=1e-6)[word]
    said = choices.signals @ weights
    others = torch.where(real, choices.correction.exp(), torch.zeros(()))[:, 1:]
    ahead, moved = said[:, 1:] - said[:, :1], (choices.signals[:, 1:, word] - choices.signals[:, :1, word]) / spread
    gain = torch.from_numpy(gains(ranks(ahead, moved, others).numpy())).mean(0)
    gain -= RIDGE / len(said) * ((weights[word] - prior) * spread + STEPS) ** 2
    found = weights.clone()
    found[word] += STEPS[int(gain.argmax())] / spread
    return found


def ranks(ahead: Tensor, moved: Tensor, others: Tensor) -> Tensor:
    """r at every step [T, S]: how many of `others` [T, C] have ahead + step · moved >= 0, each [T, C].

    Each is counted from the step on at which it comes to be ahead, or up to the one at which it falls behind: one pass
    instead of one a step.

    >>> ahead, moved = torch.tensor([[1.0, -1.0, 0.0]]), torch.tensor([[-1.0, 1.0, 0.0]])
    >>> at = [int(torch.isclose(STEPS, torch.tensor(step)).nonzero()) for step in (-2.0, 0.0, 1.0, 2.0)]
    >>> ranks(ahead, moved, torch.tensor([[1.0, 10.0, 100.0]]))[0, at].tolist()
    [101.0, 101.0, 111.0, 110.0]
    """
    steps = len(STEPS)
    where = ((-ahead / moved - STEPS[0]) / (STEPS[1] - STEPS[0])).nan_to_num(0.0).clamp(-1.0, steps)
    first = torch.where(moved > 0, where.ceil().clamp(min=0.0), 0.0).long()
    last = torch.where(moved < 0, (where.floor() + 1.0).clamp(max=steps), float(steps)).long()
    never = (moved == 0) & (ahead < 0)
    counted = torch.where(never, torch.zeros(()), others)
    changes = torch.zeros(len(ahead), steps + 1)
    changes.scatter_add_(1, first, counted).scatter_add_(1, last, -counted)
    return changes.cumsum(1)[:, :-1]
