"""What CREATE asks of a sequence encoder; `model.settings` names those there are."""

from abc import ABC, abstractmethod

import numpy as np
from torch import Tensor, nn

from model.encoders.histories import Examples, Histories, Packed
from model.settings import ModelSettings


class SequenceEncoder(nn.Module, ABC):
    """Encodes packed histories; item rows come from outside, the table being shared with the graph encoder."""

    @abstractmethod
    def __init__(self, settings: ModelSettings) -> None:
        """Made from `[model]` alone; the catalogue's size is none of its business."""
        super().__init__()

    @abstractmethod
    def forward(self, rows: Tensor, packed: Packed) -> Tensor:
        """Item rows [T, d] of packed tokens -> encodings [T, d]."""

    @abstractmethod
    def asked(self, histories: Histories, limit: int) -> Histories:
        """What is encoded to ask for the next item: the encoding of its last token is h_u. At most `limit` tokens."""

    @abstractmethod
    def examples(self, histories: Histories, limit: int, draw: np.random.Generator) -> Examples:
        """What is learned from these histories, of 2 items and more, at most `limit` tokens each."""
