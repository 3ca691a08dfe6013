"""Fusion weights chosen anew between versions, on the newest clicks, as `model.fusion_weights.holdout` chose the
version's.

x is what each word says before the click is taken in, θ_0 are the version's own weights, and loss, ridge and placing
are the same: what is served stays as near what passed the gate as that is near the version before it.
"""

from collections import deque

import numpy as np
import torch
from torch import Tensor

from model.fusion_weights.conditional_logit import ChoiceSets, fit
from model.fusion_weights.holdout import EVIDENCE, MODEL, POPULARITY, REPEAT, eligible_items, sample_alternatives
from model.fusion_weights.ndcg_search import best_weight
from model.ranking.fusion import Fusion, Learned
from model.ranking.ranker import LiveGraph, Ranker
from model.settings import FEW, RankingSettings
from state.events import Ids
from state.sequences import Sequences, of_users

AT_MOST = 16
"""Clicks learned from at once."""
MAX_SCORES_PER_BATCH = 1 << 19
"""Scores made for that, at most: of a large catalogue fewer clicks are learned from."""
OFTEN = 5
"""Weights are chosen anew so often while the clicks that they are chosen on are replaced once."""


class OnlineFusion:
    """One version's weights as they go on."""

    def __init__(self, chosen: Fusion, settings: RankingSettings, seed: int = 0) -> None:
        self._chosen, self._settings = chosen, settings
        self._begin = torch.tensor(_as_words(chosen))
        self._free = torch.tensor(_free(chosen, settings))
        self._newest: deque[tuple[Tensor, Tensor]] = deque(maxlen=settings.online_clicks)
        """Words [C, 4] and correction [C] of each click's candidates."""
        self._since = 0
        self._enough = FEW
        self._draw = torch.Generator().manual_seed(seed)
        self._choose = np.random.default_rng(seed)
        self.clicks = 0
        self.fusion = chosen

    def update(self, ranking: Ranker, before: Sequences, targets: Ids, graph: LiveGraph) -> None:
        """Take some of these clicks in, each with its user's history before it; the graph knows none of them."""
        known = np.flatnonzero(ranking.vocabulary.lookup(targets) > 0)
        most = max(1, min(AT_MOST, MAX_SCORES_PER_BATCH // (len(ranking.vocabulary) + 1)))
        chosen = np.zeros(len(targets), bool)
        chosen[self._choose.permutation(known)[:most]] = True
        if chosen.any():
            self._take(asked(ranking, of_users(before, chosen), targets[chosen], graph, self._settings, self._draw))

    @property
    def learned(self) -> Learned:
        """Where the weights stand, to be kept."""
        return Learned(self._chosen, self.fusion, self.clicks)

    def resume(self, learned: Learned) -> None:
        """Go on from there; what was learned of other weights is not heeded.

        They stay until as many clicks are there again as they were chosen on.
        """
        if learned.chosen == self._chosen:
            self._go_on(learned.clicks, torch.tensor(_as_words(learned.fusion)))

    def carry_over(self, learned: Learned) -> None:
        """Begin as far from these weights as those of another version had come from its own."""
        if learned.clicks:
            moved = torch.tensor(_as_words(learned.fusion)) - torch.tensor(_as_words(learned.chosen))
            self._go_on(learned.clicks, self._begin + moved)

    def keep_clicks_of(self, before: "OnlineFusion") -> None:
        """Choose on the newest clicks of the version before too, until there are enough of this one's."""
        self._newest.extend(before._newest)

    def _go_on(self, clicks: int, theta: Tensor) -> None:
        self.clicks, self._enough = clicks, max(FEW, min(clicks, self._settings.online_clicks))
        self._set(theta)

    def _set(self, theta: Tensor) -> None:
        theta = torch.where(torch.tensor(_may_be_negative()), theta, theta.clamp(min=0.0))
        said = torch.where(self._free, theta, self._begin).tolist()
        self.fusion = Fusion(said[MODEL], said[EVIDENCE], said[REPEAT], said[POPULARITY], self._chosen.before)

    def _take(self, clicks: list[tuple[Tensor, Tensor]]) -> None:
        self._newest.extend(clicks)
        self.clicks += len(clicks)
        self._since += len(clicks)
        if len(self._newest) >= self._enough and self._since * OFTEN >= self._settings.online_clicks:
            self._since = 0
            self._choose_anew(padded(list(self._newest)))

    def _choose_anew(self, choices: ChoiceSets) -> None:
        stays = torch.where(self._free, 0.0, self._begin)
        with_it = ChoiceSets(choices.signals, choices.correction + choices.signals @ stays)
        found = fit(with_it, self._free, self._begin, (MODEL, POPULARITY, EVIDENCE))[0] + stays
        if self._free[REPEAT]:
            found = best_weight(choices, found, REPEAT, self._chosen.repeat)
        self._set(found)


def asked(
    ranking: Ranker,
    before: Sequences,
    targets: Ids,
    graph: LiveGraph,
    settings: RankingSettings,
    draw: torch.Generator,
) -> list[tuple[Tensor, Tensor]]:
    """What each word says of each target and of the items that could have come instead; what each of them counts."""
    said = ranking.signals(before, graph)
    found = torch.from_numpy(ranking.vocabulary.lookup(targets))
    possible = eligible_items(before, ranking.vocabulary, settings)
    clicks = []
    for row in range(len(targets)):
        items, correction = sample_alternatives(found[row], possible[row], list(said[:, row]), draw)
        clicks.append((said[:, row, items].T, correction))
    return clicks


def padded(clicks: list[tuple[Tensor, Tensor]]) -> ChoiceSets:
    """All of them side by side."""
    most = max(len(correction) for _, correction in clicks)
    words = torch.zeros(len(clicks), most, clicks[0][0].shape[1])
    corrections = torch.full((len(clicks), most), -torch.inf)
    for row, (word, correction) in enumerate(clicks):
        words[row, : len(word)], corrections[row, : len(word)] = word, correction
    return ChoiceSets(words, corrections)


def _as_words(fusion: Fusion) -> list[float]:
    weights = [0.0] * 4
    weights[MODEL], weights[REPEAT] = fusion.model, fusion.repeat
    weights[POPULARITY], weights[EVIDENCE] = fusion.popularity, fusion.evidence
    return weights


def _free(chosen: Fusion, settings: RankingSettings) -> list[bool]:
    """What an operator has set stays, and so does what the version gives no weight."""
    free = [weight != 0.0 for weight in _as_words(chosen)]
    set_by_hand = {
        REPEAT: settings.repeat_weight,
        POPULARITY: settings.popularity_weight,
        EVIDENCE: settings.evidence_weight,
    }
    return [may and set_by_hand.get(word) is None for word, may in enumerate(free)]


def _may_be_negative() -> list[bool]:
    return [word == REPEAT for word in range(4)]
