"""The user's history as a whole: the same for all candidate items of a list."""

import numpy as np

from model.ranking.candidates import Candidates
from model.ranking.context import Context
from model.ranking.families.log_minutes import log_minutes
from model.ranking.fusion import Fusion
from state.events import Floats

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
    by_user[:, 3] = log_minutes(since)
    size = np.bincount(context.steps_user[context.steps_session], minlength=B)
    by_user[:, 4] = np.log1p(size)
    began = (
        np.where(size > 0, context.moments - ts[np.clip(last - size + 1, 0, len(ts) - 1)], 0)
        if len(ts)
        else np.zeros(B)
    )
    by_user[:, 5] = log_minutes(began)
    out[:] = by_user[items.user]
