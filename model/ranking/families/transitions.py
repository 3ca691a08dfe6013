"""What the graph knows of a candidate item after the user's newest items."""

import numpy as np

from model.ranking.candidates import Candidates
from model.ranking.context import Context
from model.ranking.fusion import Fusion
from model.ranking.graph_evidence import EVIDENCE_SHARPNESS
from state.events import Floats

CO_OCCURRENCE_SHARPNESS = 20.0

TRANSITIONS = (
    "next_1", "next_1_share", "next_2_share", "next_3_share", "co_5", "co_1", "co_best", "evidence", "next_1_lift",
    "before_1",
)  # fmt: skip


def transitions(context: Context, items: Candidates, fusion: Fusion, out: Floats) -> None:
    """What the graph knows of the item after the user's newest items."""
    near, M = context.neighbours, len(items.user)
    B = context.users
    row = context.history_row
    has_user, has_age = np.nonzero(row >= 0)
    rows = row[has_user, has_age]
    columns = near.columns[rows]  # [E, K]
    entry, slot = np.nonzero(columns)
    at, known = items.places(has_user[entry], columns[entry, slot])
    entry, slot, at = entry[known], slot[known], at[known]
    age, source = has_age[entry], rows[entry]
    after, before, following = near.after[source, slot], near.before[source, slot], near.next[source, slot]
    total_next = near.next.sum(1)
    both = near.after + near.before
    root_both = np.sqrt(both.sum(1) + 1.0)
    counts = context.counts.clicks_of(items.column)
    root_n = np.sqrt(np.maximum(counts, 1.0))

    def summed(weight: np.ndarray, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        return np.bincount(at[chosen], weight[chosen], M)

    newest = age == 0
    direct = summed(following, newest)
    out[:, 0] = np.log1p(direct)
    share = following / (total_next[source] + 1.0)
    for back in range(3):
        out[:, 1 + back] = summed(share, age == back)
    co = (after + before) / (root_both[source] * 1.0) / root_n[at]
    out[:, 4] = np.log1p(CO_OCCURRENCE_SHARPNESS * summed(0.8**age * co, age < 5))
    out[:, 5] = np.log1p(CO_OCCURRENCE_SHARPNESS * summed(co, newest))
    best = np.zeros(M)
    np.maximum.at(best, at, co)
    out[:, 6] = np.log1p(CO_OCCURRENCE_SHARPNESS * best)
    # The evidence of the fusion (`model.ranking.graph_evidence`), with its share β
    counted = near.after + np.float32(fusion.before) * near.before
    scale = np.sqrt(np.maximum(counted.sum(1), 1e-9))
    directed = counted[source, slot] / scale[source]
    out[:, 7] = np.log1p(EVIDENCE_SHARPNESS * summed(context.settings.age_decay**age * directed) / root_n)
    newest_total = np.zeros(B)
    newest_total[has_user[has_age == 0]] = total_next[rows[has_age == 0]]
    out[:, 8] = np.log1p(10.0 * direct / root_n / np.sqrt(newest_total[items.user] + 1.0))
    out[:, 9] = np.log1p(summed(before, newest))
