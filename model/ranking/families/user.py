"""The user's history as a whole: the same for all candidate items of a list.

user_length      log(1 + steps)
user_repeats     1 - different items / steps
user_popularity  mean of log(1 + clicks of all users) over the steps
user_since       log minutes since the newest step
session_length   log(1 + steps of the session that is still going on)
session_time     log minutes since its first step; 0 where none is going on
"""

import numpy as np

from model.ranking.candidates import Candidates
from model.ranking.context import Context
from model.ranking.families.columns import Columns
from model.ranking.families.log_minutes import log_minutes
from model.ranking.fusion import Fusion
from state.sorting import begins

USER = ("user_length", "user_repeats", "user_popularity", "user_since", "session_length", "session_time")


def user(context: Context, items: Candidates, fusion: Fusion, out: Columns) -> None:
    """Write USER."""
    owner, ts = context.steps_user, context.sequences.steps["ts"]
    if not len(ts):
        return
    steps = np.maximum(context.lengths, 1)
    keys = np.sort(owner * items.width + context.steps_column)
    different = np.bincount(keys[begins(keys)] // items.width, minlength=context.users)
    clicks = np.log1p(context.counts.clicks_of(context.steps_column))
    last = np.maximum(context.sequences.indptr[1:] - 1, 0)
    session = np.bincount(owner[context.steps_session], minlength=context.users)
    began = np.where(session > 0, ts[last - np.maximum(session - 1, 0)], context.moments)
    by_user = {
        "user_length": np.log1p(context.lengths),
        "user_repeats": 1.0 - different / steps,
        "user_popularity": np.bincount(owner, clicks, context.users) / steps,
        "user_since": log_minutes(context.moments - ts[last]),
        "session_length": np.log1p(session),
        "session_time": log_minutes(context.moments - began),
    }
    for name, values in by_user.items():
        out[name][:] = values.astype(np.float32)[items.user]
