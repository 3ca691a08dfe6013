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


class Ranker(nn.Module):
    """Scores candidate items by their features.

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
        last = nn.Linear(HIDDEN[1], 1, bias=False)
        self.network = nn.Sequential(
            nn.Linear(features, HIDDEN[0]), nn.ReLU(), nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN[0], HIDDEN[1]), nn.ReLU(), last,
        )  # fmt: skip
        with torch.no_grad():
            self.linear.weight.zero_()
            last.weight.zero_()
            if start is not None:
                self.linear.weight[0, start] = 1.0
        self._start = start

    def standardise(self, features: Floats) -> None:
        """Take mean and spread from features [n, F]. The scores of an untrained ranker stay as they are."""
        with torch.no_grad():
            self.mean.copy_(torch.from_numpy(features.mean(0)))
            self.spread.copy_(torch.from_numpy(features.std(0) + 1e-3))
            if self._start is not None:
                self.linear.weight[0, self._start] = self.spread[self._start]

    def forward(self, features: Tensor) -> Tensor:
        """Scores [...] of features [..., F]."""
        z = ((features - self.mean) / self.spread).clamp(-CLIP, CLIP)
        scores: Tensor = (self.linear(z) + self.network(z))[..., 0]
        return scores

    def loss(self, features: Tensor, stands_for: Tensor) -> Tensor:
        """The mean loss of choices: features [n, C, F], the taken item first; `stands_for` [n, C], 0 = empty row."""
        scores = self(features) + stands_for.log()
        taken = torch.log_softmax(scores, 1)[:, 0]
        return -torch.log(taken.exp() + FLOOR).mean() + DECAY * sum((p**2).sum() for p in self.network.parameters())


@torch.no_grad()
def scores_of(ranker: Ranker, features: Floats) -> Floats:
    """Scores [M] of features [M, F]."""
    if ranker.training:
        ranker.eval()
    found: Floats = ranker(torch.from_numpy(features)).numpy()
    return found


def as_tensors(features: np.ndarray, stands_for: Floats) -> tuple[Tensor, Tensor]:
    """The choices that have a taken item, as tensors of a loss."""
    real = stands_for[:, 0] > 0
    return torch.from_numpy(features[real].astype(np.float32)), torch.from_numpy(stands_for[real])
