"""Weights by where they place what was chosen, not by how likely they make it.

    gain(θ) = mean 3 / (3 + r)       r = Σ_j n_j · σ(θ · x_j − θ · x_target)

r is the smooth rank of ApproxNDCG (Qin, Liu and Li, 2010), n_j how many items a candidate stands for. A likelihood
weighs items by the share of all choices that they get. A user's own few items, who may come back to any of them, then
stand against the whole catalogue, and weigh too little for a list that has room for both.

The gain has many tops and says little where few choices are foretold. So it is climbed from what is likeliest
(`model.conditional_logit`), and not far; only the weight that the likelihood gets wrong is looked for further away.
"""

import torch
from torch import Tensor

from model.conditional_logit import Choices, ascend

HALF = 3.0
"""Ranks by which a gain is half: what lies far down counts for nothing, as for NDCG@10."""
RIDGE = 20.0
"""Of the squared distance from where the climb began, in spreads, over the number of choices."""
FAR_RIDGE = 2.0
"""The same for the word that is looked for far away, from what was known before."""
FAR = torch.arange(-8.0, 16.1, 0.25)
"""Its weights tried, in spreads of the word from where it was."""


def placed(choices: Choices, weights: Tensor, free: Tensor, far: int, prior: float) -> Tensor:
    """Weights [F] that place the choices best, near `weights` but for that of the word `far`; `prior` was its weight.

    Words not `free` [F] (bool) keep theirs.
    """
    real = torch.isfinite(choices.correction)
    spread = choices.words[real].std(0).clamp(min=1e-6)
    ahead = ((choices.words[:, 1:] - choices.words[:, :1]) / spread).masked_fill(~real[:, 1:, None], 0.0)
    others = torch.where(real, choices.correction.exp(), torch.zeros(()))[:, 1:]
    count, theta, known = len(ahead), weights * spread, prior * spread[far]

    def gain(said: Tensor) -> Tensor:
        return (HALF / (HALF + (torch.sigmoid(said) * others).sum(1))).mean()

    if free[far]:
        said, word = ahead @ theta, ahead[:, :, far]
        gains = [gain(said + by * word) - FAR_RIDGE / count * (theta[far] + by - known) ** 2 for by in FAR]
        theta[far] += FAR[int(torch.stack(gains).argmax())]
    begin = theta.clone()
    ahead, begin_at = ahead * free, ahead @ (begin * ~free)
    theta = ascend(lambda x: gain(ahead @ x + begin_at) - RIDGE / count * ((x - begin) ** 2).sum(), begin)
    return torch.where(free, theta / spread, weights)
