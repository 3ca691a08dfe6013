"""Fusion weights as the likelihood has them, of own items too: what placing is measured against
(model/fusion_weights/ndcg_search.py)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch import Tensor


@contextmanager
def likeliest() -> Iterator[None]:
    """Within it no weight is moved to where it places best, neither a version's nor between versions."""
    with (
        mock.patch("model.fusion_weights.fit_weights.best_weight", _unmoved),
        mock.patch("model.fusion_weights.online.best_weight", _unmoved),
    ):
        yield


def _unmoved(_choices: Any, weights: Tensor, *_: Any) -> Tensor:
    return weights
