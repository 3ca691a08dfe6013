"""Weights of a few words from what people chose: McFadden's conditional logit, told to mind the top of the list.

    p = exp(θ · x_target) / Σ_j exp(θ · x_j)          L(θ) = -mean log(p + floor) + ridge / T · |θ - θ_0|²

x_j are the words for candidate j. With floor = 0 this is the maximum likelihood, and choices that nothing could have
foretold rule it; from a floor on, a choice below it no longer counts, and what is nearly right does. That follows
NDCG@10 far better (docs/model.md has the figures), but has other optima: it starts from the maximum likelihood.
The ridge holds the weights near what was known before: some hours of shopping are not like the next.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = 0.03
RIDGE = 20.0
"""The prior counts as much as a few dozen choices, however many there are."""
STEPS = 60


class ChoiceSets(NamedTuple):
    """What was chosen, among what."""

    signals: Tensor
    """[T, C, F] what each word says of each candidate; the chosen one comes first."""
    correction: Tensor
    """[T, C] log of how many items a candidate stands for; -inf where there is none."""


def fit(choices: ChoiceSets, free: Tensor, prior: Tensor, positive: Sequence[int] = ()) -> tuple[Tensor, float]:
    """Weights [F] and the loss they reach; weights not `free` [F] (bool) stay 0.

    `prior` [F] is what was known before, θ_0. A word of those `positive` whose weight would be below 0 weighs nothing.
    Deterministic. Words are scaled to unit spread within, so that the ridge means the same for each.
    """
    weights, reached = _fit(choices, free, prior)
    while len(wrong := [word for word in positive if weights[word] < 0]):
        free = free.clone()
        free[wrong] = False
        weights, reached = _fit(choices, free, prior)
    return weights, reached


def _fit(choices: ChoiceSets, free: Tensor, prior: Tensor) -> tuple[Tensor, float]:
    real = torch.isfinite(choices.correction)
    spread = choices.signals[real].std(0).clamp(min=1e-6)
    words = choices.signals / spread * free
    known = prior * spread * free
    weights = known
    for floor in (0.0, FLOOR):
        weights = _descend(words, choices.correction, weights, known, floor)
    with torch.no_grad():
        reached = loss(words, choices.correction, weights, known, FLOOR).item()
    return weights * free / spread, reached


def loss(words: Tensor, correction: Tensor, weights: Tensor, prior: Tensor, floor: float) -> Tensor:
    """L(θ) of scaled words, a scalar."""
    scores = words @ weights + correction
    chosen = scores[:, 0] - torch.logsumexp(scores, 1)
    unlikely = chosen if floor == 0.0 else torch.log(chosen.exp() + floor)
    return RIDGE / len(words) * ((weights - prior) ** 2).sum() - unlikely.mean()


def _descend(words: Tensor, correction: Tensor, start: Tensor, prior: Tensor, floor: float) -> Tensor:
    weights = start.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([weights], max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss(words, correction, weights, prior, floor)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()
