"""How many events are polled at once: as many as are folded while the event loop is held for a moment.

The larger a batch, the cheaper an event, because what is written for a user or an item is written once a batch. But
heartbeats and the answers to requests wait meanwhile.
"""

FIRST, FEWEST = 10_000, 500


class PollSize:
    """The next poll's size, from how long the last folds took."""

    def __init__(self, most: int, hold_s: float) -> None:
        self._most, self._hold_s = most, hold_s
        self.events = min(FIRST, most)

    def took(self, events: int, seconds: float) -> None:
        """So many were folded in so long. A small batch says nothing: most of its time is not the events'.

        >>> stride = Stride(50_000, 0.5)
        >>> stride.took(10_000, 0.1)
        >>> stride.events
        30000
        """
        if events >= min(FEWEST, self._most):
            wanted = (self.events + self._hold_s * events / max(seconds, 1e-6)) / 2
            self.events = int(min(max(wanted, FEWEST), self._most))
