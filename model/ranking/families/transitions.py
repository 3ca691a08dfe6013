"""What the graph knows of a candidate item j after the user's newest items i_a, a steps back.

next(i, j) counts j right after i, after(i, j) and before(i, j) count the pair by 1/lag, g = after + β · before with the
fusion's β, both = after + before, n_j = clicks of j. Sums run over the newest `ranking.history_items` items.

    next_1                          log(1 + next(i_0, j))
    next_1_share … next_3_share     next(i_a, j) / (1 + Σ_j next(i_a, j)) for a = 0, 1, 2
    next_1_lift                     log(1 + 10 · next(i_0, j) / √n_j / √(1 + Σ_j next(i_0, j)))
    co_1                            log(1 + 20 · c(i_0, j))        c = both(i, j) / √(1 + Σ_j both(i, j)) / √n_j
    co_5                            log(1 + 20 · Σ_a 0.8^a c(i_a, j)), a < 5
    co_best                         log(1 + 20 · max_a c(i_a, j))
    evidence                        log(1 + 50 · Σ_a age_decay^a · g(i_a, j) / √(Σ_j g(i_a, j)) / √n_j): the signal
    before_1                        log(1 + before(i_0, j))
"""

import numpy as np

from model.ranking.candidates import Candidates
from model.ranking.context import Context
from model.ranking.families.columns import Columns, powers
from model.ranking.fusion import Fusion
from model.ranking.graph_evidence import EVIDENCE_SHARPNESS, directed_counts
from state.events import Floats

TRANSITIONS = (
    "next_1", "next_1_share", "next_2_share", "next_3_share", "co_5", "co_1", "co_best", "evidence", "next_1_lift",
    "before_1",
)  # fmt: skip
CO_OCCURRENCE_SHARPNESS = np.float32(20.0)
LIFT_SHARPNESS = np.float32(10.0)
CO_DECAY, CO_ITEMS = 0.8, 5


def transitions(context: Context, items: Candidates, fusion: Fusion, out: Columns) -> None:
    """Write TRANSITIONS. A value is computed once for each distinct item, then taken for each user who has it."""
    near, history_items = context.neighbours, context.history.shape[1]
    at, age, entry, until = items.links
    newest = slice(0, until[0])

    def taken(values: Floats, of: slice = slice(None)) -> Floats:
        found: Floats = values.ravel()[entry[of]]
        return found

    def summed(weight: Floats, count: int) -> Floats:
        return np.bincount(at[:count], weight[:count], len(items.keys)).astype(np.float32)

    # Neighbours of one item are distinct, so links of one age are assigned and not summed.
    clicks = np.maximum(context.counts.clicks_of(items.column), 1.0)
    total_next = near.next.sum(1, keepdims=True) + 1.0
    direct = np.zeros(len(items.keys), np.float32)
    direct[at[newest]] = taken(near.next, newest)
    out["next_1"][:] = np.log1p(direct)
    of_newest = context.history_row[:, 0]
    total = np.append(total_next[:, 0], np.float32(1.0))[of_newest]  # row -1: a user without a history
    out["next_1_lift"][:] = np.log1p(LIFT_SHARPNESS * direct / np.sqrt(clicks * total[items.user]))
    share = near.next / total_next
    for back, name in enumerate(("next_1_share", "next_2_share", "next_3_share")[:history_items]):
        of = slice(until[back - 1] if back else 0, until[back])
        out[name][at[of]] = taken(share, of)
    out["before_1"][at[newest]] = np.log1p(taken(near.before, newest))

    both = near.after + near.before
    popular = np.sqrt(np.maximum(context.counts.clicks_of(near.columns), 1.0))
    co = taken(both / np.sqrt(both.sum(1, keepdims=True) + 1.0) / popular)
    recent = until[min(CO_ITEMS, history_items) - 1]
    out["co_5"][:] = np.log1p(CO_OCCURRENCE_SHARPNESS * summed(powers(CO_DECAY, age) * co, recent))
    out["co_1"][at[newest]] = np.log1p(CO_OCCURRENCE_SHARPNESS * co[newest])
    best = np.zeros(len(items.keys), np.float32)
    np.maximum.at(best, at, co)
    out["co_best"][:] = np.log1p(CO_OCCURRENCE_SHARPNESS * best)

    directed = taken(directed_counts(near.after, near.before, fusion.before))
    evidence = summed(powers(context.settings.age_decay, age) * directed, len(at))
    out["evidence"][:] = np.log1p(np.float32(EVIDENCE_SHARPNESS) * evidence / np.sqrt(clicks))
