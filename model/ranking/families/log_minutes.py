"""Times as features: in log minutes."""

import numpy as np

MINUTE_MS, DAY_MS = 60_000.0, 86_400_000.0
NEVER = 20.0
"""Time since a click that never was: longer than any in log minutes."""


def log_minutes(ms: np.ndarray) -> np.ndarray:
    """log(1 + minutes)."""
    found: np.ndarray = np.log1p(np.maximum(ms, 0) / MINUTE_MS)
    return found
