"""Features of candidate items: what the ranker reads. Each family is a function with its formulas.

M candidate items of B users; `a` is how many steps ago the user clicked, times are log(1 + minutes).

    own           the user's own clicks of the item
    transitions   what the graph knows of the item after the user's newest items
    popularity    clicks of all users, their trend, and the item's age
    user          the user's history as a whole; the same for all items of a list
    model         the encoder's score, and the fused score of all four signals
    relative      some features less the best value in the list

To add a family, write a function here and add it to FAMILIES with the names of its columns.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from model.encoders.vocabulary import Indices
from model.ranking.context import Context
from model.ranking.fusion import Fusion
from model.ranking.graph_evidence import EVIDENCE_SHARPNESS
from model.ranking.item_counts import POPULARITY_SHARPNESS
from state.events import Floats

MINUTE_MS, DAY_MS = 60_000.0, 86_400_000.0
SESSION_MS = 3_600_000
"""A pause of an hour ends a session."""
NEVER = 20.0
"""Time since a click that never was: longer than any in log minutes."""
CO_OCCURRENCE_SHARPNESS = 20.0


class Candidates(NamedTuple):
    """Candidate items: users ascend, and columns ascend within a user."""

    user: Indices
    """[M] row of the user."""
    column: Indices
    """[M]."""
    starts: Indices
    """[B'] first place of each user that has any."""
    width: int
    """Columns of the catalogue."""

    def places(self, users: Indices, columns: Indices) -> tuple[Indices, np.ndarray]:
        """Where these pairs [N] are among the candidate items, and [N] bool: whether they are."""
        keys = self.user * self.width + self.column
        wanted = users * self.width + columns
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return at, keys[at] == wanted


def minutes(ms: np.ndarray) -> np.ndarray:
    """log(1 + minutes)."""
    found: np.ndarray = np.log1p(np.maximum(ms, 0) / MINUTE_MS)
    return found


OWN = (
    "own_90", "own_98", "own_day", "own_share", "own_back", "own_last5", "own_after_newest", "own_after_newest_share",
    "own_since", "own_hour", "own_hour_share", "own_gap", "own_gap_off", "own_session",
)  # fmt: skip


def own(context: Context, items: Candidates, fusion: Fusion, out: Floats) -> None:
    """The user's own clicks of the item."""
    user, age, ts = context.steps_user, context.steps_age, context.sequences.steps["ts"]
    at, known = items.places(user, context.steps_column)
    rows = np.flatnonzero(known)
    at, of, age, ts = at[rows], user[rows], age[rows], ts[rows]
    M = len(items.user)

    def summed(weight: np.ndarray) -> np.ndarray:
        return np.bincount(at, weight, M)

    lengths = context.lengths.astype(np.float64)
    moment = context.moments[of]
    since = np.maximum(moment - ts, 0).astype(np.float64)
    count = np.bincount(at, minlength=M)
    clicked = count > 0
    out[:, 0] = np.log1p(summed(0.9**age))
    out[:, 1] = np.log1p(summed(0.98**age))
    out[:, 2] = np.log1p(summed(np.exp2(-since / DAY_MS)))
    out[:, 3] = count / lengths[items.user]
    newest_age = np.full(M, 1e9)
    np.minimum.at(newest_age, at, age)
    out[:, 4] = np.where(clicked, 1.0 / (1.0 + newest_age), 0.0)
    out[:, 5] = summed(age < 5)
    # how often the item came right after the user's newest item, in the user's own history
    newest = context.steps_column[context.sequences.indptr[1:] - 1]
    column = context.steps_column
    follows = np.zeros(len(column), bool)
    follows[1:] = (user[1:] == user[:-1]) & (column[:-1] == newest[user[:-1]])
    followed = np.bincount(user[follows], minlength=context.users)
    after = summed(follows[rows])
    out[:, 6] = np.log1p(after)
    out[:, 7] = after / np.maximum(followed[items.user], 1)
    last = np.full(M, np.inf)
    np.minimum.at(last, at, since)
    elapsed = np.where(clicked, minutes(np.where(clicked, last, 0.0)), NEVER)
    out[:, 8] = elapsed
    # at this hour of the day: exp(3 (cos Δhour − 1))
    turn = 2 * np.pi / DAY_MS
    hour = np.exp(3.0 * (np.cos(turn * ((moment - ts) % int(DAY_MS))) - 1.0))
    at_hour = summed(hour)
    all_hours = np.bincount(of, hour, context.users)
    out[:, 9] = np.log1p(at_hour)
    out[:, 10] = at_hour / np.maximum(all_hours[items.user], 1e-3)
    # elapsed time less the mean own gap: about 0 when the user comes back to the item about now
    order = np.lexsort((-age, at))
    same = at[order][1:] == at[order][:-1]
    gap = minutes(ts[order][1:] - ts[order][:-1])[same]
    gap_at = at[order][1:][same]
    gaps = np.bincount(gap_at, minlength=M)
    mean = np.bincount(gap_at, gap, M) / np.maximum(gaps, 1)
    user_gaps = np.bincount(of[order][1:][same], minlength=context.users)
    user_mean = np.bincount(of[order][1:][same], gap, context.users) / np.maximum(user_gaps, 1)
    typical = np.where(gaps > 0, mean, user_mean[items.user])
    off = np.where(clicked, elapsed - typical, NEVER)
    out[:, 11] = off
    out[:, 12] = np.abs(off)
    out[:, 13] = summed(_in_session(context)[rows])


def _in_session(context: Context) -> np.ndarray:
    """[N] whether a step belongs to the session that is still going on at the moment of the ranking."""
    ts, user = context.sequences.steps["ts"], context.steps_user
    breaks = np.zeros(len(ts), np.int64)
    breaks[1:] = (user[1:] == user[:-1]) & (ts[1:] - ts[:-1] > SESSION_MS)
    total = np.cumsum(breaks)
    last = context.sequences.indptr[1:] - 1
    going_on = context.moments - ts[last] <= SESSION_MS
    found: np.ndarray = (total == total[last][user]) & going_on[user]
    return found


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
    out[:, 7] = np.log1p(EVIDENCE_SHARPNESS * summed(AGE_DECAY**age * directed) / root_n)
    newest_total = np.zeros(B)
    newest_total[has_user[has_age == 0]] = total_next[rows[has_age == 0]]
    out[:, 8] = np.log1p(10.0 * direct / root_n / np.sqrt(newest_total[items.user] + 1.0))
    out[:, 9] = np.log1p(summed(before, newest))


AGE_DECAY = 0.8

POPULARITY = (
    "pop_week", "pop_hour", "pop_6h", "pop_day", "pop_month", "clicks", "trend_hour", "trend_day", "trend_week",
    "item_age", "item_since",
)  # fmt: skip


def popularity(context: Context, items: Candidates, fusion: Fusion, out: Floats) -> None:
    """Clicks of all users at each half-life, log ratios of them, and the age of the item."""
    found = context.counts.at(items.column, context.moments[items.user])
    recent = found.recent
    out[:, 0:5] = np.log1p(POPULARITY_SHARPNESS * recent)
    out[:, 5] = np.log1p(found.clicks)
    week, hour, _, day, month = recent.T
    out[:, 6] = np.log((hour + 0.1) / (day + 0.5))
    out[:, 7] = np.log((day + 0.1) / (week + 0.5))
    out[:, 8] = np.log((week + 0.1) / (month + 0.5))
    out[:, 9] = minutes(found.age_ms)
    out[:, 10] = minutes(found.since_ms)


USER = ("user_length", "user_repeats", "user_popularity", "user_since", "session_length", "session_time")


def user(context: Context, items: Candidates, fusion: Fusion, out: Floats) -> None:
    """The user's history as a whole."""
    B = context.users
    lengths = context.lengths.astype(np.float64)
    distinct = np.unique(context.steps_user * items.width + context.steps_column)
    different = np.bincount(distinct // items.width, minlength=B)
    by_user = np.zeros((B, len(USER)))
    by_user[:, 0] = np.log1p(lengths)
    by_user[:, 1] = 1.0 - different / np.maximum(lengths, 1)
    clicks = np.log1p(context.counts.clicks_of(context.steps_column))
    by_user[:, 2] = np.bincount(context.steps_user, clicks, B) / np.maximum(lengths, 1)
    ts = context.sequences.steps["ts"]
    last = context.sequences.indptr[1:] - 1
    has = lengths > 0
    since = np.where(has, context.moments - ts[np.maximum(last, 0)], 0) if len(ts) else np.zeros(B)
    by_user[:, 3] = minutes(since)
    session = _in_session(context)
    size = np.bincount(context.steps_user[session], minlength=B)
    by_user[:, 4] = np.log1p(size)
    began = (
        np.where(size > 0, context.moments - ts[np.clip(last - size + 1, 0, len(ts) - 1)], 0)
        if len(ts)
        else np.zeros(B)
    )
    by_user[:, 5] = minutes(began)
    out[:] = by_user[items.user]


MODEL = ("encoder", "known", "fused")


def model(context: Context, items: Candidates, fusion: Fusion, out: Floats) -> None:
    """E h_u, whether the version knows the item, and the fused score less the best one; filled by `compute`."""
    if context.encoded is not None:
        table = context.catalogue.table.numpy()
        encoded = context.encoded.numpy()
        out[:, 0] = np.einsum("md,md->m", encoded[items.user], table[items.column])
    out[:, 1] = items.column < context.catalogue.first_fresh


Family = Callable[[Context, Candidates, Fusion, Floats], None]
FAMILIES: tuple[tuple[tuple[str, ...], Family], ...] = (
    (OWN, own), (TRANSITIONS, transitions), (POPULARITY, popularity), (USER, user), (MODEL, model),
)  # fmt: skip
ABSOLUTE = tuple(name for names, _ in FAMILIES for name in names)
RELATIVE = (
    "fused", "encoder", "evidence", "next_1", "co_5", "own_90", "own_98", "pop_week", "pop_hour", "pop_day",
    "own_since", "own_after_newest",
)  # fmt: skip
"""Each is also given less its best value in the list; the best time since a click is the shortest."""
NAMES = (*ABSOLUTE, *(f"{name}_behind" for name in RELATIVE))
AT = {name: at for at, name in enumerate(NAMES)}
SCHEMA = hashlib.sha256(" ".join(NAMES).encode()).hexdigest()[:12]
"""Names these columns. Examples and rankers of other columns are skipped."""
START = AT["fused_behind"]
"""An untrained ranker ranks by the fused score."""
_SIGNALS = [AT[name] for name in ("encoder", "own_98", "pop_week", "evidence")]
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
