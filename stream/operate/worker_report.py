"""What the worker of this data directory does, and the state of each of its partitions."""

import time
from pathlib import Path
from typing import Literal

import msgspec

from stream.worker import status_file
from stream.worker.status_file import LAGGING_AFTER_MS

STALE_AFTER_MS = 10_000
"""A running worker writes its status every second. After this long without one it is stopped, or its disk is full."""

Doing = Literal["running", "paused", "waiting for the group", "not responding", "down"]


class WorkerReport(msgspec.Struct):
    """The worker of this data directory. Times are ms of the wall clock; counts are since its start."""

    doing: Doing
    """`waiting for the group`: the broker is away, or another worker may own the partitions; `not responding`: the
    process is there and has written no status for 10 s; `down`: no process holds the data directory."""
    instance: str
    pid: int
    seen_ts: int
    """When it wrote its last status."""
    started_ts: int
    paused_ts: int | None
    """Since when it is paused; None: it is not."""
    too_many_requests: int
    """Requests replied to with `too many`."""
    sent_smaller: int
    """Messages that their topic refused and that were sent without titles or reasons, or truncated."""
    unsendable: int
    """Answers that their topic refused in every form. They went to the dead letters."""
    lost_dead_letters: int
    """Dead letters that their topic refused in every form. Each is in the log."""
    phases: dict[int, str]
    """Phase of each partition that it owns."""
    lagging: bool
    """Whether the log has held more clicks than were read, for 10 s."""


def worker_report(data: Path) -> WorkerReport | None:
    """The worker of the data directory; None where none has run since it writes a status."""
    status = status_file.read(data)
    if status is None:
        return None
    doing: Doing = "running"
    if not status_file.is_running(data):
        doing = "down"
    elif time.time() * 1000 - status.ts > STALE_AFTER_MS:
        doing = "not responding"
    elif status.paused_ts:
        doing = "paused"
    elif not status.confirmed:
        doing = "waiting for the group"
    return WorkerReport(
        doing,
        status.instance,
        status.pid,
        status.ts,
        status.started_ts,
        status.paused_ts or None,
        status.too_many_requests,
        status.sent_smaller,
        status.unsendable,
        status.lost_dead_letters,
        status.phases if doing != "down" else {},
        status.behind_ms >= LAGGING_AFTER_MS,
    )


def partition_state(number: int, lag: int | None, worker: WorkerReport | None) -> str:
    """The state of a partition here: what keeps it from answering, or `answering`.

    `not here`: another worker owns it, or nobody does.
    """
    if worker is None or worker.doing == "down":
        return "down"
    phase = worker.phases.get(number)
    if phase is None:
        return "not here"
    if worker.doing != "running":
        return worker.doing
    if phase == "answering" and worker.lagging and lag != 0:
        return "lagging"
    return phase
