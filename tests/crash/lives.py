"""A nursery of workers that die where they are told to: `python -m tests.crash.lives ARGUMENT ...`.

Reads a line "STEP COUNT" for each life, forks a process that runs `anabranch ARGUMENT ...` until it has reached the
step for the COUNTth time and dies there by SIGKILL, and answers with a line when it is dead. STEP 0 dies after COUNT
ms, wherever that is. Everything is imported once, so a life begins at once; nothing of the worker is replaced.
"""

import os
import signal
import sys

import faust  # noqa: F401
import torch  # noqa: F401

import stream.app
import stream.worker  # noqa: F401
from state import steps
from stream.cli import main


def mortal(step: int, count: int) -> None:
    """Make this process die at the step, or after some time."""
    if step == 0:
        signal.setitimer(signal.ITIMER_REAL, count / 1000)  # nobody handles it: the kernel ends the process
        return
    left = [count]

    def reached(done: int) -> None:
        left[0] -= done == step
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    steps.reached = reached


def nursery() -> None:
    """One life after the other, as told."""
    arguments = sys.argv[1:]
    for line in sys.stdin:
        step, count = map(int, line.split())
        child = os.fork()
        if child == 0:
            mortal(step, count)
            sys.argv = ["anabranch", *arguments]
            main()
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)


if __name__ == "__main__":
    nursery()
