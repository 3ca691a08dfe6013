"""A recorded stream played again: tests in order of time, and what arrived before each."""

from collections.abc import Iterator

import numpy as np

from state.events import Ints, Records

AT_ONCE = 64
"""Events tested against one state of the graph before it takes them in."""


def batches(arriving: Records, tests_ts: Ints, at_once: int) -> Iterator[tuple[slice, Records]]:
    """Batches of at most `at_once` tests and the events that arrived since the batch before; times ascend in both.

    What arrives before a batch is strictly older than its first test: none of the events that the batch predicts, and
    nothing of the first one's moment.

    >>> from state.events import make_events
    >>> arriving = make_events([1] * 4, [1] * 4, ts=[10, 20, 20, 30])
    >>> [(b.start, b.stop, a["ts"].tolist()) for b, a in batches(arriving, np.array([20, 20, 30]), 1)]
    [(0, 1, [10]), (1, 2, []), (2, 3, [20, 20])]
    """
    applied = 0
    for start in range(0, len(tests_ts), at_once):
        until = max(applied, int(np.searchsorted(arriving["ts"], tests_ts[start], "left")))
        yield slice(start, min(start + at_once, len(tests_ts))), arriving[applied:until]
        applied = until
