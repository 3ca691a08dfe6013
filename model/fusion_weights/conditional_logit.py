"""Weights of a few signals from what users chose: McFadden's conditional logit, with a floor under each choice.

    p = exp(θ · x_target) / Σ_j exp(θ · x_j)          L(θ) = -mean log(p + floor) + ridge / T · |θ - θ_0|²

x_j are the signals of alternative j. With floor = 0 this is the maximum likelihood, and choices that nothing predicts
dominate it. With a floor a choice whose p is far below it no longer counts, and one that is nearly right does. That
follows NDCG@10 much better (benchmarks/README.md), but has several optima: the descent starts from the maximum
likelihood. The ridge holds the weights near those known before: a few hours of clicks are not like the next.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

PROBABILITY_FLOOR = 0.03
RIDGE = 20.0
"""The prior counts as much as a few dozen choices, however many there are."""
MAX_STEPS = 60
"""Of L-BFGS, for each floor."""


class Choice(NamedTuple):
    """One choice among C alternatives."""

    signals: Tensor
    """[C, F] the signals of each alternative; the item that was chosen comes first."""
    correction: Tensor
    """[C] log of how many items an alternative stands for."""


class ChoiceSets(NamedTuple):
    """T choices side by side, padded to the longest."""

    signals: Tensor
    """[T, C, F]."""
    correction: Tensor
    """[T, C]; -inf for padding."""

    @classmethod
    def empty(cls, choices: int, alternatives: int, signals: int) -> "ChoiceSets":
        """Padding alone, [choices, alternatives, signals]."""
        return cls(torch.zeros(choices, alternatives, signals), torch.full((choices, alternatives), -torch.inf))

    @classmethod
    def pad(cls, choices: Sequence[Choice]) -> "ChoiceSets":
        """One choice or more, side by side.

        >>> few, many = (Choice(torch.ones(n, 2), torch.zeros(n)) for n in (1, 3))
        >>> ChoiceSets.pad([few, many]).correction.tolist()
        [[0.0, -inf, -inf], [0.0, 0.0, 0.0]]
        """
        sets = cls.empty(len(choices), max(len(c.correction) for c in choices), choices[0].signals.shape[1])
        for row, choice in enumerate(choices):
            sets.put(row, choice)
        return sets

    def put(self, row: int, choice: Choice) -> None:
        """Write a choice into a row of padding."""
        alternatives = len(choice.correction)
        self.signals[row, :alternatives], self.correction[row, :alternatives] = choice


def fit(choices: ChoiceSets, free: Tensor, prior: Tensor, not_negative: Sequence[int] = ()) -> tuple[Tensor, float]:
    """Weights [F] and the loss they reach; weights that are not `free` [F] (bool) stay 0.

    `prior` [F] is θ_0. A signal of `not_negative` whose weight would be below 0 gets 0. Deterministic. Within, signals
    are scaled to unit spread, so that the ridge means the same for each.
    """
    weights, reached = _fit(choices, free, prior)
    while len(negative := [signal for signal in not_negative if weights[signal] < 0]):
        free = free.clone()
        free[negative] = False
        weights, reached = _fit(choices, free, prior)
    return weights, reached


def _fit(choices: ChoiceSets, free: Tensor, prior: Tensor) -> tuple[Tensor, float]:
    real = torch.isfinite(choices.correction)
    spread = choices.signals[real].std(0).clamp(min=1e-6)
    signals = choices.signals / spread * free
    known = prior * spread * free
    weights = known
    for floor in (0.0, PROBABILITY_FLOOR):
        weights = _descend(signals, choices.correction, weights, known, floor)
    with torch.no_grad():
        reached = loss(signals, choices.correction, weights, known, PROBABILITY_FLOOR).item()
    return weights * free / spread, reached


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
