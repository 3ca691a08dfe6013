"""Tests in order of time, in batches, each with the events that arrived before it."""

from collections.abc import Iterator

import numpy as np

from state.events import Ints, Records

TESTS_PER_BATCH = 64
"""Tests against one state of the graph before it applies the next events."""


def batches(arriving: Records, tests_ts: Ints, most: int) -> Iterator[tuple[slice, Records]]:
    """Batches of at most `most` tests and the events that arrived since the batch before; times ascend in both.

    Events before a batch are strictly older than its first test: none of those that the batch predicts, and none of
    the same millisecond as the first.

    >>> from state.events import make_events
    >>> arriving = make_events([1] * 4, [1] * 4, ts=[10, 20, 20, 30])
    >>> [(b.start, b.stop, a["ts"].tolist()) for b, a in batches(arriving, np.array([20, 20, 30]), 1)]
    [(0, 1, [10]), (1, 2, []), (2, 3, [20, 20])]
    """
    applied = 0
    for start in range(0, len(tests_ts), most):
        until = max(applied, int(np.searchsorted(arriving["ts"], tests_ts[start], "left")))
        yield slice(start, min(start + most, len(tests_ts))), arriving[applied:until]
        applied = until
