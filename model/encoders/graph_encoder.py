"""The interface of a graph encoder: it learns from the bipartite graph of users and items, in training only.

To add one, write its class in a file of its own and name the class in `GRAPH_ENCODERS` of `model/settings.py`.

Sizes: U users, B of them in a batch, M edges of the batch, n items, d is `dim`.
"""

from pkgutil import resolve_name
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from model.encoders.histories import Histories
from model.encoders.vocabulary import Indices
from model.settings import GRAPH_ENCODERS, TrainingSettings


class UserRows(Protocol):
    """Rows of users, [U, d], with an optimizer of their own; they exist in training only."""

    def scale(self, factor: Tensor) -> None:
        """Multiply all rows."""

    def begin(self, learning_rate: float) -> None:
        """Start the optimizer from scratch."""


class GraphEncoder(Protocol):
    """Learns from the bipartite graph of users' histories, on the item table that the sequence encoder uses too."""

    touches_every_row: ClassVar[bool]
    """Whether a step updates every row of the item table or only the rows of its batch."""

    def __init__(
        self, histories: Histories, table: nn.Embedding, user_rows: Tensor, settings: TrainingSettings
    ) -> None:
        """`table` [n + 1, d] is updated by the caller; `user_rows` [U, d] are the initial user rows."""

    @property
    def users(self) -> UserRows:
        """The user rows."""

    def draw(self, users: Indices, generator: torch.Generator) -> Any:
        """The edges of a batch of users. Its field `wanted` lists the item indices whose rows `loss` needs."""

    def loss(self, edges: Any, rows: list[Tensor], drawn: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a batch, a scalar, and the global view of its users, [B, d].

        `rows` are the item rows of `edges.wanted`, [M, d] each; `negatives` [K, d] are those of the items `drawn` [K].
        """

    def view(self, users: Indices) -> Tensor:
        """The global view, [B, d], of users [B]."""

    def item_rows(self) -> Tensor:
        """Item rows [n + 1, d] after the warm-up, padding first. The sequence encoder starts from them."""

    def step(self) -> None:
        """Update the user rows from their gradients."""


def graph_encoder(
    histories: Histories, table: nn.Embedding, user_rows: Tensor, settings: TrainingSettings
) -> GraphEncoder:
    """Create the graph encoder that the settings name."""
    return _encoder_class(settings)(histories, table, user_rows, settings)


def touches_every_row(settings: TrainingSettings) -> bool:
    """Whether a step of the encoder that the settings name updates every row of the item table."""
    return _encoder_class(settings).touches_every_row


def _encoder_class(settings: TrainingSettings) -> type[GraphEncoder]:
    encoder_class: type[GraphEncoder] = resolve_name(GRAPH_ENCODERS[settings.graph_encoder])
    return encoder_class
