"""Likeliest fusion weights, without the NDCG search for the weight of own items
(model/fusion_weights/ndcg_search.py)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch import Tensor


@contextmanager
def likeliest() -> Iterator[None]:
    """Turn the NDCG search off inside this context, for a version's weights and for those between versions."""
    with (
        mock.patch("model.fusion_weights.fit_weights.best_weight", _unchanged),
        mock.patch("model.fusion_weights.online.best_weight", _unchanged),
    ):
        yield


def _unchanged(_choices: Any, weights: Tensor, *_: Any) -> Tensor:
    return weights
