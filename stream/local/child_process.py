"""A child process that never outlives its parent, also if the parent is killed.

The child runs under a shell that reads a pipe from the parent. The pipe closes however the parent ends, and the shell
then ends the child. The child has a session of its own: the terminal's Ctrl-C does not reach it, so that the parent
decides the order in which its children end.

Its output goes through another pipe to a process that writes the log and rotates it (`rotated_log.py`). That one ends
when nobody can write to the pipe any more, and so it has every line, also those of a crash.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from stream.config import LogSettings
from stream.local import rotated_log

SHELL_SCRIPT = """
exec 3<&0
"$@" </dev/null 3<&- & child=$!
(cat <&3; kill $child) >/dev/null 2>&1 & watch=$!
wait $child; status=$?
kill $watch 2>/dev/null
exit $status
"""
STOP_WITHIN_S = 15.0
LOG_WITHIN_S = 2.0
"""How long the last lines of an ended child may take."""
SIGNAL_STATUS = 128
"""The shell exits with 128 + n if signal n ended the child."""


class Child:
    """A running process, its output going to a file that is rotated by size."""

    def __init__(
        self,
        name: str,
        command: list[str],
        log: Path,
        env: dict[str, str] | None = None,
        rotation: LogSettings | None = None,
    ) -> None:
        """Start it. Raises OSError where the log cannot be written."""
        self.name = name
        self.log = log
        self._rotation = rotation or LogSettings()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch(0o600)
        self._output, written = os.pipe()
        try:
            self._writer = self._write_log()
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", SHELL_SCRIPT, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=written,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=None if env is None else os.environ | env,
            )
        finally:
            os.close(written)

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def killed(self) -> bool:
        """Whether a signal ended it that we did not send: kill -9, or the kernel when memory ran out."""
        status = self._process.poll()
        return status is not None and (status < 0 or status > SIGNAL_STATUS)

    def keep_log_written(self) -> None:
        """Write its log again if the process that does so was killed. A full pipe would keep the child waiting."""
        if self._writer.poll() is not None and self.running:
            self._writer = self._write_log()

    def last_lines(self, lines: int = 5) -> str:
        """The end of its log."""
        if not self.running:
            self._wait_for_log()
        parts = (self.log.with_name(f"{self.log.name}.1"), self.log)  # it may have been rotated just now
        text = "".join(part.read_text(errors="replace") for part in parts if part.exists())
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """End it and wait; kill it if it does not end within STOP_WITHIN_S."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()
        if not self._wait_for_log():  # a process that left its session still holds the pipe
            self._writer.kill()
            self._writer.wait()
        with contextlib.suppress(OSError):  # stopped before
            os.close(self._output)

    def _write_log(self) -> "subprocess.Popen[bytes]":
        program = [sys.executable, "-I", "-S", rotated_log.__file__]
        arguments = [str(self.log), str(self._rotation.max_bytes), str(self._rotation.keep)]
        return subprocess.Popen(
            program + arguments, stdin=self._output, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def _wait_for_log(self) -> bool:
        """Wait until the log has everything; return whether it has."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._writer.wait(LOG_WITHIN_S)
        return self._writer.poll() is not None
