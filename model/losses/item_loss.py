"""The loss of predicting items: named by the settings, or chosen by the size of the catalogue."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from model.encoders.create import Create
from model.losses.sampled_softmax import sampled_softmax
from model.settings import TrainingSettings

ItemLoss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Create], Tensor]
"""(encodings [N, d], targets [N], their rows, negatives [K], their rows, the model) -> mean loss"""


def item_loss(settings: TrainingSettings, items: int) -> ItemLoss:
    """The loss for a catalogue of this size."""
    name = name_of_loss(settings, items)
    if name == "full":
        return lambda h, targets, _rows, _drawn, _negatives, model: F.cross_entropy(
            h @ model.table()[1:].T, targets - 1
        )
    return lambda h, targets, rows, drawn, negatives, _model: sampled_softmax(h, rows, targets, negatives, drawn, items)


def name_of_loss(settings: TrainingSettings, items: int) -> str:
    """The loss that the settings name; `auto` decides by the size of the catalogue."""
    if settings.loss == "auto":
        return "full" if items <= settings.full_softmax_items else "sampled"
    return settings.loss
