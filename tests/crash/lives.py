"""Worker processes that die where a test wants it. They are forked from a process that has imported everything.

`python -m tests.crash.lives` reads a `Life` a line, as JSON. For each it forks a process that runs
`anabranch ARGUMENT ...`, and answers with the process id. A life with a crash point dies by SIGKILL when it has reached
that point for the COUNTth time (point 0: after COUNT ms, wherever that is), and a second line reports its death.
Nothing of the worker is replaced.
"""

import importlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

IMPORTED_BEFORE = (
    "torch", "numpy.ma", "pydantic.type_adapter", "faust.worker", "faust.tables.manager", "faust.tables.recovery",
    "faust.assignor.leader_assignor", "faust.fixups.django", "faust.transport.drivers.aiokafka", "faust.app.router",
    "stream.worker.service", "stream.worker.pipeline", "stream.cli.control", "stream.cli.demo", "stream.cli.forget",
    "stream.cli.inspect",
    "stream.cli.publish", "stream.cli.recovery", "stream.cli.watch", "stream.cli.run",
)  # fmt: skip
"""Imports that would take each process longer than the rest of its life."""


class Life(msgspec.Struct):
    """One process to start."""

    arguments: list[str]
    env: dict[str, str]
    log: str
    crash_point: int | None = None
    count: int = 0
    clock_jumps_s: list[float] = []
    """After each second, the wall clock jumps by this much."""
    limits: dict[str, int] = {}
    """Limits of the `resource` module by name, such as RLIMIT_NOFILE."""


class ForkServer:
    """Starts lives, and ends those that still run in the end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._alive: set[int] = set()

    def start(self, life: Life) -> int:
        """Start a life that runs until a signal; its process id."""
        child = self._fork(life)
        self._alive.add(child)
        return child

    def run_to_crash(self, life: Life, give_up_s: float) -> bool:
        """Run a life with a crash point to its end. Return whether it reached the point before `give_up_s`."""
        child = self._fork(life)
        assert self._process.stdout is not None
        ended = threading.Thread(target=self._process.stdout.readline)
        ended.start()
        ended.join(give_up_s)
        if not ended.is_alive():
            return True
        os.kill(child, signal.SIGKILL)
        ended.join()
        return False

    def signal(self, child: int, number: int, within_s: float = 30.0) -> None:
        """Send a signal; wait for the end of the process if the signal ends it."""
        os.kill(child, number)
        if number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + within_s
            while is_running(child):
                assert time.monotonic() < deadline, f"process {child} did not end"
                time.sleep(0.05)
            self._alive.discard(child)

    def end(self) -> None:
        """End what still runs."""
        for child in [c for c in self._alive if is_running(c)]:
            os.kill(child, signal.SIGKILL)
            os.kill(child, signal.SIGCONT)
        self._alive.clear()

    def _fork(self, life: Life) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(msgspec.json.encode(life).decode(), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


@contextmanager
def fork_server(log: Path) -> Iterator[ForkServer]:
    """The process that lives are forked from."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as errors, subprocess.Popen(
        [sys.executable, "-m", "tests.crash.lives"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
    ) as process:  # fmt: skip
        made = ForkServer(process)
        try:
            yield made
        finally:
            made.end()  # its input is closed then, and with that it ends


def is_running(process: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def crash_at(point: int, count: int) -> None:
    """Make this process die at the crash point, or after some time."""
    from state import crash_points

    if point == 0:
        signal.setitimer(signal.ITIMER_REAL, count / 1000)  # no handler: the kernel ends the process
        return
    left = [count]

    def reached(done: int) -> None:
        left[0] -= done == point
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    crash_points.reached = reached


def set_clock(jumps_s: list[float]) -> None:
    """Make the wall clock of this process jump. The clock that measures durations goes on."""
    wall, wall_ns, begun = time.time, time.time_ns, time.monotonic()

    def shift() -> float:
        return sum(jumps_s[: int(time.monotonic() - begun)])

    time.time = lambda: wall() + shift()
    time.time_ns = lambda: wall_ns() + int(shift() * 1e9)


def serve() -> None:
    """Fork one life for each line of the input."""
    for module in IMPORTED_BEFORE:
        importlib.import_module(module)
    from stream.cli import main

    for line in sys.stdin:
        life = msgspec.json.decode(line, type=Life)
        child = os.fork()
        if child == 0:
            try:
                with Path(life.log).open("ab") as log:
                    os.dup2(log.fileno(), 2)
                os.environ.update(life.env)
                if life.crash_point is not None:
                    crash_at(life.crash_point, life.count)
                for name, limit in life.limits.items():
                    resource.setrlimit(getattr(resource, name), (limit, limit))
                if life.clock_jumps_s:
                    set_clock(life.clock_jumps_s)
                sys.argv = ["anabranch", *life.arguments]
                main()
            finally:
                os._exit(0)
        print(child, flush=True)
        if life.crash_point is not None:
            os.waitpid(child, 0)
            print("dead", flush=True)


if __name__ == "__main__":
    serve()
