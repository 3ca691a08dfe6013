"""Clicks of a candidate item by all users."""

import numpy as np

from model.ranking.candidates import Candidates
from model.ranking.context import Context
from model.ranking.families.log_minutes import log_minutes
from model.ranking.fusion import Fusion
from model.ranking.item_counts import POPULARITY_SHARPNESS
from state.events import Floats

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
    out[:, 9] = log_minutes(found.age_ms)
    out[:, 10] = log_minutes(found.since_ms)
