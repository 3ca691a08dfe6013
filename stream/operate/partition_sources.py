"""What is known of each partition: from the stores of this data directory, or from the record of its owner.

A store that is here has it exactly, if its worker owns the partition. A record of another machine is a second old at
most. Of a partition that nobody serves, what has come furthest is shown.
"""

import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from state.progress import Progress
from state.view import View
from stream.members.installation import Claim, claims, installation
from stream.members.member import PartitionState, TrainerState, begin
from stream.members.sightings import Doing, SeenMember
from stream.operate.model_report import ModelStatus
from stream.operate.worker_report import WorkerReport, partition_state
from stream.trainer import status_file


class PartitionStatus(msgspec.Struct):
    """How far one partition of `clicks` has been applied."""

    partition: int
    next_offset: int | None
    """None while its store has never been opened here."""
    log_end: int | None
    """None if no broker answers."""
    lag: int | None
    state: str
    """`answering`, or what keeps it from that: `opening`, `catching up`, `lagging`, `paused`, `faulted`, `waiting for
    the group`, `not responding`, or `down`: nobody serves it. Without a broker only the worker of this data directory
    counts, and a partition that it does not own is `not here`."""
    owner: str | None = None
    """The living worker that owns it, as `worker/NAME`; None: nobody, or no broker answers."""
    lag_ms: int | None = None
    """For how long the oldest record that is not applied has been in the log, at most; None: not known."""


class Sources(NamedTuple):
    """Where each partition is read from."""

    partitions: list[PartitionStatus]
    here: dict[int, Progress]
    elsewhere: dict[int, Claim]
    members: list[SeenMember]
    warnings: list[str]


def sources(
    view: View,
    log_ends: Mapping[int, int] | None,
    worker: WorkerReport | None,
    members: Sequence[SeenMember] | None,
) -> Sources:
    """Every partition, from where it is known best. `members` None: only this data directory is known."""
    progress = {number: p.read_progress() for number, p in view.partitions.items()}
    if members is None:
        numbers = sorted({*progress, *(worker.phases if worker else ())})
        states = [here(number, progress.get(number), log_ends, worker) for number in numbers]
        return Sources(states, progress, {}, [], [])
    known = with_worker_of_here(members, worker)
    claimed = claims(known)
    whole = installation(known, log_ends if log_ends else {*claimed, *progress}, log_ends)
    chosen: dict[int, Progress] = {}
    elsewhere: dict[int, Claim] = {}
    partitions = []
    for p in whole.partitions:
        claim, own = claimed.get(p.partition), progress.get(p.partition)
        status = PartitionStatus(p.partition, p.next_offset, p.log_end, p.lag, p.state, p.owner, p.lag_ms)
        if own is not None and is_best(own, claim, worker):
            chosen[p.partition] = own
            lag = None if p.log_end is None else max(p.log_end - own.log_offset, 0)
            status = msgspec.structs.replace(status, next_offset=own.log_offset, lag=lag)
        elif claim is not None:
            elsewhere[p.partition] = claim
        partitions.append(status)
    return Sources(partitions, chosen, elsewhere, known, whole.warnings)


def here(
    number: int, progress: Progress | None, log_ends: Mapping[int, int] | None, worker: WorkerReport | None
) -> PartitionStatus:
    """One partition's progress against the end of its log, and what the worker of this data directory does with it."""
    end = log_ends.get(number) if log_ends is not None else None
    next_offset = progress.log_offset if progress is not None else None
    lag = None if end is None or next_offset is None else max(end - next_offset, 0)
    return PartitionStatus(number, next_offset, end, lag, partition_state(number, lag, worker))


def is_of(worker: WorkerReport | None, seen: SeenMember) -> bool:
    """Whether a member is the worker of this data directory."""
    if worker is None or seen.member.kind != "worker":
        return False
    return seen.member.life == (socket.gethostname(), worker.pid, worker.started_ts)


def with_worker_of_here(members: Sequence[SeenMember], worker: WorkerReport | None) -> list[SeenMember]:
    """The members, with what this machine knows better of the worker of this data directory: whether it runs.

    One that may not write to the topic, or has just started, has no record there.
    """
    if worker is None:
        return list(members)
    doing: Doing = "dead" if worker.doing == "down" else worker.doing
    known = [
        msgspec.structs.replace(seen, doing=doing) if is_of(worker, seen) and seen.doing != "stopped" else seen
        for seen in members
    ]
    if worker.doing == "down" or any(is_of(worker, seen) for seen in known):
        return known
    member = begin("worker", worker.instance)
    member = msgspec.structs.replace(
        member,
        pid=worker.pid,
        started_ts=worker.started_ts,
        starting=False,
        partitions={number: PartitionState(phase=phase) for number, phase in worker.phases.items()},
    )
    return [*known, SeenMember(member, doing, 0.0)]


def is_best(own: Progress, claim: Claim | None, worker: WorkerReport | None) -> bool:
    """Whether the store of this data directory knows a partition best."""
    if claim is None or is_of(worker, claim.by):
        return True
    return not claim.by.lives and own.log_offset >= (claim.state.next_offset or 0)


def trainer_of(data: Path, members: Sequence[SeenMember]) -> TrainerState | None:
    """The trainer of this data directory, or else one that runs elsewhere, or what the last one did."""
    own = status_file.read(data)
    if own is not None and own.doing != "not running":
        return own
    others = [seen for seen in members if seen.member.trainer is not None]
    newest = max(others, key=lambda seen: (seen.lives, -seen.seen_s), default=None)
    if newest is None or newest.member.trainer is None or (own is not None and not newest.lives):
        return own
    return (
        newest.member.trainer if newest.lives else msgspec.structs.replace(newest.member.trainer, doing="not running")
    )


def served_by(model: ModelStatus, members: Sequence[SeenMember], worker: WorkerReport | None) -> ModelStatus:
    """The version that answers, as the living workers report it where none of them is that of this data directory."""
    living = [seen for seen in members if seen.lives and seen.member.kind == "worker" and seen.member.partitions]
    if not living or any(is_of(worker, seen) for seen in living):
        return model
    differing = [seen.member for seen in living if seen.member.version != model.named]
    shown = differing[0] if differing else living[0].member
    why = shown.version_problem or "it has not followed the pointer yet"
    age_s = round(time.time() - shown.version_created_ts / 1000, 1) if shown.version_created_ts else None
    return msgspec.structs.replace(
        model,
        version=shown.version,
        age_s=model.age_s if model.version == shown.version and model.age_s is not None else age_s,
        artifacts=None,
        problem=f"worker {shown.instance} on {shown.host}: {why}" if differing else None,
    )
