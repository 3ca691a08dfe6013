"""Drift: the share of events that were not predicted rises. ADWIN (Bifet and Gavaldà, 2007) on the prequential loss.

The loss of a tested event is 0 where it was among the ten recommended items, else 1. ADWIN fires repeatedly while a
change goes on, and also for improvements. Only a rise counts, and the next one only after `drift_quiet_s`.
"""

import numpy as np
from river.drift import ADWIN

MAX_LOSSES_PER_UPDATE = 2_000
"""ADWIN gets at most this many losses at once; they represent the others."""


class Drift:
    """Watches one model's tests as they are counted."""

    def __init__(self, delta: float, quiet_s: float) -> None:
        self._delta, self._quiet_s = delta, quiet_s
        self._adwin = ADWIN(delta=delta) if delta else None
        self._seen: tuple[int, float] | None = None
        self._quiet_until = -np.inf
        self.fired = 0

    def update(self, events: int, hits: float, now: float) -> str | None:
        """Update with the tests and hits counted so far; return a description of the drift, or None."""
        before, self._seen = self._seen, (events, hits)
        if self._adwin is None or before is None or events < before[0]:  # counts were reset
            return None
        tested, hit = events - before[0], hits - before[1]
        if not tested:
            return None
        count = min(tested, MAX_LOSSES_PER_UPDATE)
        missed = round(count * (1.0 - hit / tested))
        # Spread evenly: within one update the order is unknown.
        losses = np.diff(np.floor(np.linspace(0, missed, count + 1) + 1e-9))
        found = None
        for loss in losses.tolist():
            known = self._adwin.estimation
            self._adwin.update(loss)
            if self._adwin.drift_detected and self._adwin.estimation > known and now >= self._quiet_until:
                found = (
                    f"drift: {known:.1%} of events were missed before, {1 - hit / tested:.1%} of the newest {tested:,}"
                )
                self._quiet_until = now + self._quiet_s
                self.fired += 1
        return found
