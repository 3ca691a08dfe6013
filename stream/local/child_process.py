"""A child process that never outlives its parent, also if the parent is killed.

The child runs under a shell that reads a pipe from the parent. The pipe closes however the parent ends, and the shell
then ends the child. The child has a session of its own: the terminal's Ctrl-C does not reach it, so that the parent
decides the order in which its children end.
"""

import os
import subprocess
from pathlib import Path

SHELL_SCRIPT = """
exec 3<&0
"$@" </dev/null 3<&- & child=$!
(cat <&3 >/dev/null; kill $child 2>/dev/null) & watch=$!
wait $child; status=$?
kill $watch 2>/dev/null
exit $status
"""
STOP_WITHIN_S = 15.0
SIGNAL_STATUS = 128
"""The shell exits with 128 + n if signal n ended the child."""


class Child:
    """A running process, its output going to a file."""

    def __init__(self, name: str, command: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", SHELL_SCRIPT, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=None if env is None else os.environ | env,
            )

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def killed(self) -> bool:
        """Whether a signal ended it that we did not send: kill -9, or the kernel when memory ran out."""
        status = self._process.poll()
        return status is not None and (status < 0 or status > SIGNAL_STATUS)

    def last_lines(self, lines: int = 5) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """End it and wait; kill it if it does not end within STOP_WITHIN_S."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()
