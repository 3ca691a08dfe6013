"""Fusion weights that are fitted to the newest clicks between two versions.

The fit has the same loss, ridge and search as `model.fusion_weights.fit_weights`. The prior θ_0 is the version's own
weights, so that the served weights stay near the weights that passed the gate. The signals of a click are computed
before the graph applies it.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.fusion_weights.choice_sets import build_choices
from model.fusion_weights.conditional_logit import Choice, ChoiceSets, fit
from model.fusion_weights.ndcg_search import best_weight
from model.ranking.fusion import Fusion, Learned, Signal
from model.ranking.stages import LiveGraph, Stages
from model.settings import MIN_FUSION_EVENTS, RankingSettings
from state.events import Ids
from state.sequences import Sequences, of_users

MAX_CLICKS_PER_UPDATE = 16
MAX_SCORES_PER_UPDATE = 1 << 19
"""Cells of a signal that an update may compute. With a large catalogue it samples fewer clicks."""
FITS_PER_WINDOW = 5
"""Number of fits in the time in which the window of newest clicks is replaced once."""
NON_NEGATIVE_SIGNALS = (Signal.MODEL, Signal.POPULARITY, Signal.EVIDENCE)


class OnlineFusion:
    """The weights of one version, fitted to the newest clicks."""

    def __init__(self, chosen: Fusion, settings: RankingSettings, seed: int = 0) -> None:
        """`chosen` are the version's own weights, or the weights that an operator has set in their place."""
        self._chosen, self._settings = chosen, settings
        self._prior = chosen.as_tensor()
        self._free = free_signals(chosen, settings)
        self._window: deque[Choice] = deque(maxlen=settings.online_clicks)
        self._since_fit = 0
        self._clicks_for_fit = MIN_FUSION_EVENTS
        self._alternatives_draw = torch.Generator().manual_seed(seed)
        self._clicks_draw = np.random.default_rng(seed)
        self.clicks = 0
        """Number of clicks learned from."""
        self.fusion = chosen
        """The present weights."""

    def update(self, stages: Stages, before: Sequences, targets: Ids, graph: LiveGraph) -> None:
        """Learn from a sample of these clicks. Clicks on items that the version does not know are left out.

        `before` are the users' histories before the clicks. The graph must not have applied the clicks yet.
        """
        known = np.flatnonzero(stages.vocabulary.lookup(targets) > 0)
        sample_size = max(1, min(MAX_CLICKS_PER_UPDATE, MAX_SCORES_PER_UPDATE // (len(stages.vocabulary) + 1)))
        sampled = np.zeros(len(targets), bool)
        sampled[self._clicks_draw.permutation(known)[:sample_size]] = True
        if sampled.any():
            histories = of_users(before, sampled)
            self.update_with(
                build_choices(stages, histories, targets[sampled], graph, self._settings, self._alternatives_draw)
            )

    def update_with(self, choices: Sequence[Choice]) -> None:
        """Learn from choices with [C, 4] signals each. Fits the weights again when enough of the window is new."""
        self._window.extend(choices)
        self.clicks += len(choices)
        self._since_fit += len(choices)
        enough = len(self._window) >= self._clicks_for_fit
        if enough and self._since_fit * FITS_PER_WINDOW >= self._settings.online_clicks:
            self._since_fit = 0
            self._fit(ChoiceSets.pad(self._window))

    @property
    def learned(self) -> Learned:
        """The present weights, as they are stored for a restart."""
        return Learned(self._chosen, self.fusion, self.clicks)

    def resume(self, learned: Learned) -> None:
        """Continue from stored weights. Weights fitted for another version are ignored.

        They stay until there are as many new clicks as they were fitted to.
        """
        if learned.chosen == self._chosen:
            self._continue(learned.clicks, learned.fusion.as_tensor())

    def carry_over(self, learned: Learned) -> None:
        """Add the difference between another version's fitted and own weights to this version's own weights."""
        if learned.clicks:
            moved = learned.fusion.as_tensor() - learned.chosen.as_tensor()
            self._continue(learned.clicks, self._prior + moved)

    def keep_clicks_of(self, other: "OnlineFusion") -> None:
        """Start with the newest clicks of the previous version, until this version has enough of its own."""
        self._window.extend(other._window)

    def _continue(self, clicks: int, weights: Tensor) -> None:
        self.clicks = clicks
        self._clicks_for_fit = max(MIN_FUSION_EVENTS, min(clicks, self._settings.online_clicks))
        self._set(weights)

    def _set(self, weights: Tensor) -> None:
        weights = weights.clone()
        weights[list(NON_NEGATIVE_SIGNALS)] = weights[list(NON_NEGATIVE_SIGNALS)].clamp(min=0.0)
        self.fusion = Fusion.from_tensor(torch.where(self._free, weights, self._prior), self._chosen.before)

    def _fit(self, choices: ChoiceSets) -> None:
        fixed = torch.where(self._free, 0.0, self._prior)
        # Signals of a fixed weight become part of the correction.
        with_fixed = ChoiceSets(choices.signals, choices.correction + choices.signals @ fixed)
        weights = fit(with_fixed, self._free, self._prior, NON_NEGATIVE_SIGNALS)[0] + fixed
        if self._free[Signal.REPEAT]:
            weights = best_weight(choices, weights, Signal.REPEAT, self._chosen.repeat)
        self._set(weights)


def free_signals(chosen: Fusion, settings: RankingSettings) -> Tensor:
    """[4] bool: whether the weight may change. It may not if an operator has set it or if it is 0 in the version."""
    set_by_operator = {
        Signal.REPEAT: settings.repeat_weight,
        Signal.POPULARITY: settings.popularity_weight,
        Signal.EVIDENCE: settings.evidence_weight,
    }
    return torch.tensor([chosen.weight_of(s) != 0.0 and set_by_operator.get(s) is None for s in Signal])
