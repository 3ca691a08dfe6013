"""The ranker: a linear score with a small network on top, over standardised features.

    s(x) = w · z + MLP(z)        z = clip((x - mean) / spread, ±6)

Both begin at zero except the weight of the fused score, so that an untrained ranker ranks as the fusion does.

    L = -log(p_taken + FLOOR)    p = softmax over the candidate items, each with log(stands_for) added

The floor bounds what one surprising choice may change. It matters: see benchmarks/README.md.
"""

import numpy as np
import torch
from torch import Tensor, nn

from state.events import Floats

HIDDEN = (64, 32)
CLIP = 6.0
FLOOR = 0.05
DROPOUT = 0.1
LEARNING_RATE = 1e-3
DECAY = 1e-4
MIN_SPREAD = 1e-3


class Ranker(nn.Module):
    """Scores candidate items by their features.

    It has no mode: only `loss` drops units. So one thread can rank while another one learns.

    >>> ranker = Ranker(3, start=1)
    >>> ranker(torch.tensor([[0.0, 2.0, 0.0]])).item() == ranker.spread[1].item() * 2.0
    True
    """

    mean: Tensor
    """[F] of the features, as they were standardised last."""
    spread: Tensor

    def __init__(self, features: int, start: int | None = None) -> None:
        """`start` is the feature whose order an untrained ranker keeps."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.linear = nn.Linear(features, 1, bias=False)
        self.first = nn.Linear(features, HIDDEN[0])
        self.second = nn.Linear(HIDDEN[0], HIDDEN[1])
        self.last = nn.Linear(HIDDEN[1], 1, bias=False)
        with torch.no_grad():
            self.linear.weight.zero_()
            self.last.weight.zero_()
            if start is not None:
                self.linear.weight[0, start] = 1.0

    @torch.no_grad()
    def begin(self, features: Floats) -> None:
        """Standardise an untrained ranker by features [n, F]. Its scores stay as they are."""
        self.mean.copy_(torch.from_numpy(features.mean(0)))
        self.spread.copy_(torch.from_numpy(features.std(0) + MIN_SPREAD))
        self.linear.weight *= self.spread

    @torch.no_grad()
    def standardise_again(self, features: Floats) -> None:
        """Standardise a trained ranker again, by features [n, F]. The scores of these stay almost as they are.

        Weights and biases take up the change: z = a + b · z' for each feature, with the line that fits best. Where
        nothing was clipped it is exact. Scores then differ from those before by the same number for all items.
        """
        x = torch.from_numpy(features)
        before = self.standardised(x)
        self.mean.copy_(x.mean(0))
        self.spread.copy_(x.std(0, correction=0) + MIN_SPREAD)
        after = self.standardised(x)
        centred = after - after.mean(0)
        slope = (centred * before).mean(0) / ((centred**2).mean(0) + MIN_SPREAD**2)
        offset = before.mean(0) - slope * after.mean(0)
        self.first.bias.add_(self.first.weight @ offset)
        self.first.weight *= slope
        self.linear.weight *= slope

    def standardised(self, features: Tensor) -> Tensor:
        """z of features [..., F]."""
        return (features - self.mean).div_(self.spread).clamp_(-CLIP, CLIP)  # in place: a third faster

    def forward(self, features: Tensor, draw: torch.Generator | None = None) -> Tensor:
        """Scores [...] of features [..., F]. With `draw` units are dropped."""
        z = self.standardised(features)
        hidden = torch.relu_(self.first(z))
        if draw is not None:
            kept = torch.empty_like(hidden).bernoulli_(1.0 - DROPOUT, generator=draw)
            hidden = hidden * kept / (1.0 - DROPOUT)
        scores: Tensor = (self.linear(z) + self.last(torch.relu_(self.second(hidden))))[..., 0]
        return scores

    def loss(self, features: Tensor, stands_for: Tensor, draw: torch.Generator | None = None) -> Tensor:
        """The mean loss of choices: features [n, C, F], the taken item first; `stands_for` [n, C], 0 = empty row."""
        scores = self(features, draw) + stands_for.log()
        taken = torch.log_softmax(scores, 1)[:, 0]
        layers = (self.first, self.second, self.last)
        large = torch.stack([(parameter**2).sum() for layer in layers for parameter in layer.parameters()]).sum()
        return -torch.log(taken.exp() + FLOOR).mean() + DECAY * large


@torch.no_grad()
def scores_of(ranker: Ranker, features: Floats) -> Floats:
    """Scores [M] of features [M, F]."""
    found: Floats = ranker(torch.from_numpy(features)).numpy()
    return found


@torch.no_grad()
def contributions_of(ranker: Ranker, features: Floats, reference: Floats) -> Floats:
    """What each feature adds to the scores of items with features [n, F], next to items with the features `reference`.

    [n, F]: the slope of the score at the item, times the difference of the standardised features.
    """
    first, second, last = ranker.first, ranker.second, ranker.last
    z, other = (ranker.standardised(torch.from_numpy(part)) for part in (features, reference))
    in_first = first(z)
    in_second = second(in_first.relu())
    slope = ((in_second > 0) * last.weight) @ second.weight
    slope = ((in_first > 0) * slope) @ first.weight + ranker.linear.weight
    found: Floats = slope.mul_(z.sub_(other)).numpy()
    return found


def as_tensors(features: np.ndarray, stands_for: Floats) -> tuple[Tensor, Tensor]:
    """The choices that have a taken item, as tensors of a loss."""
    real = stands_for[:, 0] > 0
    return torch.from_numpy(features[real].astype(np.float32)), torch.from_numpy(stands_for[real])


def ranks_among(scores: Tensor, stands_for: Tensor) -> np.ndarray:
    """[n] how many candidate items score at least as high as the taken one, from scores [n, C] of choices."""
    ahead = (scores[:, 1:] >= scores[:, :1]) * stands_for[:, 1:]
    return ahead.sum(1).round().long().numpy()
