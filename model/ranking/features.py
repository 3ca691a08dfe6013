"""Features of candidate items: what the ranker reads. Each family is a file of `families/` with its formulas.

    own           the user's own clicks of the item
    transitions   what the graph knows of the item after the user's newest items
    popularity    clicks of all users, their trend, and the item's age
    user          the user's history as a whole; the same for all items of a list
    model         the encoder's score
    graph         cosines of the graph's table
    fused         the fusion's score of all four signals, without the weights of a user's own features
    relative      some features less the best value in the list

To add a family, write a file there and add it to FAMILIES with the names of its columns.
"""

import hashlib
from collections.abc import Callable, Mapping

import numpy as np

from model.ranking.candidates import Candidates
from model.ranking.context import Context
from model.ranking.families.columns import Columns
from model.ranking.families.graph import GRAPH, graph
from model.ranking.families.model import MODEL, model
from model.ranking.families.own import OWN, own
from model.ranking.families.popularity import POPULARITY, popularity
from model.ranking.families.transitions import TRANSITIONS, transitions
from model.ranking.families.user import USER, user
from model.ranking.fusion import Fusion, Signal
from state.events import Floats

Family = Callable[[Context, Candidates, Fusion, Columns], None]
FAMILIES: tuple[tuple[tuple[str, ...], Family], ...] = (
    (OWN, own), (TRANSITIONS, transitions), (POPULARITY, popularity), (USER, user), (MODEL, model),
    (GRAPH, graph),
)  # fmt: skip
ABSOLUTE = (*(name for names, _ in FAMILIES for name in names), "fused")
RELATIVE = (
    "fused", "encoder", "evidence", "next_1", "co_5", "own_90", "own_repeat", "pop_week", "pop_hour", "pop_day",
    "own_since", "own_after_newest", "graph_newest", "graph_mean",
)  # fmt: skip
"""Each is also given less its best value in the list; the best time since a click is the shortest."""
NAMES = (*ABSOLUTE, *(f"{name}_behind" for name in RELATIVE))
AT = {name: at for at, name in enumerate(NAMES)}
SCHEMA = hashlib.sha256(" ".join(NAMES).encode()).hexdigest()[:12]
"""Names these columns. Examples and rankers of other columns are skipped."""
START = AT["fused_behind"]
"""An untrained ranker ranks by the fused score."""
_RELATIVE, _SINCE = [AT[name] for name in RELATIVE], RELATIVE.index("own_since")
SIGNALS: Mapping[str, Signal] = {
    "encoder": Signal.MODEL,
    "own_repeat": Signal.REPEAT,
    "pop_week": Signal.POPULARITY,
    "evidence": Signal.EVIDENCE,
}
"""The features that are signals of the fused score."""
LARGEST = 60_000.0
"""Features are stored with 16 bits."""


def compute(context: Context, items: Candidates, fusion: Fusion) -> Floats:
    """Features [M, len(NAMES)] of candidate items. In memory each column is contiguous."""
    features = np.zeros((len(NAMES), len(items.keys)), np.float32)
    if not len(items.keys):
        return features.T
    out = dict(zip(NAMES, features, strict=True))
    for _, family in FAMILIES:
        family(context, items, fusion, out)
    for name, signal in SIGNALS.items():
        out["fused"] += np.float32(fusion.weight_of(signal)) * out[name]
    values: Floats = features[_RELATIVE]
    np.negative(values[_SINCE], out=values[_SINCE])
    best = np.maximum.reduceat(values, items.starts, axis=1)
    np.subtract(values, np.repeat(best, items.lengths, axis=1), out=values)
    np.negative(values[_SINCE], out=values[_SINCE])
    features[len(ABSOLUTE) :] = values
    np.clip(features, -LARGEST, LARGEST, out=features)
    return features.T


def list_means(features: Floats, items: Candidates) -> Floats:
    """The mean features of each user's candidate items, [B', F], of features [M, F]."""
    total = np.add.reduceat(features.T, items.starts, axis=1)
    return (total / items.lengths).astype(np.float32).T
