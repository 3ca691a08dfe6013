"""Forms of the graph encoders that are worse than the product's (`results/quality/report.md`).

    degree weights   UltraGCN's w1 + w2 β_ui of an edge and w3 + w4 β_uj of a negative (arXiv 2110.15114)
                         β_ui = sqrt((d_u + 1) / (d_i + 1)) / d_u
    half-life        an edge has the weight a_ui, which halves every half-life of its age; the mean weight is 1

Each is a value of `Experiment(graph_encoder=...)`.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.encoders.graph_encoder import GraphEncoder
from model.encoders.histories import Histories
from model.encoders.lightgcn import LightGCN, normalised_adjacency
from model.encoders.ultragcn import Edges, UltraGCN
from model.learning.experiment import GraphEncoderFactory
from model.settings import TrainingSettings
from state.events import Floats


class DegreeWeights(NamedTuple):
    """w1 to w4 of UltraGCN."""

    w1: float = 1.0
    w2: float = 0.0
    w3: float = 1.0
    w4: float = 0.0


UNIFORM = DegreeWeights()
"""The product's weights: every edge and every negative counts the same."""
PAPER_WEIGHTS = DegreeWeights(1e-6, 1.0, 1e-6, 1.0)
"""The paper's weights: by degree alone."""


def fading(histories: Histories, half_life_s: float) -> Floats:
    """[items] a_ui of each edge; 1 for a half-life of 0."""
    if not half_life_s or not len(histories.items):
        return np.ones(len(histories.items), np.float32)
    if histories.ts is None:
        raise ValueError("histories without times cannot fade")
    weight = np.exp2((histories.ts - histories.ts.max()) / 1000.0 / half_life_s)
    mean_one: Floats = (weight / weight.mean()).astype(np.float32)
    return mean_one


class WeightedUltraGCN(UltraGCN):
    """UltraGCN with degree weights and edges that fade."""

    def __init__(
        self,
        histories: Histories,
        table: nn.Embedding,
        user_rows: Tensor,
        settings: TrainingSettings,
        weights: DegreeWeights = UNIFORM,
        half_life_s: float = 0.0,
    ) -> None:
        super().__init__(histories, table, user_rows, settings)
        self._weights = weights
        self._fading = torch.from_numpy(fading(self._histories, half_life_s))
        clicks = torch.from_numpy(np.bincount(self._histories.items, minlength=table.num_embeddings)).float()
        self._of_user = (self._degree + 1).sqrt() / self._degree.clamp(min=1)
        self._of_item = (clicks + 1).rsqrt()

    def loss(self, edges: Edges, rows: list[Tensor], drawn: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of UltraGCN with a_ui and the degree weights."""
        settings, weights = self._settings, self._weights
        own = self.view(edges.users)
        if not len(edges.user):
            return own.sum() * 0.0, own
        items, neighbours = rows
        users, mine = torch.from_numpy(edges.users), own[edges.user]
        edge_fading = self._fading[torch.from_numpy(self._histories.positions_of(edges.users))]
        beta = self._of_user[users][edges.user] * self._of_item[edges.wanted[0]]
        link = edge_fading * (weights.w1 + weights.w2 * beta)
        links = (link * F.softplus(-(mine * items).sum(1))).sum()
        of_negatives = weights.w3 + weights.w4 * torch.outer(self._of_user[users], self._of_item[drawn])
        repelled = (self._degree[users] * (of_negatives * F.softplus(own @ negatives.T)).mean(1)).sum()
        item_item = (edge_fading * F.softplus(-(mine * neighbours).sum(1)) * edges.weight).sum()
        total = links + settings.negative_weight * repelled + settings.item_item_weight * item_item
        return total / len(edges.user), own


class FadingLightGCN(LightGCN):
    """LightGCN with edges that fade."""

    def __init__(
        self,
        histories: Histories,
        table: nn.Embedding,
        user_rows: Tensor,
        settings: TrainingSettings,
        half_life_s: float = 0.0,
    ) -> None:
        super().__init__(histories, table, user_rows, settings)
        self._adjacency = normalised_adjacency(
            self._histories, table.num_embeddings, fading(self._histories, half_life_s)
        )


def degree_weights(weights: DegreeWeights) -> GraphEncoderFactory:
    """UltraGCN with these weights."""

    def make(histories: Histories, table: nn.Embedding, user_rows: Tensor, settings: TrainingSettings) -> GraphEncoder:
        return WeightedUltraGCN(histories, table, user_rows, settings, weights)

    return make


def half_life(half_life_s: float) -> GraphEncoderFactory:
    """The encoder that the settings name, with edges that fade."""

    def make(histories: Histories, table: nn.Embedding, user_rows: Tensor, settings: TrainingSettings) -> GraphEncoder:
        kind = FadingLightGCN if settings.graph_encoder == "lightgcn" else WeightedUltraGCN
        return kind(histories, table, user_rows, settings, half_life_s=half_life_s)

    return make


def item_view(graph: GraphEncoder, items: Tensor, generator: torch.Generator) -> Tensor:
    """The graph's view of items [N], [N, d]: of UltraGCN one random neighbour, of LightGCN x_i after the messages."""
    if isinstance(graph, LightGCN):
        return graph.item_rows()[items]
    assert isinstance(graph, UltraGCN)
    neighbours = graph._neighbour(items, generator)
    rows: Tensor = graph._table(torch.where(neighbours > 0, neighbours, items))
    return rows
