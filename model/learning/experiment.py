"""Parts of training that benchmarks exchange. The product never does: it trains with `NO_EXPERIMENT`.

The forms that were tried and lost live in `benchmarks/ablations`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from model.encoders.create import Create
from model.encoders.graph_encoder import GraphEncoder
from model.encoders.histories import Histories, Packed
from model.encoders.vocabulary import Indices
from model.losses.item_loss import ItemLoss
from model.settings import TrainingSettings

TABLE_STD = 0.15
"""The item table is rescaled to this standard deviation after the warm-up: the sequence encoder wants larger rows than
the graph makes. 0.05 and 0.5 cost 2% and 14% of NDCG@10 (benchmarks/README.md)."""
USER_LEARNING_RATE = 1e-3
"""Learning rate of user rows in the joint epochs. Five times as high changes nothing (benchmarks/README.md)."""
NO_USERS: Indices = np.empty(0, np.int64)


class TransferInput(NamedTuple):
    """A batch as the transfer loss finds it."""

    encoded: Tensor
    """[T, d] encodings on the token axis."""
    packed: Packed
    inputs: Histories
    predicting: Tensor
    """[N, d] encodings that predict, and"""
    targets: Tensor
    """[N] the items to predict."""
    graph: GraphEncoder
    graph_view: Tensor
    """[B, d] the graph's view of the batch's users."""
    shuffle: np.random.Generator
    generator: torch.Generator


GraphEncoderFactory = Callable[[Histories, nn.Embedding, Tensor, TrainingSettings], GraphEncoder]
"""As `GraphEncoder.__init__`."""
TransferViews = Callable[[TransferInput], tuple[Tensor, Tensor]]
"""Two views of the same users (or items), [M, d] each."""
ExtraLoss = Callable[[Create, int, Tensor, np.random.Generator], Tensor | float]
"""(model, users in the batch, negatives [K], random numbers) -> a term of the joint loss."""


class Experiment(NamedTuple):
    """What is different from the product's training."""

    graph_encoder: GraphEncoderFactory | None = None
    item_loss: ItemLoss | None = None
    transfer_views: TransferViews | None = None
    extra_loss: ExtraLoss | None = None
    once: Indices = NO_USERS
    """Rows of users of whom each joint epoch learns another share, so that each is learned once. All others are
    learned in every epoch."""
    table_std: float = TABLE_STD
    user_learning_rate: float = USER_LEARNING_RATE


NO_EXPERIMENT = Experiment()
