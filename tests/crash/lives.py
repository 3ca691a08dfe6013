"""A nursery of workers: forked where everything is imported already, mortal where they are told to be.

`python -m tests.crash.lives` reads a LIFE a line, as JSON, forks a process that runs `anabranch ARGUMENT ...` and
answers with its process id. A life with a step dies by SIGKILL when it has reached that step for the COUNTth time
(step 0: after COUNT ms, wherever that is), and a second line says that it is dead. Nothing of the worker is replaced.
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
"""What every life would else import by itself, which takes longer than all it does before it dies."""


class Life(msgspec.Struct):
    """One process to be."""

    arguments: list[str]
    env: dict[str, str]
    log: str
    step: int | None = None
    count: int = 0
    clock_jumps_s: list[float] = []
    """The clock on the wall is set by so much after each second."""
    limits: dict[str, int] = {}
    """Of the `resource` module, by name: RLIMIT_NOFILE."""


class Nursery:
    """Starts lives; what still runs in the end is ended."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._alive: set[int] = set()

    def start(self, life: Life) -> int:
        """Begin a life that ends when it is told to by a signal; its process id."""
        child = self._begin(life)
        self._alive.add(child)
        return child

    def live(self, life: Life, given_up_s: float) -> bool:
        """A mortal life, to its end; whether it came to its step before it was given up."""
        child = self._begin(life)
        assert self._process.stdout is not None
        ended = threading.Thread(target=self._process.stdout.readline)
        ended.start()
        ended.join(given_up_s)
        if not ended.is_alive():
            return True
        os.kill(child, signal.SIGKILL)
        ended.join()
        return False

    def tell(self, child: int, number: int, within_s: float = 30.0) -> None:
        """Send a signal; wait for the end where it is one that ends."""
        os.kill(child, number)
        if number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + within_s
            while runs(child):
                assert time.monotonic() < deadline, f"process {child} did not end"
                time.sleep(0.05)
            self._alive.discard(child)

    def end(self) -> None:
        """End what still runs."""
        for child in [c for c in self._alive if runs(c)]:
            os.kill(child, signal.SIGKILL)
            os.kill(child, signal.SIGCONT)
        self._alive.clear()

    def _begin(self, life: Life) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(msgspec.json.encode(life).decode(), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


@contextmanager
def nursery(log: Path) -> Iterator[Nursery]:
    """The process that lives are forked from."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as said, subprocess.Popen(
        [sys.executable, "-m", "tests.crash.lives"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True,
    ) as process:  # fmt: skip
        made = Nursery(process)
        try:
            yield made
        finally:
            made.end()  # the nursery's input is closed then, and with that it ends


def runs(process: int) -> bool:
    """Whether a process is there, and not only its name in the table."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def mortal(step: int, count: int) -> None:
    """Make this process die at the step, or after some time."""
    from state import crash_points as steps

    if step == 0:
        signal.setitimer(signal.ITIMER_REAL, count / 1000)  # nobody handles it: the kernel ends the process
        return
    left = [count]

    def reached(done: int) -> None:
        left[0] -= done == step
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    steps.reached = reached


def set_clock(jumps_s: list[float]) -> None:
    """Have this process see the clock on the wall jump; what measures durations goes on as it does."""
    wall, wall_ns, begun = time.time, time.time_ns, time.monotonic()

    def shift() -> float:
        return sum(jumps_s[: int(time.monotonic() - begun)])

    time.time = lambda: wall() + shift()
    time.time_ns = lambda: wall_ns() + int(shift() * 1e9)


def lives() -> None:
    """One life after the other, as told."""
    for module in IMPORTED_BEFORE:
        importlib.import_module(module)
    from stream.cli import main

    for line in sys.stdin:
        life = msgspec.json.decode(line, type=Life)
        child = os.fork()
        if child == 0:
            try:
                with Path(life.log).open("ab") as said:
                    os.dup2(said.fileno(), 2)
                os.environ.update(life.env)
                if life.step is not None:
                    mortal(life.step, life.count)
                for name, limit in life.limits.items():
                    resource.setrlimit(getattr(resource, name), (limit, limit))
                if life.clock_jumps_s:
                    set_clock(life.clock_jumps_s)
                sys.argv = ["anabranch", *life.arguments]
                main()
            finally:
                os._exit(0)
        print(child, flush=True)
        if life.step is not None:
            os.waitpid(child, 0)
            print("dead", flush=True)


if __name__ == "__main__":
    lives()
