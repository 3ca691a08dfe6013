"""Weights of a few signals, fitted to the choices of users: McFadden's conditional logit, with a floor.

    p = exp(θ · x_target) / Σ_j exp(θ · x_j)          L(θ) = -mean log(p + floor) + ridge / T · |θ - θ_0|²

x_j are the signals of alternative j. With floor = 0 the weights have the maximum likelihood, and choices that no signal
predicts dominate them. With a floor, choices with p far below it have little effect. The result follows NDCG@10 much
better (benchmarks/README.md), but L has several optima, so the descent starts from the maximum likelihood. The ridge
keeps the weights near the prior θ_0, because a few hours of clicks are not typical of the next hours.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

PROBABILITY_FLOOR = 0.03
"""The floor of L."""
RIDGE = 20.0
"""The ridge of L. The prior counts as much as a few dozen choices, for any number of choices."""
MAX_STEPS = 60
"""Steps of L-BFGS for each floor."""


class Choice(NamedTuple):
    """One choice among C alternatives."""

    signals: Tensor
    """[C, F] the signals of each alternative. The chosen item is first."""
    correction: Tensor
    """[C] log of how many items an alternative stands for."""


class ChoiceSets(NamedTuple):
    """T choices side by side, padded to the longest."""

    signals: Tensor
    """[T, C, F] signals."""
    correction: Tensor
    """[T, C] corrections; -inf for padding."""

    @classmethod
    def empty(cls, choices: int, alternatives: int, signals: int) -> "ChoiceSets":
        """Choice sets of padding only, [choices, alternatives, signals]."""
        return cls(torch.zeros(choices, alternatives, signals), torch.full((choices, alternatives), -torch.inf))

    @classmethod
    def pad(cls, choices: Sequence[Choice]) -> "ChoiceSets":
        """Choice sets of one or more choices.

        >>> few, many = (Choice(torch.ones(n, 2), torch.zeros(n)) for n in (1, 3))
        >>> ChoiceSets.pad([few, many]).correction.tolist()
        [[0.0, -inf, -inf], [0.0, 0.0, 0.0]]
        """
        sets = cls.empty(len(choices), max(len(c.correction) for c in choices), choices[0].signals.shape[1])
        for row, choice in enumerate(choices):
            sets.put(row, choice)
        return sets

    def put(self, row: int, choice: Choice) -> None:
        """Write a choice into row `row`."""
        alternatives = len(choice.correction)
        self.signals[row, :alternatives], self.correction[row, :alternatives] = choice


def fit(choices: ChoiceSets, free: Tensor, prior: Tensor, not_negative: Sequence[int] = ()) -> tuple[Tensor, float]:
    """Fit weights [F]; returns them and their loss. Weights that are not `free` [F] (bool) stay 0.

    `prior` [F] is θ_0. A signal of `not_negative` whose weight would be below 0 gets 0. Signals are scaled to unit
    spread inside, so that the ridge has the same effect on each. Deterministic.
    """
    weights, final_loss = _fit(choices, free, prior)
    while len(negative := [signal for signal in not_negative if weights[signal] < 0]):
        free = free.clone()
        free[negative] = False
        weights, final_loss = _fit(choices, free, prior)
    return weights, final_loss


def _fit(choices: ChoiceSets, free: Tensor, prior: Tensor) -> tuple[Tensor, float]:
    real = torch.isfinite(choices.correction)
    spread = choices.signals[real].std(0).clamp(min=1e-6)
    signals = choices.signals / spread * free
    known = prior * spread * free
    weights = known
    for floor in (0.0, PROBABILITY_FLOOR):
        weights = _descend(signals, choices.correction, weights, known, floor)
    with torch.no_grad():
        final_loss = loss(signals, choices.correction, weights, known, PROBABILITY_FLOOR).item()
    return weights * free / spread, final_loss


def loss(signals: Tensor, correction: Tensor, weights: Tensor, prior: Tensor, floor: float) -> Tensor:
    """L(θ) of scaled signals [T, C, F], a scalar."""
    scores = signals @ weights + correction
    chosen = scores[:, 0] - torch.logsumexp(scores, 1)
    log_p = chosen if floor == 0.0 else torch.log(chosen.exp() + floor)
    return RIDGE / len(signals) * ((weights - prior) ** 2).sum() - log_p.mean()


def _descend(signals: Tensor, correction: Tensor, start: Tensor, prior: Tensor, floor: float) -> Tensor:
    weights = start.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([weights], max_iter=MAX_STEPS, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(signals, correction, weights, prior, floor)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()
