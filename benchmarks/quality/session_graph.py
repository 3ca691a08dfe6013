"""What the live graph says of every item, counted over millions of sessions at once, and what that is worth.

The product's words (model/ranking/graph_evidence.py, model/ranking/popularity.py) and its choice of their weights
(model/fusion_weights/fit_weights.py). The
graph of the product takes one event after the other in; here scipy counts whole periods, and an age is whole periods.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from model.encoders.histories import Histories
from model.fusion_weights.choice_sets import BEFORE_SHARES, SAMPLED_NEGATIVES, TOP_PER_SIGNAL, sample_alternatives
from model.fusion_weights.conditional_logit import ChoiceSets
from model.fusion_weights.fit_weights import fit_fusion
from model.ranking.fusion import Fusion
from model.ranking.graph_evidence import EVIDENCE_SHARPNESS
from model.ranking.popularity import POPULARITY_SHARPNESS
from model.settings import RankingSettings, TrainingSettings
from state.settings import StateSettings

SETTINGS, STATE = RankingSettings(), StateSettings()
CHOSEN_ON = TrainingSettings().holdout_events
"""Tests that weights are chosen on, at most."""
AT_ONCE = 128


class SessionGraph(NamedTuple):
    """Counts of all sessions so far."""

    after: sp.csr_matrix
    """[n + 1, n + 1], as `pairs` counts."""
    clicks: np.ndarray
    """[n + 1] of each item."""
    lately: np.ndarray
    """[n + 1] the same, halved with `state.popularity_half_life_s`."""

    @classmethod
    def of(cls, periods: list[Histories], items: int, period_s: float) -> "SessionGraph":
        """The graph after these periods."""
        faded = 0.5 ** (period_s / STATE.popularity_half_life_s)
        after = sp.csr_matrix((items + 1, items + 1), dtype=np.float32)
        clicks, lately = np.zeros(items + 1, np.int64), np.zeros(items + 1, np.float32)
        for sessions in periods:
            after += pairs(sessions, items)
            counted = np.bincount(sessions.items, minlength=items + 1)
            clicks += counted
            lately = lately * np.float32(faded) + counted
        return cls(after, clicks, lately.astype(np.float32))

    def spoken(self, before: float) -> sp.csr_matrix:
        """c(i, j) of model/ranking/graph_evidence.py, β = `before`."""
        counts = self.after + before * self.after.T
        said = 1 / np.sqrt(np.maximum(np.asarray(counts.sum(1)).ravel(), 1e-9))
        clicks = 1 / np.sqrt(np.maximum(self.clicks, 1))
        return (sp.diags(said.astype(np.float32)) @ counts @ sp.diags(clicks.astype(np.float32))).tocsr()

    def popularity(self) -> Tensor:
        """p of all items, [1, n + 1]."""
        return torch.from_numpy(np.log1p(POPULARITY_SHARPNESS * self.lately))[None]

    def repeats(self, before: Histories) -> Tensor:
        """r of all items, [B, n + 1]."""
        said = aged(before, SETTINGS.repeat_decay, len(self.clicks))
        return torch.from_numpy(np.log1p(said.toarray()))


def pairs(sessions: Histories, items: int) -> sp.csr_matrix:
    """How often j came after i within `state.pair_window_events` steps, each time 1 / lag, [n + 1, n + 1]."""
    users, shape = sessions.users, (items + 1, items + 1)
    counts = sp.csr_matrix(shape, dtype=np.float32)
    for lag in range(1, STATE.pair_window_events + 1):
        same = np.flatnonzero(users[lag:] == users[:-lag])
        weight = np.full(len(same), 1 / lag, np.float32)
        counts += sp.csr_matrix((weight, (sessions.items[same], sessions.items[same + lag])), shape=shape)
    return counts.tocsr()


def aged(before: Histories, decay: float, columns: int) -> sp.csr_matrix:
    """decay^a for every item of age a, [B, columns]; 0 is the age of the newest."""
    age = before.ages
    users = before.users
    weight = np.power(decay, age).astype(np.float32)
    return sp.csr_matrix((weight, (users, before.items)), shape=(len(before), columns))


def evidence(before: Histories, spoken: sp.csr_matrix) -> Tensor:
    """t of all items, [B, n + 1]."""
    said = aged(before.newest(SETTINGS.history_items), SETTINGS.age_decay, spoken.shape[0]) @ spoken
    said.data = np.log1p(EVIDENCE_SHARPNESS * said.data)
    return torch.from_numpy(said.toarray())


class Fused:
    """Scores of the model and the graph together."""

    def __init__(self, graph: SessionGraph, fusion: Fusion) -> None:
        self._graph, self._fusion = graph, fusion
        self._spoken, self._popularity = graph.spoken(fusion.before), graph.popularity()

    def scores(self, model: Tensor, before: Histories) -> Tensor:
        """[B, n + 1] of the model's own."""
        fusion = self._fusion
        scores = fusion.model * model + fusion.popularity * self._popularity
        if fusion.repeat:
            scores.add_(self._graph.repeats(before), alpha=fusion.repeat)
        if fusion.evidence:
            scores.add_(evidence(before, self._spoken), alpha=fusion.evidence)
        return scores


def chosen(
    graph: SessionGraph, encoded: Tensor, table: Tensor, before: Histories, targets: np.ndarray, prior: Fusion
) -> Fusion:
    """Weights that foretell these targets, or an even draw of CHOSEN_ON of them, as the product chooses a version's.

    `encoded` [T, d] are the tests' h_u and `table` [d, n + 1] the item rows. Weights stay near `prior`.
    """
    rows = np.sort(np.random.default_rng(0).permutation(len(targets))[:CHOSEN_ON])
    spoken, popularity = [graph.spoken(b) for b in BEFORE_SHARES], graph.popularity()[0]
    draw, possible = torch.Generator().manual_seed(0), torch.ones(table.shape[1], dtype=torch.bool)
    possible[0] = False
    most = 1 + sum(TOP_PER_SIGNAL) + SAMPLED_NEGATIVES
    words, corrections = torch.zeros(len(rows), most, 3 + len(BEFORE_SHARES)), torch.full((len(rows), most), -torch.inf)
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        asked = before.take(part)
        by_user = [encoded[part] @ table, graph.repeats(asked), *(evidence(asked, c) for c in spoken)]
        for row, target in enumerate(targets[part].tolist()):
            own, repeat, *said = [word[row] for word in by_user]
            told = [own, repeat, popularity, *said]
            items, correction = sample_alternatives(torch.tensor(target), possible, told, draw)
            words[start + row, : len(items)] = torch.stack([word[items] for word in told], 1)
            corrections[start + row, : len(items)] = correction
    return fit_fusion(ChoiceSets(words, corrections), BEFORE_SHARES, SETTINGS, prior)
