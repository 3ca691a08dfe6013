"""LightGCN: a row is the mean of its neighbours' rows, over a few hops (He et al., 2020, arXiv 2002.02126).

    x⁰ = [user rows; E]        xᵏ⁺¹ = D^-½ A D^-½ xᵏ        x = mean of x⁰ … xᴸ
    BPR: Σ_(u,i) -log σ(x_u·x_i - x_u·x_j)                  j among the batch's shared negatives

A is the adjacency of the bipartite graph. Every step passes messages over the whole graph, at several times the cost
of UltraGCN (`benchmarks/speed/epoch_profile.py`).
"""

import warnings
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import LGConv

from model.encoders.histories import Histories
from model.encoders.vocabulary import Indices
from model.settings import TrainingSettings
from state.events import Floats


class Edges(NamedTuple):
    """Edges of a batch of users."""

    users: Indices
    wanted: list[Tensor]
    """Empty: `loss` takes rows from the whole table, after message passing."""
    user: Tensor
    """[M] position of the edge's user in the batch."""
    item: Tensor
    """[M] item of the edge."""
    negative: Tensor
    """[M] random number of the edge; modulo the number of negatives it selects the edge's negative."""


class LightGCN:
    """The loss on the bipartite graph of these histories, and the user rows. They exist in training only.

    >>> table, drawn = nn.Embedding(4, 8), torch.tensor([1, 2])
    >>> histories = Histories(np.array([0, 2, 5]), np.array([3, 1, 1, 2, 3]))
    >>> graph = LightGCN(histories, table, torch.zeros(2, 8), TrainingSettings())
    >>> loss, view = graph.loss(graph.draw(np.array([0, 1]), torch.Generator()), [], drawn, table(drawn))
    >>> loss.shape, view.shape
    (torch.Size([]), torch.Size([2, 8]))
    """

    touches_every_row: ClassVar[bool] = True

    def __init__(
        self, histories: Histories, table: nn.Embedding, user_rows: Tensor, settings: TrainingSettings
    ) -> None:
        self._settings = settings
        self._table = table
        self._histories = histories.newest(settings.graph_events)
        self._conv = LGConv(normalize=False)
        self._adjacency = normalised_adjacency(self._histories, table.num_embeddings)
        self.users = DenseRows(user_rows, settings.graph_learning_rate)

    def draw(self, users: Indices, generator: torch.Generator) -> Edges:
        """The edges of these users, with one negative drawn for each."""
        batch = self._histories.take(users)
        negative = torch.randint(2**31, (len(batch.items),), generator=generator)
        user = torch.from_numpy(batch.users)
        return Edges(users, [], user, torch.from_numpy(batch.items), negative)

    def loss(self, edges: Edges, rows: list[Tensor], drawn: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss of an edge against the shared negatives `drawn` [K], and the view x_u, [B, d]."""
        x = self._propagated()
        own = x[torch.from_numpy(edges.users)]
        if not len(edges.user):
            return own.sum() * 0.0, own
        mine, item = own[edges.user], x[len(self.users.rows) + edges.item]
        negative = x[len(self.users.rows) + drawn[edges.negative % len(drawn)]]
        margin = (mine * (item - negative)).sum(1)
        return -F.logsigmoid(margin).mean(), own

    def view(self, users: Indices) -> Tensor:
        """x_u of these users, [B, d]."""
        return self._propagated()[torch.from_numpy(users)]

    def item_rows(self) -> Tensor:
        """x_i of all items: E itself is trained only for use after message passing."""
        return self._propagated()[len(self.users.rows) :]

    def _propagated(self) -> Tensor:
        first = torch.cat([self.users.rows, self._table.weight])
        summed, layer = first, first
        for _ in range(self._settings.lightgcn_layers):
            layer = Messages.apply(layer, self._conv, self._adjacency)  # type: ignore[no-untyped-call]
            summed = summed + layer
        return summed / (self._settings.lightgcn_layers + 1)

    def step(self) -> None:
        """Update the user rows; the caller updates the item table."""
        self.users.step()


class Messages(torch.autograd.Function):
    """One layer, x ↦ A x. A is symmetric, so the gradient is A g; a transposition would double the cost of a step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: LGConv, adjacency: Tensor) -> Tensor:
        """A x."""
        ctx.conv, ctx.adjacency = conv, adjacency
        messages: Tensor = conv(x, adjacency)
        return messages

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """A g."""
        return ctx.conv(gradients[0].contiguous(), ctx.adjacency), None, None


class DenseRows:
    """User rows under Adam; every step updates all of them."""

    def __init__(self, rows: Tensor, learning_rate: float) -> None:
        self.rows = nn.Parameter(rows)
        self.begin(learning_rate)

    @torch.no_grad()
    def scale(self, factor: Tensor) -> None:
        """Multiply all rows."""
        self.rows.mul_(factor)

    def begin(self, learning_rate: float) -> None:
        """Start Adam with zero moments."""
        self._optimizer = torch.optim.Adam([self.rows], learning_rate, fused=True)

    def step(self) -> None:
        """One Adam step."""
        self._optimizer.step()
        self._optimizer.zero_grad()


def normalised_adjacency(histories: Histories, items: int, edges: Floats | None = None) -> Tensor:
    """D^-½ A D^-½ as a sparse CSR tensor [U + items, U + items], users first; `edges` are the weights of A."""
    users = len(histories)
    weights = np.ones(len(histories.items)) if edges is None else edges.astype(np.float64)
    user_to_item = sp.coo_matrix((weights, (histories.users, users + histories.items)), shape=(users + items,) * 2)
    both = (user_to_item + user_to_item.T).tocsr()
    scale = 1.0 / np.sqrt(np.maximum(np.asarray(both.sum(1)).ravel(), 1e-9))
    both = sp.diags(scale) @ both @ sp.diags(scale)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Sparse CSR tensor support is in beta"
        )  # keeps the warning out of every trainer's log
        return torch.sparse_csr_tensor(
            torch.from_numpy(both.indptr.astype(np.int64)),
            torch.from_numpy(both.indices.astype(np.int64)),
            torch.from_numpy(both.data.astype(np.float32)),
            both.shape,
            check_invariants=True,
        )
