"""Why an item is recommended, in one word.

    again     the user clicks this item again and again, and it is about time
    followed  it often comes after the user's newest items
    similar   it is near the user's items: in the same histories, or by the encoder
    rising    it is clicked more than usual
    popular   it is clicked a lot
    new       it has not been clicked for long

Where the ranker ranks, each of its features belongs to one of these, or to none. A feature adds the slope of the score
times its difference from the list's mean. What the fused score adds is divided among its signals. The kind with the
largest sum is the reason, among those that are true of the item. Where the fusion ranks, it is the largest weighted
signal, less its mean over all items.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from model.encoders.vocabulary import Indices
from model.ranker.network import Ranker, contributions_of
from model.ranking.candidates import Candidates
from model.ranking.families.graph import GRAPH
from model.ranking.families.own import OWN
from model.ranking.families.user import USER
from model.ranking.features import AT, NAMES, SIGNALS, list_means
from model.ranking.fusion import Fusion
from model.ranking.graph_evidence import EVIDENCE_SHARPNESS, REPEAT_SHARPNESS
from model.ranking.reason_kinds import KindsOfReasons, Why
from model.ranking.recommended_cells import recommended_cells
from model.ranking.signals import Signals
from state.events import Floats

OF_FEATURE: Mapping[str, Why] = {
    **dict.fromkeys(OWN, Why.AGAIN),
    **dict.fromkeys(USER, Why.NONE),
    **dict.fromkeys(("co_5", "co_1", "co_best", "encoder", *GRAPH), Why.SIMILAR),
    **dict.fromkeys(("pop_hour", "trend_hour", "trend_day", "trend_week"), Why.RISING),
    **dict.fromkeys(("pop_week", "pop_6h", "pop_day", "pop_month", "clicks", "item_since"), Why.POPULAR),
    **dict.fromkeys(("item_age", "known"), Why.NEW),
    "fused": Why.NONE,
}
"""The kind of each feature; FOLLOWED for all others, which are transitions."""
_KINDS = np.array([OF_FEATURE.get(name.removesuffix("_behind"), Why.FOLLOWED) for name in NAMES])
_SUMS = torch.from_numpy((_KINDS[:, None] == np.arange(len(Why))).astype(np.float32))


def why_of_ranker(
    ranker: Ranker, features: Floats, items: Candidates, at: Indices, columns: Indices, fusion: Fusion
) -> KindsOfReasons:
    """The reasons [B, k] of recommended columns [B, k], whose features [M, F] are `at` [B, k]; -1 = none.

    An item that was no candidate item is there for its popularity (`model.ranking.lists.fill`).
    """
    found = np.where(columns > 0, np.int8(Why.POPULAR), np.int8(Why.NONE))
    real = at >= 0
    if real.any():
        place = at[real]
        list_of = np.searchsorted(items.starts, place, "right") - 1
        found[real] = _largest_true(ranker, features[place], list_means(features, items)[list_of], fusion)
    return found


def _largest_true(ranker: Ranker, features: Floats, means: Floats, fusion: Fusion) -> KindsOfReasons:
    """The reasons [n] of items with features [n, F]; `means` [n, F] are of all candidate items of their lists."""
    added = contributions_of(ranker, features, means)
    sums = (torch.from_numpy(added) @ _SUMS).T.numpy()  # numpy's own product would start threads
    difference = np.ascontiguousarray((features - means).T)
    # The fused score is a sum of signals: those that are above the list's mean share what it adds
    share = {
        name: np.maximum(np.float32(fusion.weight_of(signal)) * difference[AT[name]], 0.0)
        for name, signal in SIGNALS.items()
    }
    unit = (added[:, AT["fused"]] + added[:, AT["fused_behind"]]) / np.maximum(sum(share.values()), np.float32(1e-6))
    for name, part in share.items():
        sums[_KINDS[AT[name]]] += unit * part

    def above_mean(*names: str) -> np.ndarray:
        found: np.ndarray = np.logical_or.reduce([difference[AT[name]] > 0 for name in names])
        return found

    clicked = features[:, AT["own_share"]] > 0
    true = {
        Why.AGAIN: clicked,
        Why.FOLLOWED: features[:, AT["evidence"]] > 0,
        Why.SIMILAR: (features[:, AT["co_5"]] > 0) | above_mean("encoder", "graph_mean"),
        Why.RISING: above_mean("trend_hour", "trend_day", "trend_week"),
        Why.POPULAR: above_mean("pop_week", "pop_day", "pop_month"),
        Why.NEW: ~clicked & ~above_mean("item_age"),
    }
    by_kind = np.zeros((len(Why), len(features)), np.float32)
    for kind, is_true in true.items():
        by_kind[kind] = np.where(is_true, sums[kind], 0.0)
    return _largest(by_kind)


def why_of_fusion(
    signals: Signals, fusion: Fusion, mean_row: Tensor, strengths: Floats, columns: Indices
) -> KindsOfReasons:
    """The reasons [B, k] of recommended columns [B, k], with the `strengths` [B, k, H] of the evidence for them."""
    by_kind = np.zeros((*columns.shape, len(Why)), np.float32)
    own = signals.own
    hit, user, slot = recommended_cells(own.user, own.column, columns, signals.shape[1])
    np.add.at(by_kind[..., Why.AGAIN], (user, slot), own.weight[hit])
    by_kind[..., Why.AGAIN] = fusion.repeat * np.log1p(REPEAT_SHARPNESS * by_kind[..., Why.AGAIN])
    by_kind[..., Why.FOLLOWED] = fusion.evidence * np.log1p(EVIDENCE_SHARPNESS * strengths.sum(2))
    at = torch.from_numpy(columns)
    if signals.encoded is not None:
        above_mean = torch.einsum("bkd,bd->bk", signals.table[at] - mean_row, signals.encoded)
        by_kind[..., Why.SIMILAR] = fusion.model * above_mean.numpy()
    if signals.popularity is not None:
        by_kind[..., Why.POPULAR] = fusion.popularity * (signals.popularity[at] - signals.popularity.mean()).numpy()
    by_kind[columns == 0] = 0.0
    return _largest(np.moveaxis(by_kind, -1, 0))


def _largest(by_kind: Floats) -> KindsOfReasons:
    """The kind, of the first axis, with the largest value; NONE where no value is above 0."""
    found: KindsOfReasons = by_kind.argmax(0).astype(np.int8)
    return found
