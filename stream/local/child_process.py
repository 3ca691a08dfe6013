"""A process of ours that never outlives us, not even when we are killed.

The child runs under a shell that also reads a pipe we hold. However we end, the pipe closes, and the shell ends the
child. A session of its own keeps the terminal's Ctrl-C from reaching it before we decide what ends first.
"""

import os
import subprocess
from pathlib import Path

WATCHED = """
exec 3<&0
"$@" </dev/null 3<&- & child=$!
(cat <&3 >/dev/null; kill $child 2>/dev/null) & watch=$!
wait $child; status=$?
kill $watch 2>/dev/null
exit $status
"""
GRACE_S = 15.0
BY_SIGNAL = 128
"""A shell tells of a child that signal n ended by the status 128 + n."""


class Child:
    """A running process, its output going to a file."""

    def __init__(self, name: str, command: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", WATCHED, "sh", *command],
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
        """Whether a signal ended it that nobody had asked us for: kill -9, or the kernel for want of memory."""
        status = self._process.poll()
        return status is not None and (status < 0 or status > BY_SIGNAL)

    def last_words(self, lines: int = 5) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """End it and wait; one that does not end in time is killed."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()
