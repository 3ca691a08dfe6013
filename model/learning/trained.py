"""A trained model with everything that is published with it."""

from typing import NamedTuple

from model.encoders.create import Create
from model.encoders.vocabulary import Vocabulary
from model.learning.gate import Verdict
from model.ranker.network import Ranker
from model.ranking.fusion import Fusion


class Trained(NamedTuple):
    """The result of a cycle. A version stores it, and the next cycle starts from it."""

    model: Create
    vocabulary: Vocabulary
    fusion: Fusion
    metrics: dict[str, float]
    parent: str | None
    """The version that the cycle started from; None for a first version."""
    verdict: Verdict = Verdict()
    ranker: Ranker | None = None
    """None: the fusion ranks."""
    ranker_ts: int = 0
    """Event time, ms, of the newest example that the ranker has learned."""
