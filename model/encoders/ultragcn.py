"""UltraGCN, the graph encoder: link prediction weighted by degree, no message passing.

Mao et al., 2021, arXiv 2110.15114.

    L_C, L_O   Σ_(u,i) softplus(-e_u·e_i)  +  γ · mean over negatives of softplus(e_u·e_j), once for each edge of u
    L_I        Σ_(u,i) Σ_{j in top-K(i)} ω_ij softplus(-e_u·e_j)        ω_ij = G_ij / (g_i - G_ii) · sqrt(g_i / g_j)

G = AᵀA is the item-item co-occurrence graph of the users' newest items; g are its row sums. For each edge one
neighbour is drawn in proportion to ω, with the weight Σ_j ω_ij: the expectation is the same, at a tenth of the cost.
The paper's weights by degree, and edges that fade with event time, are worse: `benchmarks/ablations/graph_forms.py`.
"""

from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.encoders.histories import Histories
from model.encoders.vocabulary import Indices
from model.settings import TrainingSettings


class Edges(NamedTuple):
    """Edges of a batch of users."""

    users: Indices
    """[B] rows of the users."""
    wanted: list[Tensor]
    """Item indices whose rows the loss needs: [M] the items of the edges, [M] a neighbour of each, drawn by ω."""
    user: Tensor
    """[M] position of the edge's user in the batch."""
    weight: Tensor
    """[M] Σ ω over the neighbours of the edge's item."""


class UltraGCN:
    """The loss on the bipartite graph of these histories, and the user rows. They exist in training only.

    >>> table, drawn = nn.Embedding(4, 8), torch.tensor([1, 2])
    >>> histories = Histories(np.array([0, 2, 5]), np.array([3, 1, 1, 2, 3]))
    >>> graph = UltraGCN(histories, table, torch.zeros(2, 8), TrainingSettings())
    >>> edges = graph.draw(np.array([0, 1]), torch.Generator().manual_seed(0))
    >>> loss, view = graph.loss(edges, [table(wanted) for wanted in edges.wanted], drawn, table(drawn))
    >>> loss.shape, view.shape
    (torch.Size([]), torch.Size([2, 8]))
    """

    touches_every_row: ClassVar[bool] = False

    def __init__(
        self, histories: Histories, table: nn.Embedding, user_rows: Tensor, settings: TrainingSettings
    ) -> None:
        self._settings = settings
        self._histories = histories.newest(settings.graph_events)
        self._degree, self._table = torch.from_numpy(self._histories.lengths).float(), table
        nodes, weights = co_occurring(self._histories, table.num_embeddings - 1, settings.neighbours)
        self._nodes = torch.from_numpy(nodes)
        self._cumulated = torch.from_numpy(weights).cumsum(1)
        self.users = LazyRows(user_rows, settings.graph_learning_rate)

    def draw(self, users: Indices, generator: torch.Generator) -> Edges:
        """The edges of these users, with one neighbour drawn for each."""
        item = torch.from_numpy(self._histories.items[self._histories.positions_of(users)])
        user = torch.repeat_interleave(self._degree[torch.from_numpy(users)].long())
        return Edges(users, [item, self._neighbour(item, generator)], user, self._cumulated[item, -1])

    def _neighbour(self, items: Tensor, generator: torch.Generator) -> Tensor:
        """One neighbour of each item, drawn in proportion to ω; 0 for an item without any."""
        cumulated = self._cumulated[items]
        drawn = torch.rand(len(items), 1, generator=generator) * cumulated[:, -1:]
        slot = (drawn > cumulated).sum(1, keepdim=True).clamp(max=cumulated.shape[1] - 1)
        return self._nodes[items].gather(1, slot)[:, 0]

    def loss(self, edges: Edges, rows: list[Tensor], drawn: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss of an edge against the shared negatives [K, d], and the view e_u, [B, d]."""
        settings = self._settings
        own = self.view(edges.users)
        if not len(edges.user):
            return own.sum() * 0.0, own
        items, neighbours = rows
        mine = own[edges.user]
        links = F.softplus(-(mine * items).sum(1)).sum()
        # All edges of a user have the same negatives, so the term is computed once for each user.
        repelled = (self._degree[torch.from_numpy(edges.users)] * F.softplus(own @ negatives.T).mean(1)).sum()
        item_item = (F.softplus(-(mine * neighbours).sum(1)) * edges.weight).sum()
        total = links + settings.negative_weight * repelled + settings.item_item_weight * item_item
        return total / len(edges.user), own

    def view(self, users: Indices) -> Tensor:
        """e_u of these users, [B, d]."""
        return self.users.leaf(torch.from_numpy(users))

    def item_rows(self) -> Tensor:
        """E itself: UltraGCN passes no messages."""
        return self._table.weight

    def step(self) -> None:
        """Update the user rows; the caller updates the item table."""
        self.users.step()


def co_occurring(histories: Histories, items: int, count: int) -> tuple[Indices, npt.NDArray[np.float32]]:
    """Each item's `count` strongest neighbours and their ω, both [items + 1, count]; weight 0 in empty slots."""
    users = histories.users
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
    """User rows under Adam; a step updates only the rows of its batch."""

    def __init__(self, rows: Tensor, learning_rate: float) -> None:
        self.rows = rows
        self.begin(learning_rate)

    @torch.no_grad()
    def scale(self, factor: Tensor) -> None:
        """Multiply all rows."""
        self.rows *= factor

    def begin(self, learning_rate: float) -> None:
        """Start Adam with zero moments."""
        self._learning_rate = learning_rate
        self._mean, self._square = torch.zeros_like(self.rows), torch.zeros_like(self.rows)
        self._step = 0
        self._leaf: Tensor | None = None

    def leaf(self, at: Tensor) -> Tensor:
        """The rows `at` as a leaf of autograd. `step` updates them."""
        self._at, leaf = at, self.rows[at].requires_grad_()
        self._leaf = leaf
        return leaf

    def step(self) -> None:
        """One Adam step for the rows of the last `leaf`, if they have a gradient."""
        leaf, self._leaf = self._leaf, None
        if leaf is None or leaf.grad is None:
            return
        at = self._at
        self._step += 1
        mean = self._mean[at].lerp_(leaf.grad, 0.1)
        square = self._square[at].lerp_(leaf.grad**2, 0.001)
        self._mean[at], self._square[at] = mean, square
        step = mean / (1 - 0.9**self._step) / ((square / (1 - 0.999**self._step)).sqrt() + 1e-8)
        self.rows[at] = leaf.detach() - self._learning_rate * step
