"""The user's own clicks of a candidate item. `a` is how many steps ago a click was, Δ its event time until now.

own_90                  log(1 + Σ 0.9^a)
own_repeat              log(1 + Σ repeat_decay^a): the signal REPEAT
own_day                 log(1 + Σ 2^(-Δ / 1 day))
own_share               clicks of the item / all of the user's steps
own_back                1 / (1 + a) of the newest click
own_last5               clicks among the newest five steps
own_after_newest        log(1 + how often it came right after the item that is now the newest)
own_after_newest_share  the same / how often anything did
own_since               log minutes since the newest click; NEVER without one
own_hour                log(1 + Σ exp(3 (cos Δhour - 1))): clicks at this time of day
own_hour_share          the sum / that of all own candidate items
own_gap                 own_since less the mean log minutes between two clicks of the item, or of any own candidate
                        item where it was clicked once: about 0 when the user comes back to it now; NEVER without one
own_gap_off             |own_gap|
own_session             clicks in the session that is still going on
"""

import numpy as np

from model.ranking.candidates import Candidates, lengths_of
from model.ranking.context import Context
from model.ranking.families.columns import Columns, powers
from model.ranking.families.log_minutes import DAY_MS, NEVER, log_minutes
from model.ranking.fusion import Fusion
from state.events import Floats
from state.sorting import begins, order_of

OWN = (
    "own_90", "own_repeat", "own_day", "own_share", "own_back", "own_last5", "own_after_newest",
    "own_after_newest_share", "own_since", "own_hour", "own_hour_share", "own_gap", "own_gap_off", "own_session",
)  # fmt: skip
HOUR_SHARPNESS = 3.0


def own(context: Context, items: Candidates, fusion: Fusion, out: Columns) -> None:
    """Write OWN. Only the candidate items that the user has clicked are computed."""
    for name in ("own_since", "own_gap", "own_gap_off"):
        out[name][:] = NEVER
    place, known = items.places(context.steps_user, context.steps_column)
    of_candidate = np.flatnonzero(known)
    if not len(of_candidate):
        return
    # Candidate item by candidate item, the oldest click first
    order = of_candidate[order_of(place[of_candidate])]
    at, age, user = place[order], context.steps_age[order], context.steps_user[order]
    ts = context.sequences.steps["ts"][order]
    first = np.flatnonzero(begins(at))
    count = lengths_of(first, len(at))
    newest = first + count - 1
    clicked, owner = at[first], user[first]
    since = np.maximum(context.moments[user] - ts, 0).astype(np.float32)

    def summed(weight: np.ndarray) -> Floats:
        found: Floats = np.add.reduceat(weight, first, dtype=np.float32)
        return found

    out["own_90"][clicked] = np.log1p(summed(powers(0.9, age)))
    out["own_repeat"][clicked] = np.log1p(summed(powers(context.settings.repeat_decay, age)))
    out["own_day"][clicked] = np.log1p(summed(np.exp2(since * np.float32(-1 / DAY_MS))))
    out["own_share"][clicked] = count / context.lengths[owner]
    out["own_back"][clicked] = 1.0 / (1.0 + age[newest])
    out["own_last5"][clicked] = summed(age < 5)
    follows = _follows_newest(context)
    after, followed = summed(follows[order]), np.bincount(context.steps_user[follows], minlength=context.users)
    out["own_after_newest"][clicked] = np.log1p(after)
    out["own_after_newest_share"][clicked] = after / np.maximum(followed[owner], 1)
    elapsed = log_minutes(np.minimum.reduceat(since, first))
    out["own_since"][clicked] = elapsed
    turn = (context.moments[user] - ts) % int(DAY_MS) * np.float32(2 * np.pi / DAY_MS)
    hour = np.exp(HOUR_SHARPNESS * (np.cos(turn.astype(np.float32)) - 1.0))
    at_hour, all_hours = summed(hour), np.bincount(user, hour, context.users)
    out["own_hour"][clicked] = np.log1p(at_hour)
    out["own_hour_share"][clicked] = at_hour / np.maximum(all_hours[owner], 1e-3)
    off = elapsed - _typical_gap(at, ts, user, owner, context.users)
    out["own_gap"][clicked] = off
    out["own_gap_off"][clicked] = np.abs(off)
    out["own_session"][clicked] = summed(context.steps_session[order])


def _follows_newest(context: Context) -> np.ndarray:
    """[N] bool: whether a step came right after a click of the item that is now the user's newest."""
    user, column = context.steps_user, context.steps_column
    newest = column[np.maximum(context.sequences.indptr[1:] - 1, 0)]
    follows = np.zeros(len(column), bool)
    follows[1:] = (user[1:] == user[:-1]) & (column[:-1] == newest[user[:-1]]) & (column[:-1] > 0)
    return follows


def _typical_gap(at: np.ndarray, ts: np.ndarray, user: np.ndarray, owner: np.ndarray, users: int) -> np.ndarray:
    """The mean gap of each clicked candidate item, or the user's mean gap where it was clicked once, in log minutes.

    `at`, `ts` and `user` are of the clicks, candidate item by candidate item; `owner` is of the items.
    """
    again = np.flatnonzero(at[1:] == at[:-1]) + 1
    gap = log_minutes(ts[again] - ts[again - 1])
    item = (np.cumsum(begins(at)) - 1)[again]
    gaps, total = np.bincount(item, minlength=len(owner)), np.bincount(item, gap, len(owner))
    of_user = np.bincount(user[again], gap, users) / np.maximum(np.bincount(user[again], minlength=users), 1)
    return np.where(gaps > 0, total / np.maximum(gaps, 1), of_user[owner])
