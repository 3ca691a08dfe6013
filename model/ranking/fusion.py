"""The four signals of a score, and how much each of them counts.

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
    """A signal's place in every tensor of signals or weights.

    EVIDENCE is the last: where several forms of it are compared, they stand side by side from there on.
    """

    MODEL = 0
    REPEAT = 1
    POPULARITY = 2
    EVIDENCE = 3


class Fusion(msgspec.Struct, frozen=True):
    """The weight of each signal, and what the evidence is made of."""

    model: float = 0.3
    evidence: float = 3.0
    repeat: float = 0.0
    """Below 0 where users do not return to items they had."""
    popularity: float = 1.0
    before: float = 0.5
    """β: the share at which neighbours that come before an item count as evidence. At 0 only those that follow do."""

    def weight_of(self, signal: Signal) -> float:
        """The weight of one signal."""
        weight: float = getattr(self, signal.name.lower())
        return weight

    def as_tensor(self) -> "Tensor":
        """Weights [4] in the order of `Signal`.

        >>> Fusion(model=1.0, evidence=2.0, repeat=3.0, popularity=4.0).as_tensor().tolist()
        [1.0, 3.0, 4.0, 2.0]
        """
        import torch  # here: `anabranch status` reads weights, and torch takes seconds to import

        return torch.tensor([self.weight_of(signal) for signal in Signal])

    @classmethod
    def from_tensor(cls, weights: "Tensor", before: float) -> "Fusion":
        """The inverse of `as_tensor`; `before` is no weight and is given with it.

        >>> Fusion.from_tensor(Fusion(repeat=-2.0).as_tensor(), before=0.5).repeat
        -2.0
        """
        return cls(**{signal.name.lower(): weights[signal].item() for signal in Signal}, before=before)


class Learned(msgspec.Struct, frozen=True):
    """Weights that moved on after their version was published (`model.fusion_weights.online`)."""

    chosen: Fusion
    """The version's own weights."""
    fusion: Fusion
    """The weights now."""
    clicks: int
    """Clicks they were learned from."""


INITIAL_FUSION = Fusion()
"""Weights before any were chosen: near those chosen on streams of several kinds."""
MODEL_ONLY = Fusion(1.0, 0.0, 0.0, 0.0, 0.0)
"""The paper's inference: the model without the live graph."""


def with_set_weights(fusion: Fusion, settings: RankingSettings) -> Fusion:
    """`fusion` with the weights that an operator has set in place of the chosen ones."""
    return Fusion(
        fusion.model,
        _set_or(settings.evidence_weight, fusion.evidence),
        _set_or(settings.repeat_weight, fusion.repeat),
        _set_or(settings.popularity_weight, fusion.popularity),
        fusion.before,
    )


def is_model_only(settings: RankingSettings) -> bool:
    """Whether an operator has set every weight but the model's to 0: the paper's inference."""
    return not any(
        _set_or(weight, 1.0)
        for weight in (settings.evidence_weight, settings.repeat_weight, settings.popularity_weight)
    )


def _set_or(setting: float | None, chosen: float) -> float:
    return chosen if setting is None else setting
