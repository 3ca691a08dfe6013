"""Views for the transfer loss other than the product's. None improves NDCG@10 (`results/quality/report.md`).

Each is a value of `Experiment(transfer_views=...)`.
"""

import torch
from torch import Tensor

from benchmarks.ablations.graph_forms import item_view
from model.learning.experiment import TransferInput


def newest_position(batch: TransferInput) -> tuple[Tensor, Tensor]:
    """The product's views: the encoding at each user's newest item, and the graph's view of the user."""
    return batch.encoded[batch.packed.last], batch.graph_view


def random_position(batch: TransferInput) -> tuple[Tensor, Tensor]:
    """The encoding at one random position of each sequence, and the graph's view of the user."""
    drawn = batch.inputs.indptr[:-1] + batch.shuffle.integers(0, batch.inputs.lengths)
    return batch.encoded[batch.packed.tokens[torch.from_numpy(drawn)]], batch.graph_view


def next_item(batch: TransferInput) -> tuple[Tensor, Tensor]:
    """Every prediction, and the graph's view of the item that comes next."""
    return batch.predicting, item_view(batch.graph, batch.targets, batch.generator)


def graph_not_moved(batch: TransferInput) -> tuple[Tensor, Tensor]:
    """The product's views, without a gradient for the graph's view."""
    local_view, global_view = newest_position(batch)
    return local_view, global_view.detach()


def sequence_not_moved(batch: TransferInput) -> tuple[Tensor, Tensor]:
    """The product's views, without a gradient for the sequence encoder's view."""
    local_view, global_view = newest_position(batch)
    return local_view.detach(), global_view
