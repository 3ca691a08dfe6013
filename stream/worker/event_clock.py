"""The moment of a request: event time goes on between events as the wall's does.

    now = newest event time seen + time since it was seen, at most the wall clock

So a replay of old events stays in their time, and a shop whose events come as they happen is at now.
"""

import time
from collections.abc import Callable

from stream.times import now_ms


class EventClock:
    """Event time now, as one worker sees it."""

    def __init__(self, wall_ms: Callable[[], int] = now_ms, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._wall_ms, self._monotonic_s = wall_ms, monotonic_s
        self._newest, self._seen_at = 0, 0.0

    def see(self, newest_ts: int) -> None:
        """An event of this time, ms, was applied. Late ones change nothing."""
        if newest_ts > self._newest:
            self._newest, self._seen_at = newest_ts, self._monotonic_s()

    @property
    def has_begun(self) -> bool:
        """Whether an event was seen."""
        return self._newest > 0

    @property
    def now(self) -> int:
        """Event time, ms; the wall clock before the first event."""
        wall = self._wall_ms()
        if not self.has_begun:
            return wall
        return min(self._newest + int(1000 * (self._monotonic_s() - self._seen_at)), wall)
