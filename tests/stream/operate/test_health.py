"""`anabranch health`: from the process where it has an address, else from what it left in the data directory."""

import fcntl
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from stream.cli import app
from stream.config import Config, ServeSettings, TrainerSettings, WorkerSettings
from stream.files import json_file
from stream.http import listening_file
from stream.members.member import TrainerState
from stream.operate.health import health, roles_here
from stream.times import now_ms
from stream.worker import served_file
from stream.worker.served_file import Served
from stream.worker.status_file import WorkerStatus


@contextmanager
def running(data: Path, role: str) -> Iterator[None]:
    """A process that holds the data directory."""
    with (data / f"{role}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def wrote(data: Path, **status: object) -> None:
    """The status of a worker of this moment, unless it says otherwise."""
    of_now = WorkerStatus(instance="0", pid=1, ts=now_ms(), phases={0: "answering"})
    json_file.write(data / "worker.json", msgspec.structs.replace(of_now, **status))


def test_a_worker_without_an_address_is_judged_by_its_status_file(tmp_path):
    with running(tmp_path, "worker"):
        wrote(tmp_path)
        found = health(Config(data=tmp_path), "worker")
    assert (found.ready, found.problems) == (True, [])
    assert found.source == f"{tmp_path}/worker.json, because worker.http names no address"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"phases": {0: "answering", 1: "opening"}}, "partition 1 is opening"),
        ({"paused_ts": 1}, "anabranch resume"),
        ({"confirmed": False}, "does not confirm"),
        ({"joined": False}, "has not assigned"),
        ({"ts": 1}, "has written no status for"),
    ],
)
def test_its_file_says_what_is_missing(tmp_path, status, said):
    with running(tmp_path, "worker"):
        wrote(tmp_path, **status)
        [problem] = health(Config(data=tmp_path), "worker").problems
    assert said in problem


def test_a_version_that_is_not_served_is_a_problem_and_another_version_is_not(tmp_path):
    with running(tmp_path, "worker"):
        wrote(tmp_path)
        served_file.write(tmp_path, Served("000007", "", None, "the store does not answer"))
        [problem] = health(Config(data=tmp_path), "worker").problems
        assert problem == "version 000007 is named and not loaded: the store does not answer"
        served_file.write(tmp_path, Served("000007", "", "000006", "the store does not answer"))
        assert health(Config(data=tmp_path), "worker").ready


def test_a_worker_that_is_not_there_is_not_ready_whatever_it_wrote_last(tmp_path):
    wrote(tmp_path)
    [problem] = health(Config(data=tmp_path), "worker").problems
    assert problem.startswith(f"no worker holds {tmp_path}")


def test_a_trainer_is_ready_until_its_cycles_fail(tmp_path):
    config = Config(data=tmp_path)
    [problem] = health(config, "trainer").problems
    assert problem.startswith("no trainer holds")
    with running(tmp_path, "trainer"):
        assert health(config, "trainer").ready
        json_file.write(tmp_path / "trainer.json", TrainerState(failures=3, failure="a disk is full"))
        [problem] = health(config, "trainer").problems
    assert problem == "its last 3 cycles failed, and the champion keeps serving: a disk is full"


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """An HTTP server with one answer; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "ready", "said"),
    [
        (200, b'{"status":"ok","problems":[]}', True, ""),
        (503, b'{"status":"not ready","problems":["partition 3 is opening"]}', False, "partition 3 is opening"),
        (200, b"<html>a printer</html>", False, "what answers is no worker"),
        (500, b"\xff\xfe", False, "what answers is no worker"),
    ],
)
def test_a_process_with_an_address_is_asked(tmp_path, monkeypatch, status, body, ready, said):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # of the user; the process is on this machine
    with answering(status, body) as address:
        found = health(Config(data=tmp_path, worker=WorkerSettings(http=address)), "worker")
    assert (found.ready, found.source) == (ready, f"http://{address}/readyz")
    assert said in " ".join(found.problems)


def test_a_process_that_does_not_answer_is_not_ready(tmp_path):
    config = Config(data=tmp_path, worker=WorkerSettings(http="127.0.0.1:9"), trainer=TrainerSettings(http=":9"))
    with running(tmp_path, "worker"):
        [problem] = health(config, "worker").problems
        assert "nothing answers" in problem
        assert "its process runs" in problem
    assert health(config, "trainer").source == "http://127.0.0.1:9/readyz"
    assert roles_here(config) == ["worker", "trainer"]


def test_serve_is_asked_where_it_listens_whatever_port_the_setting_names(tmp_path):
    with answering(200, b'{"status":"ok","problems":[]}') as address:
        listening_file.write(tmp_path, address)
        taken = Config(data=tmp_path, serve=ServeSettings(http="127.0.0.1:9"))
        found = health(taken, "serve")
        assert (found.ready, found.source) == (True, f"http://{address}/readyz")
        assert roles_here(taken) == ["serve"]
        assert run(tmp_path) == (0, f"serve    ready (from http://{address}/readyz)\n")
    assert run(tmp_path, "--serve")[0] == 1


@pytest.mark.parametrize("left", [None, b"", b"[]", b'{"http":"127.0.0.1:7","host":"another"}', b'{"http":""}'])
def test_without_a_file_that_says_where_serve_listens_the_setting_does(tmp_path, left):
    if left is not None:
        (tmp_path / "serve.json").write_bytes(left)
        assert roles_here(Config(data=tmp_path)) == []
    found = health(Config(data=tmp_path, serve=ServeSettings(http=":9")), "serve")
    assert found.source == "http://127.0.0.1:9/readyz"
    assert "`anabranch serve` starts one" in found.problems[0]
    [problem] = health(Config(data=tmp_path, serve=ServeSettings(http="127.0.0.1:0")), "serve").problems
    assert "names no port" in problem


def test_what_answers_in_the_place_of_serve_is_named(tmp_path):
    with answering(200, b"<html>a printer</html>") as address:
        [problem] = health(Config(data=tmp_path, serve=ServeSettings(http=address)), "serve").problems
    assert problem.startswith("what answers is no `anabranch serve`")


def run(data: Path, *flags: str) -> tuple[int, str]:
    """Exit status and output of `anabranch health`."""
    found = CliRunner().invoke(app.app, ["health", "--data", str(data), *flags])
    return found.exit_code, found.stdout


def test_the_exit_status_and_the_sentence_agree(tmp_path):
    with running(tmp_path, "worker"):
        wrote(tmp_path)
        assert run(tmp_path) == (
            0,
            f"worker   ready (from {tmp_path}/worker.json, because worker.http names no address)\n",
        )
        wrote(tmp_path, phases={0: "opening\x1b[31m"})
        status, said = run(tmp_path, "--worker")
        assert (status, "not ready: partition 0 is opening\\x1b[31m" in said) == (1, True)
        status, document = run(tmp_path, "--worker", "--trainer", "--json")
        reports = json.loads(document)
        assert (status, reports["worker"]["ready"], reports["trainer"]["ready"]) == (1, False, False)


def test_nothing_to_judge_is_an_error_with_the_way_out(tmp_path):
    found = CliRunner().invoke(app.app, ["health", "--data", str(tmp_path)])
    assert found.exit_code == 1
    assert "--data DIR" in str(found.exception)
