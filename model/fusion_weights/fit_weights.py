"""A version's fusion weights, chosen on its holdout.

The weights are the likeliest for the held-out choices, near the weights of the champion (`conditional_logit`). The
weight of repeats is then moved to the best NDCG@10 (`ndcg_search`). Only the weight of repeats may be below 0.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch

from model.encoders.create import Create
from model.encoders.vocabulary import Vocabulary
from model.fusion_weights.choice_sets import BEFORE_SHARES, build_choice_sets
from model.fusion_weights.conditional_logit import ChoiceSets, fit
from model.fusion_weights.holdout import Holdout
from model.fusion_weights.ndcg_search import best_weight
from model.ranking.fusion import INITIAL_FUSION, Fusion, Signal
from model.settings import MIN_FUSION_EVENTS, RankingSettings


def choose_fusion(
    holdout: Holdout,
    model: Create,
    vocabulary: Vocabulary,
    settings: RankingSettings,
    prior: Fusion = INITIAL_FUSION,
    without: Collection[Signal] = (),
) -> Fusion:
    """Weights that predict the held-out events best, near `prior`. Signals of `without` get no weight."""
    choices = build_choice_sets(holdout, model, vocabulary, settings)
    return fit_fusion(choices, BEFORE_SHARES, settings, prior, without)


class CrossFit(NamedTuple):
    """Fusion weights, and weights with which the same events can be tested."""

    fusion: Fusion
    """Chosen on all events."""
    halves: tuple[Fusion, Fusion]
    """Weights chosen on each half of the users."""
    half: np.ndarray
    """[T] half of each test, 0 or 1. A test uses the weights of the other half."""


def cross_fit_fusion(
    holdout: Holdout, model: Create, vocabulary: Vocabulary, settings: RankingSettings, prior: Fusion
) -> CrossFit:
    """`choose_fusion` on all held-out events, and on each half of their users."""
    choices = build_choice_sets(holdout, model, vocabulary, settings)
    fusion = fit_fusion(choices, BEFORE_SHARES, settings, prior)
    _, user = np.unique(holdout.sequences.users, return_inverse=True)
    half = user % 2
    of_choice = torch.from_numpy(half[vocabulary.lookup(holdout.targets) > 0])
    first, second = (
        fit_fusion(ChoiceSets(*(part[of_choice == n] for part in choices)), (fusion.before,), settings, prior)
        for n in (0, 1)
    )
    return CrossFit(fusion, (first, second), half)


def fit_fusion(
    choices: ChoiceSets,
    before_shares: tuple[float, ...],
    settings: RankingSettings,
    prior: Fusion,
    without: Collection[Signal] = (),
) -> Fusion:
    """The likeliest weights for the choices, with the best of `before_shares`; `prior` if there are too few choices.

    `choices` are those of `build_choice_sets`. One of their forms of the evidence gets a weight.
    """
    if len(choices.signals) < MIN_FUSION_EVENTS:
        return prior
    fits_repeat = not settings.filter_seen and Signal.REPEAT not in without
    evidence = torch.full((len(BEFORE_SHARES) - 1,), prior.evidence)
    known = torch.cat([prior.as_tensor(), evidence])
    best, best_before, best_loss = None, prior.before, np.inf
    for before in before_shares:
        index = {signal: int(signal) for signal in Signal} | {Signal.EVIDENCE: evidence_index(before)}
        free = torch.zeros(len(known), dtype=torch.bool)
        free[[at for signal, at in index.items() if signal not in without]] = True
        free[Signal.REPEAT] = fits_repeat
        not_negative = [at for signal, at in index.items() if signal != Signal.REPEAT]
        weights, loss = fit(choices, free, known, not_negative)
        if loss < best_loss:
            best, best_before, best_loss = weights, before, loss
    if best is None:
        return prior
    if fits_repeat:
        best = best_weight(choices, best, Signal.REPEAT, prior.repeat)
    best[Signal.EVIDENCE] = best[evidence_index(best_before)]
    return Fusion.from_tensor(best, best_before)


def evidence_index(before: float) -> int:
    """Index of the evidence with this share among the signals of a choice set."""
    return Signal.EVIDENCE + BEFORE_SHARES.index(before)
