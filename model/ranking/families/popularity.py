"""Clicks of a candidate item by all users, as of the moment of the ranking.

    pop_week, pop_hour, pop_6h, pop_day, pop_month  log(1 + 10 · a)    a: clicks, halved every half-life (`item_counts`)
    clicks                                          log(1 + all clicks)
    trend_hour                                      log((a_hour + 0.1) / (a_day + 0.5))
    trend_day                                       log((a_day + 0.1) / (a_week + 0.5))
    trend_week                                      log((a_week + 0.1) / (a_month + 0.5))
    item_age, item_since                            log minutes since the item's first click, and since its newest

The half-life of "week" is `state.popularity_half_life_s`.
"""

import numpy as np

from model.ranking.candidates import Candidates
from model.ranking.context import Context
from model.ranking.families.columns import Columns
from model.ranking.families.log_minutes import log_minutes
from model.ranking.fusion import Fusion
from model.ranking.item_counts import POPULARITY_SHARPNESS
from state.events import Floats

POPULARITY = (
    "pop_week", "pop_hour", "pop_6h", "pop_day", "pop_month", "clicks", "trend_hour", "trend_day", "trend_week",
    "item_age", "item_since",
)  # fmt: skip


def popularity(context: Context, items: Candidates, fusion: Fusion, out: Columns) -> None:
    """Write POPULARITY."""
    found = context.counts.at(items.column, context.moments[items.user])
    for name, recent in zip(POPULARITY, found.recent.T, strict=False):
        out[name][:] = np.log1p(np.float32(POPULARITY_SHARPNESS) * recent)
    out["clicks"][:] = np.log1p(found.clicks)
    week, hour, _, day, month = found.recent.T
    for name, short, long in (("trend_hour", hour, day), ("trend_day", day, week), ("trend_week", week, month)):
        out[name][:] = _log_ratio(short, long)
    out["item_age"][:] = log_minutes(found.age_ms)
    out["item_since"][:] = log_minutes(found.since_ms)


def _log_ratio(short: Floats, long: Floats) -> Floats:
    found: Floats = np.log((short + np.float32(0.1)) / (long + np.float32(0.5)))
    return found
