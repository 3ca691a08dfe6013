"""UltraGCN, the graph encoder: link prediction weighted by degree, no message passing.

Mao et al., 2021, arXiv 2110.15114.

    L_C, L_O   Σ_(u,i) softplus(-e_u·e_i)  +  γ · mean over negatives of softplus(e_u·e_j), once for each edge of u
    L_I        Σ_(u,i) Σ_{j in top-K(i)} ω_ij softplus(-e_u·e_j)        ω_ij = G_ij / (g_i - G_ii) · sqrt(g_i / g_j)

G = AᵀA is the item-item co-occurrence graph of the users' newest items, g its row sums. Of an item's neighbours one
is drawn in proportion to ω and weighs Σ_j ω_ij: the same expectation at a tenth of the cost.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from model.histories import Histories
from model.settings import TrainingSettings
from model.vocabulary import Indices


class Edges(NamedTuple):
    """Edges of a batch of users."""

    user: Tensor
    """[M] position of the edge's user in the batch."""
    item: Tensor
    """[M] its item."""
    neighbour: Tensor
    """[M] an item beside that item, drawn in proportion to ω (0 where there is none)."""
    weight: Tensor
    """[M] Σ ω over the item's neighbours."""


class UltraGCN:
    """The loss on the bipartite graph of these histories; the tables belong to the caller."""

    def __init__(self, histories: Histories, items: int, settings: TrainingSettings) -> None:
        self._settings = settings
        self._histories = histories.newest(settings.graph_events)
        self.degree = torch.from_numpy(self._histories.lengths).float()
        nodes, weights = co_occurring(self._histories, items, settings.neighbours)
        self._nodes = torch.from_numpy(nodes)
        self._cumulated = torch.from_numpy(weights).cumsum(1)

    def edges(self, users: Indices, generator: torch.Generator) -> Edges:
        """The edges of these users, with one neighbour drawn for each."""
        batch = self._histories.take(users)
        item = torch.from_numpy(batch.items)
        cumulated = self._cumulated[item]
        drawn = torch.rand(len(item), 1, generator=generator) * cumulated[:, -1:]
        slot = (drawn > cumulated).sum(1, keepdim=True).clamp(max=cumulated.shape[1] - 1)
        user = torch.from_numpy(np.repeat(np.arange(len(users)), batch.lengths))
        return Edges(user, item, self._nodes[item].gather(1, slot)[:, 0], cumulated[:, -1])

    def loss(
        self, edges: Edges, users: Indices, rows: Tensor, items: Tensor, neighbours: Tensor, negatives: Tensor
    ) -> Tensor:
        """Mean loss an edge: user rows [B, d], item and neighbour rows [M, d] of the edges, negatives' rows [K, d]."""
        if not len(edges.item):
            return rows.sum() * 0.0
        own = rows[edges.user]
        links = F.softplus(-(own * items).sum(1)).sum()
        # One row of negatives a user serves all of the user's edges.
        apart = (self.degree[torch.from_numpy(users)] * F.softplus(rows @ negatives.T).mean(1)).sum()
        beside = (F.softplus(-(own * neighbours).sum(1)) * edges.weight).sum()
        settings = self._settings
        total: Tensor = links + settings.negative_weight * apart + settings.item_item_weight * beside
        return total / len(edges.item)


def co_occurring(histories: Histories, items: int, count: int) -> tuple[Indices, npt.NDArray[np.float32]]:
    """Each item's `count` strongest neighbours and their ω, both [items + 1, count]; weight 0 in empty slots."""
    users = np.repeat(np.arange(len(histories)), histories.lengths)
    ones = np.ones(len(users), np.float32)
    adjacency = sp.csr_matrix((ones, (users, histories.items)), shape=(len(histories), items + 1))
    adjacency.data[:] = 1.0
    together = (adjacency.T @ adjacency).tocoo()
    mass = np.asarray(together.sum(1)).ravel()
    alone = np.zeros(items + 1, np.float32)
    diagonal = together.row == together.col
    alone[together.row[diagonal]] = together.data[diagonal]
    row, col, data = (a[~diagonal] for a in (together.row, together.col, together.data))
    omega = data / np.maximum(mass[row] - alone[row], 1e-9) * np.sqrt(mass[row] / mass[col])
    order = np.lexsort((-omega, row))
    row, col, omega = row[order], col[order], omega[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    kept = rank < count
    nodes, weights = np.zeros((items + 1, count), np.int64), np.zeros((items + 1, count), np.float32)
    nodes[row[kept], rank[kept]] = col[kept]
    weights[row[kept], rank[kept]] = omega[kept]
    return nodes, weights


class LazyRows:
    """A user table under Adam that touches only a batch's rows (they exist in training only)."""

    def __init__(self, rows: Tensor, learning_rate: float) -> None:
        self.rows = rows
        self.learning_rate = learning_rate
        self.forget()

    def forget(self) -> None:
        """Begin the moments anew."""
        self._mean, self._square = torch.zeros_like(self.rows), torch.zeros_like(self.rows)
        self._step = 0

    def step(self, at: Tensor, leaf: Tensor) -> None:
        """One Adam step of the rows `at`, whose values and gradient are in `leaf`."""
        if leaf.grad is None:
            return
        self._step += 1
        mean = self._mean[at].lerp_(leaf.grad, 0.1)
        square = self._square[at].lerp_(leaf.grad**2, 0.001)
        self._mean[at], self._square[at] = mean, square
        step = mean / (1 - 0.9**self._step) / ((square / (1 - 0.999**self._step)).sqrt() + 1e-8)
        self.rows[at] = leaf.detach() - self.learning_rate * step
