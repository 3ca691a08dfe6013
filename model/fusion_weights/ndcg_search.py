"""The weight of one signal, chosen by NDCG@10: where the chosen items end up in the list, not how likely they are.

    gain(θ) = mean [r < 10] / log2(r + 2)       r = Σ_j n_j · [θ · x_j ≥ θ · x_target]

That is NDCG@10 among the alternatives j, each of which stands for n_j items. A likelihood weighs items by their share
of all choices. A user's own few items, any of which may be clicked again, then compete with the whole catalogue and
get too low a weight for a list that has room for both. The gain is a step function without a slope, so the weight is
moved along a grid.
"""

import torch
from torch import Tensor

from model.fusion_weights.conditional_logit import ChoiceSets
from model.metrics import gains

RIDGE = 2.0
"""Of the squared distance from the prior weight, in spreads, over the number of choices."""
STEPS = torch.arange(-8.0, 16.1, 0.25)
"""Weights tried, in spreads of the signal from where it was."""


def best_weight(choices: ChoiceSets, weights: Tensor, signal: int, prior: float) -> Tensor:
    """`weights` [F] with that of one signal moved to where the gain is best; `prior` was its weight before."""
    real = torch.isfinite(choices.correction)
    spread = choices.signals[real].std(0).clamp(min=1e-6)[signal]
    scores, values = choices.signals @ weights, choices.signals[:, :, signal]
    stands_for = torch.where(real, choices.correction.exp(), torch.zeros(()))[:, 1:]
    ahead, moved = scores[:, 1:] - scores[:, :1], (values[:, 1:] - values[:, :1]) / spread
    gain = torch.from_numpy(gains(ranks(ahead, moved, stands_for).numpy())).mean(0)
    gain -= RIDGE / len(scores) * ((weights[signal] - prior) * spread + STEPS) ** 2
    found = weights.clone()
    found[signal] += STEPS[int(gain.argmax())] / spread
    return found


def ranks(ahead: Tensor, moved: Tensor, stands_for: Tensor) -> Tensor:
    """r at every step [T, S]: the sum of `stands_for` [T, C] where ahead + step · moved >= 0, each [T, C].

    An alternative is counted from the step on at which it passes the target, or up to the step at which it falls
    behind. That takes one pass in place of one for each step.

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
    counted = torch.where(never, torch.zeros(()), stands_for)
    changes = torch.zeros(len(ahead), steps + 1)
    changes.scatter_add_(1, first, counted).scatter_add_(1, last, -counted)
    return changes.cumsum(1)[:, :-1]
