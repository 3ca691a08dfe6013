"""What the trainer is doing, kept beside the state: `anabranch status` finds it there, also when no trainer runs."""

import contextlib
import fcntl
from pathlib import Path
from typing import Literal

import msgspec

from stream import json_file

FILE = "trainer.json"


class TrainerStatus(msgspec.Struct):
    """The trainer's own account; times are ms of the wall clock."""

    doing: Literal["waiting", "learning", "not running"] = "waiting"
    since_ts: int = 0
    what: str = ""
    """Why it learns and how far it is, or what it waits for."""
    share: float = 0.0
    """Done of a cycle."""
    events: int = 0
    """New events since the last cycle began."""
    last: str = ""
    """What the last cycle came to."""
    last_ts: int = 0
    failures: int = 0
    """Cycles that failed since one went well."""
    failure: str = ""
    """Why the last of them did."""
    drifts: int = 0
    """Times that drift was found since the trainer started."""


def write(data: Path, health: TrainerStatus) -> None:
    """Keep it; a disk that is full does not stop the trainer."""
    with contextlib.suppress(OSError):
        json_file.write(data / FILE, health)


def read(data: Path) -> TrainerStatus | None:
    """As the trainer last kept it, `not running` where none holds the directory; None where none ever did."""
    health = json_file.read(data / FILE, TrainerStatus)
    if health is not None and not _held(data / "trainer.lock"):
        health.doing = "not running"
    return health


def _held(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False
