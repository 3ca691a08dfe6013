"""How many events are polled at once: as many as can be applied in `worker.fold_hold_ms`.

The larger a batch, the cheaper an event: each record of a user or an item is written once a batch. But heartbeats and
the answers to requests wait for the batch.
"""

FIRST_POLL_EVENTS, MIN_POLL_EVENTS = 10_000, 500


class PollSize:
    """The size of the next poll, from how long the last batches took."""

    def __init__(self, max_events: int, hold_s: float) -> None:
        self._max_events, self._hold_s = max_events, hold_s
        self.events = min(FIRST_POLL_EVENTS, max_events)

    def update(self, events: int, seconds: float) -> None:
        """Adapt to the `seconds` that a batch of `events` took. A small batch is ignored: most of it is overhead.

        >>> size = PollSize(50_000, 0.5)
        >>> size.update(10_000, 0.1)
        >>> size.events
        30000
        """
        if events >= min(MIN_POLL_EVENTS, self._max_events):
            wanted = (self.events + self._hold_s * events / max(seconds, 1e-6)) / 2
            self.events = int(min(max(wanted, MIN_POLL_EVENTS), self._max_events))
