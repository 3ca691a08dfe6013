"""Fusion weights of maximum likelihood, without the NDCG search for the weight of own items
(model/fusion_weights/ndcg_search.py)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch import Tensor


@contextmanager
def likeliest() -> Iterator[None]:
    """Context without the NDCG search, for the weights of a version and for those between versions."""
    with (
        mock.patch("model.fusion_weights.fit_weights.best_weight", _unchanged),
        mock.patch("model.fusion_weights.online.best_weight", _unchanged),
    ):
        yield


def _unchanged(_choices: Any, weights: Tensor, *_: Any) -> Tensor:
    return weights
