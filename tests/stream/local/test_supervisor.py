"""The supervisor of `anabranch up`: which processes are started again, and which end it."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.config import Config
from stream.errors import AnabranchError, ConfigError
from stream.local import supervisor as module
from stream.local.supervisor import RestartedChild, Supervisor, run_everything

ENDS = ["/bin/sh", "-c", "echo out of ideas; exit 1"]
IS_KILLED = ["/bin/sh", "-c", "kill -9 $$"]
RUNS = ["/bin/sh", "-c", "sleep 60"]


@pytest.fixture
def supervisor(tmp_path) -> Iterator[Supervisor]:
    made = Supervisor(Config(data=tmp_path))
    yield made
    made.stop()


def wait_until_ended(process: RestartedChild) -> None:
    deadline = time.monotonic() + 10
    while process.child.running:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "command"),
    [("trainer", ENDS), ("trainer", IS_KILLED), ("worker", IS_KILLED), ("serve", ENDS), ("serve", IS_KILLED)],
)
def test_a_trainer_that_ended_and_a_killed_worker_are_started_again_after_a_pause(
    supervisor, monkeypatch, capsys, name, command
):
    clock = [100.0]
    process = supervisor.start(name, command)
    wait_until_ended(process)
    first = process.child
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    supervisor.check()
    assert f"the {name} ended and is started again in 5 s" in capsys.readouterr().err
    clock[0] += 4.9
    supervisor.check()
    assert process.child is first
    clock[0] += 0.2
    supervisor.check()
    assert process.child is not first
    monkeypatch.undo()
    wait_until_ended(process)
    supervisor.check()
    assert "is started again in 10 s" in capsys.readouterr().err


def test_a_worker_that_ended_by_itself_ends_the_supervisor_with_its_last_lines(supervisor):
    wait_until_ended(supervisor.start("worker", ENDS))
    with pytest.raises(AnabranchError, match=r"the worker ended; .*worker\.log ends:\nout of ideas"):
        supervisor.check()


def test_a_process_whose_shell_was_killed_is_ended_before_it_is_started_again(supervisor, tmp_path):
    pids = tmp_path / "pids"
    process = supervisor.start("worker", ["/bin/sh", "-c", f"echo $PPID $$ >{pids}; exec sleep 60"])
    deadline = time.monotonic() + 10
    while not (pids.exists() and len(pids.read_text().split()) == 2):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    shell, worker = map(int, pids.read_text().split())
    os.kill(shell, signal.SIGKILL)
    wait_until_ended(process)
    supervisor.check()
    while is_running(worker):
        assert time.monotonic() < deadline, "it holds the data directory, so that the next one would end at once"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_running_process_is_left_alone(supervisor):
    process = supervisor.start("worker", RUNS)
    first = process.child
    supervisor.check()
    assert process.child is first
    supervisor.stop()
    assert not first.running


def test_the_embedded_broker_is_refused_with_tls(tmp_path):
    from stream.config import KafkaSettings

    config = Config(data=tmp_path, kafka=KafkaSettings(security="ssl"))
    with pytest.raises(ConfigError, match="the embedded one supports plaintext only"), run_everything(config):
        pass
