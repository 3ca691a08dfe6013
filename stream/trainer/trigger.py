"""When a cycle is due by itself: enough new events, enough seconds, or drift. Times are monotonic, s."""

from collections import Counter

import numpy as np

from state.events import Ids
from stream.config import TrainerSettings

FIRST_PAUSE_S = 10.0
"""Pause after a failed cycle. Each further failure doubles it, up to `trainer.every_s`."""


class Trigger:
    """Counts new events since the last cycle began."""

    def __init__(self, settings: TrainerSettings, now: float) -> None:
        self._settings = settings
        self._began = now
        self._not_before = now
        self._counts: Counter[int] = Counter()
        self._drift: str | None = None
        self._failures = 0
        self.events = 0
        """New events, at most `user_events` of each user, so that a bot's million events do not start a cycle."""

    def update(self, users: Ids) -> None:
        """Count new events by their users."""
        found, counts = np.unique(users, return_counts=True)
        most = self._settings.user_events
        for user, count in zip(found.tolist(), counts.tolist(), strict=True):
            before = self._counts[user]
            self._counts[user] = min(before + count, most)
            self.events += self._counts[user] - before

    def on_drift(self, reason: str) -> None:
        """Drift was found: the next cycle is due at once, if there are enough events."""
        self._drift = reason

    def due(self, now: float) -> str | None:
        """The reason why a cycle is due, or None."""
        settings = self._settings
        if now < self._not_before:
            return None
        if self._failures:
            return "the last cycle failed"
        if self.events >= settings.every_events:
            return f"{self.events:,} new events"
        if self.events < settings.min_events:
            return None
        if self._drift is not None:
            return self._drift
        if now - self._began >= settings.every_s:
            return f"{now - self._began:.0f} s and {self.events:,} new events"
        return None

    def began(self, now: float) -> None:
        """A cycle begins with all new events: count from 0."""
        self._began = now
        self._counts.clear()
        self._drift = None
        self.events = 0

    def ended(self) -> None:
        """The cycle succeeded."""
        self._failures = 0

    def failed(self, now: float) -> float:
        """The cycle failed; return how long to wait before the next one, which learns the same events."""
        pause = min(FIRST_PAUSE_S * 2.0**self._failures, max(self._settings.every_s, FIRST_PAUSE_S))
        self._failures += 1
        self._not_before = now + pause
        return pause
