"""The worker's status, in a file beside the state: `anabranch status` reads it, also when no worker runs."""

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from stream.files import json_file
from stream.files.lock_file import is_held

log = logging.getLogger("anabranch.worker")

FILE_NAME, LOCK_NAME = "worker.json", "worker.lock"
LOG_AGAIN_MS = 60_000
"""While a worker is paused or lags, it is logged this often."""
LAGGING_AFTER_MS = 10_000
"""A worker lags when no poll has taken all clicks of the log for this long."""


class WorkerStatus(msgspec.Struct):
    """Times are ms of the wall clock."""

    instance: str = ""
    pid: int = 0
    ts: int = 0
    """When this was written."""
    started_ts: int = 0
    paused_ts: int = 0
    """Since when an operator's pause lasts; 0: not paused."""
    confirmed: bool = True
    """Whether the group has confirmed this worker within its session timeout. Without it nothing is applied or sent."""
    joined: bool = True
    """Whether the group's assignment is in effect: not before the first, nor during a rebalance."""
    caught_up_ts: int = 0
    """When a poll last took all clicks that the log had."""
    event_ts: int = 0
    """Event time when this was written (`stream/worker/event_clock.py`); 0: no event was applied yet."""
    phases: dict[int, str] = {}
    """Phase of each partition that this worker owns: `opening`, `catching up`, `answering` or `faulted`."""
    too_many_requests: int = 0
    """Requests replied to with `too many` since the start; also the next counts."""
    sent_smaller: int = 0
    unsendable: int = 0
    lost_dead_letters: int = 0

    @property
    def behind_ms(self) -> int:
        """For how long no poll has taken all clicks of the log."""
        return self.ts - self.caught_up_ts


class WorkerReporter:
    """Writes the file, and logs what an operator should know while it lasts."""

    def __init__(self, data: Path, look: Callable[[WorkerStatus], None]) -> None:
        """`look` fills in the present state."""
        self._file, self._look = data / FILE_NAME, look
        self._paused_logged_ts = self._lag_logged_ts = 0
        self._before = read(data)

    def started(self, instance: str, now_ms: int) -> None:
        """Begin; log that a pause has ended with the worker that was paused."""
        self.current = WorkerStatus(instance, os.getpid(), now_ms, now_ms, caught_up_ts=now_ms)
        if self._before is not None and self._before.paused_ts:
            log.warning(
                "the worker before this one was paused: a restart ends a pause, and clicks are read again. "
                "`anabranch pause` pauses this one"
            )

    def report(self, now_ms: int) -> None:
        """Write the present state, and log a pause and a lag when they begin, every minute, and when they end."""
        status, was_paused = self.current, self.current.paused_ts
        status.ts = now_ms
        self._look(status)
        if status.paused_ts:
            if now_ms - self._paused_logged_ts >= LOG_AGAIN_MS:
                self._paused_logged_ts = now_ms
                log.warning(
                    "paused for %.0f s by an operator: no clicks are read until `anabranch resume`",
                    (now_ms - status.paused_ts) / 1000,
                )
        elif was_paused:
            self._paused_logged_ts = 0
            log.info("resumed after %.0f s: clicks are read again", (now_ms - was_paused) / 1000)
        self._log_lag(status, now_ms)
        with contextlib.suppress(OSError):  # a full disk does not stop the worker
            json_file.write(self._file, status)

    def _log_lag(self, status: WorkerStatus, now_ms: int) -> None:
        if not status.paused_ts and status.behind_ms >= LAGGING_AFTER_MS:
            if now_ms - self._lag_logged_ts >= LOG_AGAIN_MS:
                self._lag_logged_ts = now_ms
                log.warning(
                    "lagging: for %.0f s the log has held more clicks than were read; users are answered when all are "
                    "applied", status.behind_ms / 1000,
                )  # fmt: skip
        elif self._lag_logged_ts:
            self._lag_logged_ts = 0
            log.info("caught up with the log")


def read(data: Path) -> WorkerStatus | None:
    """The last status; None where no worker has written one."""
    return json_file.read(data / FILE_NAME, WorkerStatus)


def is_running(data: Path) -> bool:
    """Whether a worker holds the data directory."""
    return is_held(data / LOCK_NAME)
