"""The trainer's status, in a file beside the state: `anabranch status` reads it, also when no trainer runs."""

import contextlib
from pathlib import Path

import msgspec

from stream.files import json_file
from stream.files.lock_file import is_held
from stream.members.member import TrainerState
from stream.times import now_ms

FILE_NAME = "trainer.json"


class TrainerReporter:
    """Holds the status in memory and writes it to the file."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self.current = TrainerState(since_ts=now_ms())

    def update(self, **changed: object) -> None:
        """Change some fields and write the file."""
        if changed.get("doing", self.current.doing) != self.current.doing:
            changed["since_ts"] = now_ms()
        self.current = msgspec.structs.replace(self.current, **changed)
        self.write()

    def progress(self, share: float, what: str) -> None:
        """Note how far a cycle is; called from the thread that learns, so the file is written later."""
        self.current.share, self.current.what = share, what

    def finish_cycle(self, result: str) -> None:
        """A cycle succeeded."""
        self.update(doing="waiting", what="", share=0.0, last=result, last_ts=now_ms(), failures=0, failure="")

    def fail_cycle(self, message: str, why: str) -> None:
        """A cycle failed."""
        failures = self.current.failures + 1
        self.update(doing="waiting", what=message, share=0.0, failures=failures, failure=why)

    def write(self) -> None:
        """Write the file; a full disk does not stop the trainer."""
        with contextlib.suppress(OSError):
            json_file.write(self._data / FILE_NAME, self.current)


def read(data: Path) -> TrainerState | None:
    """The last status, `not running` where no trainer holds the directory; None where there never was one."""
    status = json_file.read(data / FILE_NAME, TrainerState)
    if status is not None and not is_held(data / "trainer.lock"):
        status.doing = "not running"
    return status


def failing(status: TrainerState) -> list[str]:
    """Why the trainer does not learn: its last cycles failed."""
    if not status.failures:
        return []
    last = "its last cycle" if status.failures == 1 else f"its last {status.failures} cycles"
    return [f"{last} failed, and the champion keeps serving: {status.failure}"]
