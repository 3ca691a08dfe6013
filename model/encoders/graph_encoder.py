"""What training asks of a graph encoder; `model.settings` names those there are."""

from pkgutil import resolve_name
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from model.encoders.histories import Histories
from model.encoders.vocabulary import Indices
from model.settings import GRAPH_ENCODERS, TrainingSettings


class UserRows(Protocol):
    """Rows of users, [U, d], with an optimiser of their own; they exist in training only."""

    def scale(self, factor: Tensor) -> None:
        """Multiply all rows."""

    def begin(self, learning_rate: float) -> None:
        """Begin the optimiser anew."""


class GraphEncoder(Protocol):
    """Learns from the bipartite graph of users' histories, on the item table it shares with the sequence encoder."""

    touches_every_row: ClassVar[bool]
    """Whether a step moves every row of the table, and not only those of its batch."""

    def __init__(
        self, histories: Histories, table: nn.Embedding, user_rows: Tensor, settings: TrainingSettings
    ) -> None:
        """Of U users' histories, the item table [n + 1, d], which the caller moves, and first rows of users [U, d]."""

    @property
    def users(self) -> UserRows:
        """The user rows."""

    def draw(self, users: Indices, generator: torch.Generator) -> Any:
        """A batch: the edges of these users; its `wanted` lists the item indices whose rows the loss needs."""

    def loss(self, edges: Any, rows: list[Tensor], drawn: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """The batch's loss against negatives `drawn` [K] and their rows [K, d]; and the users' global view [B, d]."""

    def view(self, users: Indices) -> Tensor:
        """The users' global view alone, [B, d]."""

    def item_rows(self) -> Tensor:
        """What the warm-up made of the items, [n + 1, d], padding first: the sequence encoder begins from it."""

    def step(self) -> None:
        """Move the user rows."""


def graph_encoder(
    histories: Histories, table: nn.Embedding, user_rows: Tensor, settings: TrainingSettings
) -> GraphEncoder:
    """The encoder the settings name."""
    return _kind(settings)(histories, table, user_rows, settings)


def touches_every_row(settings: TrainingSettings) -> bool:
    """Whether a step of that encoder moves every row of the item table."""
    return _kind(settings).touches_every_row


def _kind(settings: TrainingSettings) -> type[GraphEncoder]:
    kind: type[GraphEncoder] = resolve_name(GRAPH_ENCODERS[settings.graph_encoder])
    return kind
