"""Fusion weights learned between versions, from what users click next: a conditional logit, a step a batch.

    g = mean p/(p + floor) · (x_target − Σ_j p_j x_j) − ridge · (θ − θ_0)        θ ← θ + rate · g / √G

θ_0 are the version's own weights and G sums g² (AdaGrad, Duchi et al., 2011). Words are scaled to unit spread, and no
scaled weight leaves θ_0 by more than `bound`: whatever comes, what is served stays near what passed the gate. x is what
`model.holdout` chooses weights from, as the graph has it before the click is taken in, so the loss is the same one.
"""

import numpy as np
import torch

from model.conditional_logit import FLOOR, RIDGE, Choices
from model.fusion import Fusion, Learned
from model.holdout import EVIDENCE, MODEL, POPULARITY, REPEAT, candidates, could_come
from model.ranking import LiveGraph, Ranking
from model.settings import RankingSettings
from state.events import Ids
from state.sequences import Sequences, of_users

AT_MOST = 16
"""Clicks learned from at once."""
CELLS = 1 << 19
"""Scores made for that, at most: of a large catalogue fewer clicks are learned from."""
WINDOW = 2000
"""Clicks in the light of which the version's weights are worth what they are where a version's are chosen."""


class OnlineFusion:
    """One version's weights as they go on."""

    def __init__(self, chosen: Fusion, settings: RankingSettings, seed: int = 0) -> None:
        self._chosen, self._settings = chosen, settings
        self._theta = self._begin = torch.tensor(_as_words(chosen))
        self._free = torch.tensor(_free(chosen, settings))
        self._squares = torch.zeros(4)
        self._spread = torch.zeros(4)
        self._draw = torch.Generator().manual_seed(seed)
        self._choose = np.random.default_rng(seed)
        self.clicks = 0
        self.fusion = chosen

    def learn(self, ranking: Ranking, before: Sequences, targets: Ids, graph: LiveGraph) -> None:
        """One step on some of these clicks, each with its user's history before it; the graph knows none of them."""
        known = np.flatnonzero(ranking.vocabulary.lookup(targets) > 0)
        most = max(1, min(AT_MOST, CELLS // (len(ranking.vocabulary) + 1)))
        chosen = np.zeros(len(targets), bool)
        chosen[self._choose.permutation(known)[:most]] = True
        if chosen.any():
            self._step(asked(ranking, of_users(before, chosen), targets[chosen], graph, self._settings, self._draw))

    @property
    def learned(self) -> Learned:
        """Where the weights stand, to be kept."""
        return Learned(self._chosen, self.fusion, self.clicks, self._squares.tolist(), self._spread.tolist())

    def resume(self, learned: Learned) -> None:
        """Go on from there; what was learned of other weights is not heeded."""
        if learned.chosen == self._chosen:
            self.clicks = learned.clicks
            self._squares, self._spread = torch.tensor(learned.squares), torch.tensor(learned.spread)
            self._set(torch.tensor(_as_words(learned.fusion)))

    def carry(self, learned: Learned) -> None:
        """Begin as far from these weights as those of another version had come from its own."""
        if learned.clicks:
            self.clicks = learned.clicks
            self._squares, self._spread = torch.tensor(learned.squares), torch.tensor(learned.spread)
            moved = torch.tensor(_as_words(learned.fusion)) - torch.tensor(_as_words(learned.chosen))
            self._set(self._begin + moved)

    def _set(self, theta: torch.Tensor) -> None:
        theta = torch.where(torch.tensor(_may_be_negative()), theta, theta.clamp(min=0.0))
        self._theta = torch.where(self._free, theta, self._begin)
        said = self._theta.tolist()
        self.fusion = Fusion(said[MODEL], said[EVIDENCE], said[REPEAT], said[POPULARITY], self._chosen.before)

    def _step(self, choices: Choices) -> None:
        real = torch.isfinite(choices.correction)
        self._spread += 0.1 * (choices.words[real].std(0) - self._spread) if self.clicks else choices.words[real].std(0)
        spread = self._spread.clamp(min=1e-6)
        words = torch.where(real[:, :, None], choices.words, 0.0) / spread
        theta, begin = self._theta * spread, self._begin * spread
        likely = torch.softmax(words @ theta + choices.correction, 1)
        p = likely[:, 0]
        gain = (p / (p + FLOOR))[:, None] * (words[:, 0] - torch.einsum("tc,tcf->tf", likely, words))
        step = gain.mean(0) - RIDGE / WINDOW * (theta - begin)
        self._squares += step**2
        theta = theta + self._settings.online_rate * step / (self._squares.sqrt() + 1e-6)
        theta = torch.clamp(theta, begin - self._settings.online_bound, begin + self._settings.online_bound)
        self._set(theta / spread)
        self.clicks += len(words)


def asked(
    ranking: Ranking,
    before: Sequences,
    targets: Ids,
    graph: LiveGraph,
    settings: RankingSettings,
    draw: torch.Generator,
) -> Choices:
    """What each word says of each target and of the items that could have come instead."""
    said = ranking.words(before, graph)
    found = torch.from_numpy(ranking.vocabulary.lookup(targets))
    possible = could_come(before, ranking.vocabulary, settings)
    parts = []
    for row in range(len(targets)):
        items, correction = candidates(found[row], possible[row], list(said[:, row]), draw)
        parts.append((said[:, row, items].T, correction))
    most = max(len(correction) for _, correction in parts)
    words = torch.zeros(len(parts), most, len(said))
    corrections = torch.full((len(parts), most), -torch.inf)
    for row, (word, correction) in enumerate(parts):
        words[row, : len(word)], corrections[row, : len(word)] = word, correction
    return Choices(words, corrections)


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
