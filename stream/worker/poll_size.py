"""How many events are polled at once: as many as can be applied in `worker.fold_hold_ms`.

The larger a batch, the cheaper an event: each record of a user or an item is written once a batch. But heartbeats and
the answers to requests wait for the batch.

A forget or a dead letter takes several times as long as a click, and its message must be acknowledged first. A batch
ends before it has too many of them.
"""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from state.store import Store
from stream.kafka.decode import Decoded, Record

FIRST_POLL_EVENTS, MIN_POLL_EVENTS = 10_000, 500
MAX_SLOW_RECORDS = 4000
"""Forgets and dead letters of one batch, at most."""


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


def affordable(store: Store, records: Sequence[Record], decoded: Decoded) -> int:
    """How many of the records make one batch: those before the first slow one beyond MAX_SLOW_RECORDS."""
    events = decoded.batch.events
    forgets = store.progress.in_log(events["offset"][store.kinds.forget[events["kind"]]])
    slow = np.sort(np.concatenate([forgets, np.array([letter.record.offset for letter in decoded.dead], np.int64)]))
    if len(slow) <= MAX_SLOW_RECORDS:
        return len(records)
    return bisect_left(records, slow[MAX_SLOW_RECORDS], key=lambda record: record.offset)
