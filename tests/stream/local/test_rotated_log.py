"""A log that is rotated: every line once, in order, however its writer and its file end."""

import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from stream.config import LogSettings
from stream.local.child_process import Child
from stream.local.rotated_log import RotatedLog


def parts(log: Path) -> list[Path]:
    """The files of a log, the oldest first."""
    older = sorted(log.parent.glob(f"{log.name}.*"), key=lambda path: -int(path.suffix[1:]))
    return [*older, log]


def text_of(log: Path) -> str:
    return "".join(path.read_text() for path in parts(log))


def until(condition: Callable[[], object], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("seed", range(5))
def test_lines_cut_anywhere_arrive_whole_and_in_order(tmp_path, seed):
    draw, path = random.Random(seed), tmp_path / "worker.log"
    text = "".join(f"{n} {'x' * draw.randrange(40)}\n" for n in range(500)).encode()
    log = RotatedLog(path, 300, keep=1000)
    at = 0
    while at < len(text):
        size = draw.choice([1, 7, 60, 700])
        log.write(text[at : at + size])
        at += size
    assert text_of(path).encode() == text
    assert len(parts(path)) > 40
    for part in parts(path):
        assert part.stat().st_size < 300 + 50, "a line that was begun is ended in its file"
        assert part.read_bytes().endswith(b"\n")
        assert stat.S_IMODE(part.stat().st_mode) == 0o600


def test_only_the_newest_files_are_kept(tmp_path):
    path = tmp_path / "worker.log"
    log = RotatedLog(path, 10, keep=2)
    for n in range(9):
        log.write(b"line %d..\n" % n)
    assert [part.read_text() for part in parts(path)] == ["line 6..\n", "line 7..\n", "line 8..\n"]


def test_without_older_files_the_log_is_emptied(tmp_path):
    path = tmp_path / "worker.log"
    log = RotatedLog(path, 10, keep=0)
    for n in range(9):
        log.write(b"line %d..\n" % n)
    assert [part.read_text() for part in parts(path)] == ["line 8..\n"]


def test_a_line_without_an_end_fills_no_disk(tmp_path):
    path = tmp_path / "worker.log"
    log = RotatedLog(path, 1000, keep=3)
    for _ in range(100):
        log.write(b"x" * 100)
    assert sum(part.stat().st_size for part in parts(path)) <= 4 * 2 * 1000


def test_a_log_goes_on_after_others_cut_moved_or_removed_it(tmp_path):
    path = tmp_path / "worker.log"
    log = RotatedLog(path, 1000, keep=3)
    log.write(b"before\n")
    os.truncate(path, 0)
    log.write(b"cut\n")
    assert path.read_text() == "cut\n"
    path.rename(tmp_path / "moved")
    log.write(b"moved\n")
    assert path.read_text() == "moved\n"
    path.unlink()
    log.write(b"removed\n")
    assert path.read_text() == "removed\n"


def test_after_a_full_disk_the_log_says_how_much_is_missing(tmp_path, monkeypatch):
    path, write = tmp_path / "worker.log", os.write

    def full(_: int, __: bytes) -> int:
        raise OSError(28, "No space left on device")

    log = RotatedLog(path, 1000, keep=3)
    log.write(b"before\n")
    monkeypatch.setattr(os, "write", full)
    log.write(b"12345678\n")
    log.write(b"9\n")
    monkeypatch.setattr(os, "write", write)
    log.write(b"after\n")
    assert path.read_text() == "before\n[11 bytes could not be written here]\nafter\n"


COUNTS = """
import sys
for n in range(20_000):
    print(n, file=sys.stderr if n % 2 else sys.stdout, flush=True)
raise RuntimeError("it crashes")
"""


def test_every_line_and_the_traceback_of_a_child_that_crashes_are_in_its_log(tmp_path):
    child = Child(
        "worker", [sys.executable, "-c", COUNTS], tmp_path / "worker.log", rotation=LogSettings(max_bytes=9000, keep=99)
    )
    until(lambda: not child.running)
    assert child.last_lines(1) == "RuntimeError: it crashes"
    child.stop()
    lines = text_of(child.log).splitlines()
    assert lines[:20_000] == [str(n) for n in range(20_000)]
    assert len(parts(child.log)) > 5


IGNORES = 'trap "echo asked to end; exit 0" TERM; echo runs; while true; do sleep 0.1; done'


def test_the_last_lines_are_written_also_where_the_parent_was_killed(tmp_path):
    log = tmp_path / "worker.log"
    code = f"""
import time
from pathlib import Path
from stream.local.child_process import Child
child = Child("worker", ["/bin/sh", "-c", {IGNORES!r}], Path({str(log)!r}))
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    until(lambda: log.exists() and "runs" in log.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(lambda: "asked to end" in log.read_text())


def test_a_killed_log_writer_is_replaced_and_nothing_is_missing(tmp_path):
    runs = "import time\nfor n in range(10_000):\n    print(n, flush=True)\n    time.sleep(0.002)"
    child = Child("worker", [sys.executable, "-c", runs], tmp_path / "worker.log")
    until(lambda: child.log.read_text().count("\n") > 10)
    [writer] = [p for p in psutil.Process().children() if str(child.log) in p.cmdline()]
    writer.suspend()  # it is killed while it waits, not between a read and a write
    time.sleep(0.05)
    writer.kill()
    time.sleep(0.1)
    child.keep_log_written()
    lines = child.log.read_text().count("\n")
    until(lambda: child.log.read_text().count("\n") > lines + 100)
    child.stop()
    written = child.log.read_text().split("\n")[:-1]
    assert written.pop() == "Terminated"  # by the shell
    assert written == [str(n) for n in range(len(written))]
