"""Whether this worker may still answer for its partitions.

The group gives a partition to another worker when its owner sent no heartbeat for the session timeout. A worker that
was stopped for longer (a suspended machine, a paused process, a network that was cut) does not notice by itself. It
resumes with answers that may be older than what the next owner has sent.
"""

import time

CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that goes on while the machine is suspended, and does not jump when the wall clock is set."""


class Lease:
    """Held until `session_timeout_ms` after the group last confirmed this worker as a member."""

    def __init__(self, session_timeout_ms: int) -> None:
        self._lasts_s = session_timeout_ms / 1000
        self._until = float("-inf")

    @staticmethod
    def now() -> float:
        """Seconds by the lease's clock."""
        return time.clock_gettime(CLOCK)

    def confirmed(self, asked_at: float) -> None:
        """Extend the lease: the group answered a request that this worker sent as a member at `asked_at`."""
        self._until = max(self._until, asked_at + self._lasts_s)

    @property
    def was_held(self) -> bool:
        """Whether the group ever confirmed it."""
        return self._until > 0

    @property
    def held(self) -> bool:
        """Whether no other worker can own our partitions yet."""
        return self.now() < self._until


class LeaseLost(Exception):
    """The lease has run out: another worker may own the partition, and its answers may be newer."""
