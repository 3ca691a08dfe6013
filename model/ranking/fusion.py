"""The four signals of a score, and their weights.

    s = model · E h_u + repeat · r + popularity · p + evidence · t

`model.ranking.signals` lists the signals. A version's weights are chosen on held-out events
(`model.fusion_weights`) and published with it.
"""

from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

from model.settings import RankingSettings

if TYPE_CHECKING:
    from torch import Tensor


class Signal(IntEnum):
    """The index of a signal in every tensor of signals or weights.

    EVIDENCE is last. Where several forms of it are compared, they follow each other from this index on.
    """

    MODEL = 0
    REPEAT = 1
    POPULARITY = 2
    EVIDENCE = 3


class Fusion(msgspec.Struct, frozen=True):
    """The weight of each signal, and the share β of neighbours before an item in the evidence."""

    model: float = 0.3
    evidence: float = 3.0
    repeat: float = 0.0
    """Below 0 if users do not return to items that they clicked."""
    popularity: float = 1.0
    before: float = 0.5
    """β: how much a neighbour that came before an item counts as evidence, next to 1 for one that followed it."""

    def weight_of(self, signal: Signal) -> float:
        """The weight of one signal."""
        weight: float = getattr(self, signal.name.lower())
        return weight

    def as_tensor(self) -> "Tensor":
        """Weights [4] in the order of `Signal`.

        >>> Fusion(model=1.0, evidence=2.0, repeat=3.0, popularity=4.0).as_tensor().tolist()
        [1.0, 3.0, 4.0, 2.0]
        """
        import torch  # imported here: `anabranch status` reads weights, and torch takes seconds to import

        return torch.tensor([self.weight_of(signal) for signal in Signal])

    @classmethod
    def from_tensor(cls, weights: "Tensor", before: float) -> "Fusion":
        """The inverse of `as_tensor`. `before` is an argument because it is not a weight.

        >>> Fusion.from_tensor(Fusion(repeat=-2.0).as_tensor(), before=0.5).repeat
        -2.0
        """
        return cls(**{signal.name.lower(): weights[signal].item() for signal in Signal}, before=before)


class Learned(msgspec.Struct, frozen=True):
    """Weights that were fitted again after their version was published (`model.fusion_weights.online`)."""

    chosen: Fusion
    """The version's own weights."""
    fusion: Fusion
    """The weights now."""
    clicks: int
    """Number of clicks that they were fitted to."""


INITIAL_FUSION = Fusion()
"""Weights before any are chosen. They are near the weights chosen on streams of several kinds."""
MODEL_ONLY = Fusion(1.0, 0.0, 0.0, 0.0, 0.0)
"""The model without the live graph, which is the inference of the CREATE paper."""


def with_set_weights(fusion: Fusion, settings: RankingSettings) -> Fusion:
    """`fusion`, with weights that an operator has set in place of the chosen weights."""
    return Fusion(
        fusion.model,
        _set_or(settings.evidence_weight, fusion.evidence),
        _set_or(settings.repeat_weight, fusion.repeat),
        _set_or(settings.popularity_weight, fusion.popularity),
        fusion.before,
    )


def is_model_only(settings: RankingSettings) -> bool:
    """Whether an operator has set every weight but the model's to 0, as in MODEL_ONLY."""
    return not any(
        _set_or(weight, 1.0)
        for weight in (settings.evidence_weight, settings.repeat_weight, settings.popularity_weight)
    )


def uses_ranker(settings: RankingSettings) -> bool:
    """Whether a ranker may rank: it is not switched off, and the model does not rank alone."""
    return settings.ranker and not is_model_only(settings)


def _set_or(setting: float | None, chosen: float) -> float:
    return chosen if setting is None else setting
