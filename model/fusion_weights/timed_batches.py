"""Batches of tests in order of time, each with the events that arrived before it."""

from collections.abc import Iterator

import numpy as np

from state.events import Ints, Records

TESTS_PER_BATCH = 64
"""Number of tests between two updates of the graph."""


def batches(arriving: Records, tests_ts: Ints, max_tests: int) -> Iterator[tuple[slice, Records]]:
    """Batches of at most `max_tests` tests, each with the events since the previous batch. Times ascend in both.

    The events of a batch are strictly older than its first test. So they contain neither an event that the batch
    predicts nor one of the same millisecond.

    >>> from state.events import make_events
    >>> arriving = make_events([1] * 4, [1] * 4, ts=[10, 20, 20, 30])
    >>> [(b.start, b.stop, a["ts"].tolist()) for b, a in batches(arriving, np.array([20, 20, 30]), 1)]
    [(0, 1, [10]), (1, 2, []), (2, 3, [20, 20])]
    """
    applied = 0
    for start in range(0, len(tests_ts), max_tests):
        until = max(applied, int(np.searchsorted(arriving["ts"], tests_ts[start], "left")))
        yield slice(start, min(start + max_tests, len(tests_ts))), arriving[applied:until]
        applied = until
