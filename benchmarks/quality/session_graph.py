"""The live graph over millions of sessions: its signals for every item, and the choice of their weights.

Signals and choice are the product's (model/ranking/graph_evidence.py, model/ranking/item_counts.py,
model/fusion_weights/fit_weights.py). The product's graph applies events one by one. Here scipy counts a period at once,
and ages are whole periods.
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
from model.ranking.item_counts import POPULARITY_SHARPNESS
from model.settings import RankingSettings, TrainingSettings
from state.settings import StateSettings

SETTINGS, STATE = RankingSettings(), StateSettings()
MAX_WEIGHT_TESTS = TrainingSettings().holdout_events
"""Weights are chosen on at most this many tests."""
BATCH_TESTS = 128


class SessionGraph(NamedTuple):
    """Counts of all sessions so far."""

    after: sp.csr_matrix
    """[n + 1, n + 1] how often one item followed another, from `pairs`."""
    clicks: np.ndarray
    """[n + 1] clicks of each item."""
    recent_clicks: np.ndarray
    """[n + 1] clicks that fade with `state.popularity_half_life_s`."""

    @classmethod
    def of(cls, periods: list[Histories], items: int, period_s: float) -> "SessionGraph":
        """The graph after these periods."""
        fade = 0.5 ** (period_s / STATE.popularity_half_life_s)
        after = sp.csr_matrix((items + 1, items + 1), dtype=np.float32)
        clicks, recent_clicks = np.zeros(items + 1, np.int64), np.zeros(items + 1, np.float32)
        for sessions in periods:
            after += pairs(sessions, items)
            counted = np.bincount(sessions.items, minlength=items + 1)
            clicks += counted
            recent_clicks = recent_clicks * np.float32(fade) + counted
        return cls(after, clicks, recent_clicks.astype(np.float32))

    def weighted_pairs(self, before: float) -> sp.csr_matrix:
        """c(i, j) of model/ranking/graph_evidence.py with β = `before`, [n + 1, n + 1]."""
        counts = self.after + before * self.after.T
        by_pairs = 1 / np.sqrt(np.maximum(np.asarray(counts.sum(1)).ravel(), 1e-9))
        by_clicks = 1 / np.sqrt(np.maximum(self.clicks, 1))
        return (sp.diags(by_pairs.astype(np.float32)) @ counts @ sp.diags(by_clicks.astype(np.float32))).tocsr()

    def popularity(self) -> Tensor:
        """The popularity signal of all items, [1, n + 1]."""
        return torch.from_numpy(np.log1p(POPULARITY_SHARPNESS * self.recent_clicks))[None]

    def repeats(self, before: Histories) -> Tensor:
        """The repeat signal of all items, [B, n + 1]."""
        counts = decayed_by_age(before, SETTINGS.repeat_decay, len(self.clicks))
        return torch.from_numpy(np.log1p(counts.toarray()))


def pairs(sessions: Histories, items: int) -> sp.csr_matrix:
    """How often j followed i within `state.pair_window_events` steps, weighted by 1 / lag, [n + 1, n + 1]."""
    users, shape = sessions.users, (items + 1, items + 1)
    counts = sp.csr_matrix(shape, dtype=np.float32)
    for lag in range(1, STATE.pair_window_events + 1):
        same = np.flatnonzero(users[lag:] == users[:-lag])
        weight = np.full(len(same), 1 / lag, np.float32)
        counts += sp.csr_matrix((weight, (sessions.items[same], sessions.items[same + lag])), shape=shape)
    return counts.tocsr()


def decayed_by_age(before: Histories, decay: float, columns: int) -> sp.csr_matrix:
    """decay^a for every item of age a, [B, columns]. The newest item has age 0."""
    age = before.ages
    users = before.users
    weight = np.power(decay, age).astype(np.float32)
    return sp.csr_matrix((weight, (users, before.items)), shape=(len(before), columns))


def evidence(before: Histories, weighted: sp.csr_matrix) -> Tensor:
    """The evidence signal of all items, [B, n + 1]."""
    counts = decayed_by_age(before.newest(SETTINGS.history_items), SETTINGS.age_decay, weighted.shape[0]) @ weighted
    counts.data = np.log1p(EVIDENCE_SHARPNESS * counts.data)
    return torch.from_numpy(counts.toarray())


class Fused:
    """Scores of the model and the graph together."""

    def __init__(self, graph: SessionGraph, fusion: Fusion) -> None:
        self._graph, self._fusion = graph, fusion
        self._weighted_pairs, self._popularity = graph.weighted_pairs(fusion.before), graph.popularity()

    def scores(self, model: Tensor, before: Histories) -> Tensor:
        """Fused scores [B, n + 1] from those of the model alone."""
        fusion = self._fusion
        scores = fusion.model * model + fusion.popularity * self._popularity
        if fusion.repeat:
            scores.add_(self._graph.repeats(before), alpha=fusion.repeat)
        if fusion.evidence:
            scores.add_(evidence(before, self._weighted_pairs), alpha=fusion.evidence)
        return scores


def choose_weights(
    graph: SessionGraph, encoded: Tensor, table: Tensor, before: Histories, targets: np.ndarray, prior: Fusion
) -> Fusion:
    """Weights that predict these targets best, chosen as in the product on up to MAX_WEIGHT_TESTS random targets.

    `encoded` [T, d] are the encoded histories and `table` [d, n + 1] the item rows. Weights stay near `prior`.
    """
    rows = np.sort(np.random.default_rng(0).permutation(len(targets))[:MAX_WEIGHT_TESTS])
    weighted, popularity = [graph.weighted_pairs(b) for b in BEFORE_SHARES], graph.popularity()[0]
    draw, possible = torch.Generator().manual_seed(0), torch.ones(table.shape[1], dtype=torch.bool)
    possible[0] = False
    width = 1 + sum(TOP_PER_SIGNAL) + SAMPLED_NEGATIVES
    signals, corrections = (
        torch.zeros(len(rows), width, 3 + len(BEFORE_SHARES)),
        torch.full((len(rows), width), -torch.inf),
    )
    for start in range(0, len(rows), BATCH_TESTS):
        part = rows[start : start + BATCH_TESTS]
        histories = before.take(part)
        by_user = [encoded[part] @ table, graph.repeats(histories), *(evidence(histories, c) for c in weighted)]
        for row, target in enumerate(targets[part].tolist()):
            model, repeat, *evidences = [signal[row] for signal in by_user]
            of_test = [model, repeat, popularity, *evidences]
            items, correction = sample_alternatives(torch.tensor(target), possible, of_test, draw)
            signals[start + row, : len(items)] = torch.stack([signal[items] for signal in of_test], 1)
            corrections[start + row, : len(items)] = correction
    return fit_fusion(ChoiceSets(signals, corrections), BEFORE_SHARES, SETTINGS, prior)
