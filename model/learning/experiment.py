"""Parts of training that benchmarks replace. The product trains with `NO_EXPERIMENT`.

Forms that gained nothing are in `benchmarks/ablations`.
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
"""The item table is scaled to this standard deviation after the warm-up: the sequence encoder needs larger rows than
the graph learns. 0.05 and 0.5 cost 2% and 14% of NDCG@10 (benchmarks/README.md)."""
USER_LEARNING_RATE = 1e-3
"""Learning rate of user rows in the joint epochs. A rate five times as high changes nothing (benchmarks/README.md)."""
NO_USERS: Indices = np.empty(0, np.int64)


class TransferInput(NamedTuple):
    """A batch at the point where the transfer loss is computed."""

    encoded: Tensor
    """[T, d] encodings on the token axis."""
    packed: Packed
    inputs: Histories
    predicting: Tensor
    """[N, d] encodings that predict an item."""
    targets: Tensor
    """[N] the items to predict."""
    graph: GraphEncoder
    graph_view: Tensor
    """[B, d] the graph's view of the batch's users."""
    shuffle: np.random.Generator
    generator: torch.Generator


GraphEncoderFactory = Callable[[Histories, nn.Embedding, Tensor, TrainingSettings], GraphEncoder]
"""Same arguments as `GraphEncoder.__init__`."""
TransferViews = Callable[[TransferInput], tuple[Tensor, Tensor]]
"""Returns two views of the same users or items, [M, d] each."""
ExtraLoss = Callable[[Create, int, Tensor, np.random.Generator], Tensor | float]
"""(model, users in the batch, negatives [K], random numbers) -> a term of the joint loss."""


class Experiment(NamedTuple):
    """Replacements of parts of the product's training. None: the product's part."""

    graph_encoder: GraphEncoderFactory | None = None
    item_loss: ItemLoss | None = None
    transfer_views: TransferViews | None = None
    extra_loss: ExtraLoss | None = None
    once: Indices = NO_USERS
    """Rows of users that are learned in one joint epoch only: each epoch learns another share of them. All other users
    are learned in every epoch."""
    table_std: float = TABLE_STD
    user_learning_rate: float = USER_LEARNING_RATE


NO_EXPERIMENT = Experiment()
