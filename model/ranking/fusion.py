"""How much each word counts in a score: learned from held-out events, kept with the version."""

import msgspec

from model.settings import RankingSettings


class Fusion(msgspec.Struct, frozen=True):
    """Weights in s = model · E h_u + evidence · t + repeat · r + popularity · p, and what t is made of."""

    model: float = 0.3
    evidence: float = 3.0
    repeat: float = 0.0
    """Below 0 where people do not come back to what they had."""
    popularity: float = 1.0
    before: float = 0.5
    """What counts of a neighbour coming before an item add to those of it coming after: 0 is directed."""


class Learned(msgspec.Struct, frozen=True):
    """How far weights have gone since their version chose them (`model.fusion_weights.online`)."""

    chosen: Fusion
    fusion: Fusion
    clicks: int
    """Learned from."""


INITIAL_FUSION = Fusion()
"""Before anything was learned: near what it came to be on streams of several kinds."""
MODEL_ONLY = Fusion(1.0, 0.0, 0.0, 0.0, 0.0)
"""The paper's inference."""


def with_set_weights(fusion: Fusion, settings: RankingSettings) -> Fusion:
    """With the weights an operator has set in place of the chosen ones."""
    return Fusion(
        fusion.model,
        _given(settings.evidence_weight, fusion.evidence),
        _given(settings.repeat_weight, fusion.repeat),
        _given(settings.popularity_weight, fusion.popularity),
        fusion.before,
    )


def is_model_only(settings: RankingSettings) -> bool:
    """Whether an operator has taken the live graph's word away: the paper's inference."""
    return not any(
        _given(weight, 1.0) for weight in (settings.evidence_weight, settings.repeat_weight, settings.popularity_weight)
    )


def _given(setting: float | None, chosen: float) -> float:
    return chosen if setting is None else setting
