"""The user's own clicks of a candidate item."""

import numpy as np

from model.ranking.candidates import Candidates
from model.ranking.context import Context
from model.ranking.families.log_minutes import DAY_MS, NEVER, log_minutes
from model.ranking.fusion import Fusion
from state.events import Floats

OWN = (
    "own_90", "own_repeat", "own_day", "own_share", "own_back", "own_last5", "own_after_newest",
    "own_after_newest_share",
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
    out[:, 1] = np.log1p(summed(context.settings.repeat_decay**age))
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
    elapsed = np.where(clicked, log_minutes(np.where(clicked, last, 0.0)), NEVER)
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
    gap = log_minutes(ts[order][1:] - ts[order][:-1])[same]
    gap_at = at[order][1:][same]
    gaps = np.bincount(gap_at, minlength=M)
    mean = np.bincount(gap_at, gap, M) / np.maximum(gaps, 1)
    user_gaps = np.bincount(of[order][1:][same], minlength=context.users)
    user_mean = np.bincount(of[order][1:][same], gap, context.users) / np.maximum(user_gaps, 1)
    typical = np.where(gaps > 0, mean, user_mean[items.user])
    off = np.where(clicked, elapsed - typical, NEVER)
    out[:, 11] = off
    out[:, 12] = np.abs(off)
    out[:, 13] = summed(context.steps_session[rows])
