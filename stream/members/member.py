"""What one process of the installation says about itself, every second, on the topic `members`.

A smaller record is in a file beside the state, for a reader without a broker (`status_file`).
"""

import os
import socket
from importlib.metadata import version
from typing import Annotated, Any, Literal

import msgspec

from state.progress import Progress
from stream.times import now_ms

Kind = Literal["worker", "trainer", "serve"]
NOT_COUNTED = {"next_offset", "base", "oldest_ts", "newest_ts"}
"""Fields of a progress that are no counts."""
EVERY_S = 1.0
"""How often a member publishes its state."""
MAX_RECORD_BYTES, MAX_PARTITIONS = 512 << 10, 1_000
"""A larger record, or one with more partitions, is of no member: others may write to the topic, and each reader keeps
and shows what is in it. A store has files open, so a process cannot own as many."""


class PartitionState(msgspec.Struct, kw_only=True):
    """One partition of `clicks` that a worker owns. Offsets are those of the log."""

    phase: str
    """`opening`, `catching up`, `answering` or `faulted` (`stream/stores/assignment.py`)."""
    lagging: bool = False
    """Whether the log has held more clicks than were read, for 10 s."""
    next_offset: int | None = None
    """The first offset that is not applied; None while the store is not open."""
    log_end: int | None = None
    lag_ms: int = 0
    """For how long the oldest record that is not applied has been in the log, at most; 0: nothing lags."""
    pending: int = 0
    """Users who wait for an answer."""
    counts: dict[str, int] = {}
    """Events by outcome, users, items and edges (`state/progress.py`). Those that are 0 are left out."""
    id_key: str = ""
    """Fingerprint of the key that its ids are hashed with; empty: none, or the store is not open."""


class ScoreState(msgspec.Struct):
    """A version or baseline, tested by the events of this member's partitions (`stream/live_metrics.py`)."""

    events: int
    hits: float
    ndcg: float
    rolling_hit: float
    rolling_ndcg: float


class TrainerState(msgspec.Struct, kw_only=True):
    """What a trainer does. Times are ms of the wall clock."""

    doing: Literal["waiting", "learning", "not running"] = "waiting"
    since_ts: int = 0
    what: str = ""
    """Why a cycle runs and what it does now, or why the last one failed."""
    share: float = 0.0
    """Share of the running cycle that is done."""
    events: int = 0
    """New events since the last cycle began."""
    last: str = ""
    """Result of the last cycle."""
    last_ts: int = 0
    failures: int = 0
    """Cycles that failed since the last that succeeded."""
    failure: str = ""
    """Why the last of them failed."""
    drifts: int = 0
    """How often drift was found since the trainer started."""


class Member(msgspec.Struct, kw_only=True):
    """A process. Times are ms of its wall clock; counts are since its start."""

    kind: Kind
    instance: str
    """Its name; unique among the members of one kind."""
    host: str
    pid: int
    software: str
    """Version of Anabranch."""
    started_ts: int
    ts: int
    """When this was written."""
    address: str = ""
    """HOST:PORT of its HTTP server, as others reach it; empty: it has none."""
    starting: bool = False
    """Whether it still reads pointers and loads its version."""
    stopped: bool = False
    """Whether it has ended as it should: its last record."""
    paused_ts: int = 0
    """Since when an operator's pause lasts; 0: not paused."""
    confirmed: bool = True
    """Whether the group has confirmed this worker within its session timeout. Without it nothing is applied or sent."""
    caught_up_ts: int = 0
    """When a poll last took all clicks that the log had."""
    version: str | None = None
    """The version that answers; None: popular items."""
    version_created_ts: int = 0
    """When that version was made."""
    version_problem: str = ""
    """Why it is not the one that the pointer names."""
    last_error: str = ""
    last_error_ts: int = 0
    partitions: Annotated[dict[int, PartitionState], msgspec.Meta(max_length=MAX_PARTITIONS)] = {}
    scores: dict[str, ScoreState] = {}
    counts: dict[str, int] = {}
    """Of the whole process: `too_many_requests`, `sent_smaller`, `unsendable`, `lost_dead_letters`."""
    trainer: TrainerState | None = None

    @property
    def key(self) -> str:
        """Its key in the topic."""
        return f"{self.kind}/{self.instance}"

    @property
    def life(self) -> tuple[str, int, int]:
        """What tells this process from one before it, or beside it, that has the same name."""
        return self.host, self.pid, self.started_ts


def begin(kind: Kind, instance: str, address: str = "") -> Member:
    """The record of this process as it starts."""
    now, host = now_ms(), socket.gethostname()
    return Member(
        kind=kind,
        instance=instance,
        host=host,
        pid=os.getpid(),
        software=version("anabranch"),
        started_ts=now,
        ts=now,
        address=reached_at(address, host),
        starting=True,
    )


def reached_at(address: str, host: str) -> str:
    """HOST:PORT at which others reach a server that listens on `address`; empty where there is none.

    >>> reached_at(":8081", "shop-2"), reached_at("127.0.0.1:8081", "shop-2"), reached_at("", "shop-2")
    ('shop-2:8081', '127.0.0.1:8081', '')
    """
    listens_on, colon, port = address.rpartition(":")
    every_address = listens_on in ("", "0.0.0.0", "[::]")
    return f"{host if every_address else listens_on}:{port}" if colon else ""


def counts_of(progress: Progress) -> dict[str, int]:
    """What a partition has counted; what is 0 is left out."""
    counted = {name: value for name, value in msgspec.structs.asdict(progress).items() if name not in NOT_COUNTED}
    return {name: value for name, value in (counted | {"edges": progress.edges}).items() if value}


def decode_member(value: bytes | None) -> Member | None:
    """The record in a message of the topic; None if it holds none: others may write to the topic."""
    if value is None or len(value) > MAX_RECORD_BYTES:
        return None
    try:
        member: Any = msgspec.json.decode(value, type=Member)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return member if member.instance else None
