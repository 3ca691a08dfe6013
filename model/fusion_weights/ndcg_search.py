"""The weight of one signal, chosen by NDCG@10: by the ranks of the chosen items, not by their likelihood.

    gain(θ) = mean [r < 10] / log2(r + 2)       r = Σ_j n_j · [θ · x_j ≥ θ · x_target]

The gain is NDCG@10 among the alternatives j. Each alternative stands for n_j items. By likelihood a user's own few
items compete with the whole catalogue for one choice, and get too low a weight for a list that has room for both. The
gain is a step function without a slope, so weights are tried on a grid.
"""

import torch
from torch import Tensor

from model.fusion_weights.conditional_logit import ChoiceSets
from model.metrics import gains

RIDGE = 2.0
"""Penalty on the squared distance from the prior weight, in units of spread, divided by the number of choices."""
WEIGHT_STEPS = torch.arange(-8.0, 16.1, 0.25)
"""Changes of the weight that are tried, in units of the signal's spread."""


def best_weight(choices: ChoiceSets, weights: Tensor, signal: int, prior: float) -> Tensor:
    """`weights` [F] with the weight of one signal moved to the best gain, near `prior`."""
    real = torch.isfinite(choices.correction)
    spread = choices.signals[real].std(0).clamp(min=1e-6)[signal]
    scores, values = choices.signals @ weights, choices.signals[:, :, signal]
    stands_for = torch.where(real, choices.correction.exp(), torch.zeros(()))[:, 1:]
    ahead, moved = scores[:, 1:] - scores[:, :1], (values[:, 1:] - values[:, :1]) / spread
    gain = torch.from_numpy(gains(ranks(ahead, moved, stands_for).numpy())).mean(0)
    gain -= RIDGE / len(scores) * ((weights[signal] - prior) * spread + WEIGHT_STEPS) ** 2
    found = weights.clone()
    found[signal] += WEIGHT_STEPS[int(gain.argmax())] / spread
    return found


def ranks(ahead: Tensor, moved: Tensor, stands_for: Tensor) -> Tensor:
    """r at every step, [T, S]: the sum of `stands_for` where ahead + step · moved >= 0. All arguments are [T, C].

    An alternative counts from the step at which it passes the target, or up to the step at which it falls behind. One
    pass over the alternatives is enough for all steps.

    >>> ahead, moved = torch.tensor([[1.0, -1.0, 0.0]]), torch.tensor([[-1.0, 1.0, 0.0]])
    >>> at = [int(torch.isclose(WEIGHT_STEPS, torch.tensor(step)).nonzero()) for step in (-2.0, 0.0, 1.0, 2.0)]
    >>> ranks(ahead, moved, torch.tensor([[1.0, 10.0, 100.0]]))[0, at].tolist()
    [101.0, 101.0, 111.0, 110.0]
    """
    steps = len(WEIGHT_STEPS)
    where = (
        ((-ahead / moved - WEIGHT_STEPS[0]) / (WEIGHT_STEPS[1] - WEIGHT_STEPS[0])).nan_to_num(0.0).clamp(-1.0, steps)
    )
    first = torch.where(moved > 0, where.ceil().clamp(min=0.0), 0.0).long()
    last = torch.where(moved < 0, (where.floor() + 1.0).clamp(max=steps), float(steps)).long()
    never = (moved == 0) & (ahead < 0)
    counted = torch.where(never, torch.zeros(()), stands_for)
    changes = torch.zeros(len(ahead), steps + 1)
    changes.scatter_add_(1, first, counted).scatter_add_(1, last, -counted)
    return changes.cumsum(1)[:, :-1]
