"""Drift: the share of events that nobody foretold rises. ADWIN (Bifet and Gavaldà, 2007) on the prequential loss.

Each tested event is 0 where it stood among the ten recommended, else 1. ADWIN fires again and again while a change goes
on, and for changes to the better too: only a rise counts, and after one nothing does for a while.
"""

import numpy as np
from river.drift import ADWIN

SPREAD = 2_000
"""At most so many events are told to ADWIN of one look: they stand for the rest."""


class Drift:
    """Watches one model's tests as they are counted."""

    def __init__(self, delta: float, quiet_s: float) -> None:
        self._delta, self._quiet_s = delta, quiet_s
        self._adwin = ADWIN(delta=delta) if delta else None
        self._seen: tuple[int, float] | None = None
        self._quiet_until = -np.inf
        self.fired = 0

    def look(self, events: int, hits: float, now: float) -> str | None:
        """Tests and hits in all, so far; what has drifted, in words, or None."""
        before, self._seen = self._seen, (events, hits)
        if self._adwin is None or before is None or events < before[0]:  # counts began anew
            return None
        tested, hit = events - before[0], hits - before[1]
        if not tested:
            return None
        told = min(tested, SPREAD)
        missed = round(told * (1.0 - hit / tested))
        # Evenly spread: within one look the order is not known.
        losses = np.diff(np.floor(np.linspace(0, missed, told + 1) + 1e-9))
        found = None
        for loss in losses.tolist():
            known = self._adwin.estimation
            self._adwin.update(loss)
            if self._adwin.drift_detected and self._adwin.estimation > known and now >= self._quiet_until:
                found = f"drift: {known:.1%} of events were missed, of the newest {tested:,} {1 - hit / tested:.1%}"
                self._quiet_until = now + self._quiet_s
                self.fired += 1
        return found
