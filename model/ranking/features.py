"""Features of candidate items: what the ranker reads. Each family is a file of `families/` with its formulas.

M candidate items of B users; `a` is how many steps ago the user clicked, times are log(1 + minutes).

    own           the user's own clicks of the item
    transitions   what the graph knows of the item after the user's newest items
    popularity    clicks of all users, their trend, and the item's age
    user          the user's history as a whole; the same for all items of a list
    model         the encoder's score, and the fused score of all four signals
    relative      some features less the best value in the list

To add a family, write a file there and add it to FAMILIES with the names of its columns.
"""

import hashlib
from collections.abc import Callable

import numpy as np

from model.ranking.candidates import Candidates
from model.ranking.context import Context
from model.ranking.families.model import MODEL, model
from model.ranking.families.own import OWN, own
from model.ranking.families.popularity import POPULARITY, popularity
from model.ranking.families.transitions import TRANSITIONS, transitions
from model.ranking.families.user import USER, user
from model.ranking.fusion import Fusion
from state.events import Floats

Family = Callable[[Context, Candidates, Fusion, Floats], None]
FAMILIES: tuple[tuple[tuple[str, ...], Family], ...] = (
    (OWN, own), (TRANSITIONS, transitions), (POPULARITY, popularity), (USER, user), (MODEL, model),
)  # fmt: skip
ABSOLUTE = tuple(name for names, _ in FAMILIES for name in names)
RELATIVE = (
    "fused", "encoder", "evidence", "next_1", "co_5", "own_90", "own_repeat", "pop_week", "pop_hour", "pop_day",
    "own_since", "own_after_newest",
)  # fmt: skip
"""Each is also given less its best value in the list; the best time since a click is the shortest."""
NAMES = (*ABSOLUTE, *(f"{name}_behind" for name in RELATIVE))
AT = {name: at for at, name in enumerate(NAMES)}
SCHEMA = hashlib.sha256(" ".join(NAMES).encode()).hexdigest()[:12]
"""Names these columns. Examples and rankers of other columns are skipped."""
START = AT["fused_behind"]
"""An untrained ranker ranks by the fused score."""
_SIGNALS = [AT[name] for name in ("encoder", "own_repeat", "pop_week", "evidence")]
_RELATIVE = [AT[name] for name in RELATIVE]


def compute(context: Context, items: Candidates, fusion: Fusion) -> Floats:
    """Features [M, len(NAMES)] of candidate items."""
    M = len(items.user)
    out = np.zeros((M, len(NAMES)), np.float32)
    first = 0
    for names, family in FAMILIES:
        family(context, items, fusion, out[:, first : first + len(names)])
        first += len(names)
    weights = np.array([fusion.model, fusion.repeat, fusion.popularity, fusion.evidence], np.float32)
    out[:, AT["fused"]] = out[:, _SIGNALS] @ weights
    best_of = out[:, _RELATIVE]
    best = np.maximum.reduceat(best_of, items.starts, axis=0)
    since = RELATIVE.index("own_since")
    best[:, since] = np.minimum.reduceat(best_of[:, since], items.starts)
    owner = np.cumsum(np.bincount(items.starts, minlength=M)) - 1
    out[:, first:] = best_of - best[owner]
    np.clip(out, -60_000, 60_000, out=out)
    return out
