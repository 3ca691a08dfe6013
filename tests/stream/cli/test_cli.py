"""What commands print, and how they end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from state.id_hash import UNKEYED
from state.identity import Identity
from state.settings import StateSettings
from state.store import Store
from stream.cli import recovery
from stream.cli.app import app
from stream.config import Config
from stream.errors import AnabranchError, BrokerUnavailable
from stream.kafka.messages import CommandReply
from stream.local.data_directory import data_directory_lock
from stream.operate import send_command
from stream.stores.rebuild import Since
from tests.state.oracle import Event, apply

ROOT = Path(__file__).parents[3]
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


def anabranch(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "stream.cli", *arguments],
        capture_output=True, text=True, timeout=60, cwd=ROOT, env={**os.environ, **(env or {})},
    )  # fmt: skip


def flags_of(name: str) -> list[str]:
    return [flag for parameter in COMMANDS[name].params for flag in parameter.opts if flag.startswith("--")]


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"demo"}))
def test_every_command_but_the_demo_takes_the_shared_flags(name):
    flags = flags_of(name)
    begin = flags.index("--data")
    assert flags[begin : begin + 3] == ["--data", "--broker", "--config"]
    assert ("--json" in flags) == (name not in {"up", "worker", "trainer", "serve"})


@pytest.mark.parametrize(
    ("arguments", "env", "status", "message"),
    [
        (["status", "--data", "/nonexistent"], {}, 1, "no state in /nonexistent"),
        (["init", "--broker", "127.0.0.1:1"], {}, 1, "no Kafka broker answers at 127.0.0.1:1"),
        (["init"], {}, 2, "no broker: name one with --broker"),
        (["init"], {"ANABRANCH_TOPICS__CLICK": "x"}, 2, "unknown setting 'topics.click'"),
        (["init"], {"ANABRANCH_TRAINER__EVERY_S": "often"}, 2, "trainer.every_s"),
        (["init", "--config", "none.toml"], {}, 2, "there is no configuration file 'none.toml'"),
        (
            ["worker", "--broker", "x:1", "--data", "/proc/none"],
            {},
            1,
            "the data directory /proc/none cannot be written",
        ),
        (["publish", "--speed", "-3", "--broker", "x:1", "f"], {}, 2, "--speed -3"),
        (["models", "--data", "/nonexistent"], {}, 1, "no version in /nonexistent/models yet"),
        (["evaluate", "/nonexistent.csv", "--protocol", "prequential"], {}, 1, "cannot read /nonexistent.csv"),
        (["up", "--broker", "x:1", "--port", "9"], {}, 2, "--port is the embedded broker's"),
        (
            ["up", "--data", "/nonexistent"],
            {"ANABRANCH_KAFKA__SECURITY": "ssl"},
            2,
            "kafka.security is 'ssl', but no broker is named, and the embedded one supports plaintext only",
        ),
        (["status", "--broker", "localhost:abc"], {}, 2, "setting 'broker': 'localhost:abc' is not HOST:PORT"),
        (["status", "--config", "/"], {}, 2, "the configuration file '/' cannot be read: Is a directory"),
        (["status", "--data", "caf\udce9"], {}, 2, "--data: 'caf\\udce9' is not UTF-8"),
        (["backup", "caf\udce9"], {}, 2, "'caf\\udce9' is not UTF-8"),
        (["forget", "caf\udce9", "--broker", "x:1"], {}, 2, "'caf\\udce9' is not UTF-8"),
        (["watch", "caf\udce9", "--broker", "x:1"], {}, 2, "'caf\\udce9' is not UTF-8"),
        (["replay", "--from", "9" * 5000, "--broker", "x:1"], {}, 2, "is neither `earliest`, an offset"),
        (["nonsense"], {}, 2, "No such command"),
    ],
)
def test_a_mistake_ends_with_a_message_and_an_exit_status(arguments, env, status, message):
    found = anabranch(*arguments, env=env)
    assert message in found.stderr.replace("\n", " ")
    assert found.returncode == status
    assert "Traceback" not in found.stderr
    assert found.stdout == ""


def test_up_names_a_port_that_is_in_use(tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        found = anabranch("up", "--port", port, "--data", str(tmp_path))
    assert f"port {port} is in use already" in found.stderr
    assert found.returncode == 1


def test_a_second_worker_on_one_data_directory_is_refused(tmp_path):
    import fcntl

    with (tmp_path / "worker.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        found = anabranch("worker", "--broker", "127.0.0.1:1", "--data", str(tmp_path))
    assert "in use by another worker (process 4711)" in found.stderr
    assert found.returncode == 1


def shop(data: Path, partition: int = 0) -> None:
    """A store with two events of one user."""
    identity = Identity("cluster", "clicks", partition, 1, 100, 32)
    store = Store(data / f"clicks-{partition}", identity, StateSettings())
    apply(store, Event("ann", "milk", 1_700_000_000_000), Event("ann", "bread", 1_700_000_060_000))
    store.close()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["user", "ann", "--at", "²"], 2, "'²' is not a time"),
        (["item", "milk", "--at", "99999999999999999999999"], 2, "'99999999999999999999999' is not a time"),
        (["graph", "--to", "9" * 5000], 2, "is not a time"),
        (["graph", "--out", "/"], 1, "cannot write --out /: Is a directory"),
        (["user", "caf\udce9"], 2, "'caf\\udce9' is not UTF-8"),
        (["item", "caf\udce9"], 2, "'caf\\udce9' is not UTF-8"),
        (["recommend", "caf\udce9"], 2, "'caf\\udce9' is not UTF-8"),
    ],
)
def test_a_mistake_about_an_existing_state_ends_with_a_message(tmp_path, arguments, status, message):
    shop(tmp_path)
    found = anabranch(*arguments, "--data", str(tmp_path))
    assert message in found.stderr.replace("\n", " ")
    assert (found.returncode, found.stdout) == (status, "")
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("arguments", [["user", "ann"], ["item", "milk"], ["graph"], ["recommend", "ann"], ["status"]])
def test_a_command_refuses_a_state_that_cannot_be_read(tmp_path, arguments):
    shop(tmp_path)
    (tmp_path / "clicks-0" / "CURRENT").write_text("nonsense")
    found = anabranch(*arguments, "--data", str(tmp_path))
    assert f"anabranch: RocksDB cannot open {tmp_path}/clicks-0" in found.stderr
    assert "a worker started on this --data moves it aside" in found.stderr
    assert (found.returncode, found.stdout) == (1, "")
    assert "Traceback" not in found.stderr


def test_status_shows_the_readable_partitions_and_names_the_others(tmp_path):
    shop(tmp_path, 0)
    shop(tmp_path, 1)
    (tmp_path / "clicks-1" / "CURRENT").write_text("nonsense")
    found = anabranch("status", "--json", "--data", str(tmp_path))
    assert [p["partition"] for p in json.loads(found.stdout)["partitions"]] == [0]
    assert f"RocksDB cannot open {tmp_path}/clicks-1" in found.stderr
    assert found.returncode == 0


def test_replay_reports_whether_a_worker_swapped_the_rebuilt_state_in(tmp_path, monkeypatch):
    async def failed(*_: object) -> CommandReply:
        return CommandReply("1", "failed", "worker 0: the disk is full")

    async def no_reply(*_: object) -> CommandReply:
        raise BrokerUnavailable("no Kafka broker answers")

    config = Config(data=tmp_path, broker="x:1")
    with data_directory_lock(config.data, "worker"):
        monkeypatch.setattr(send_command, "send_command", failed)
        with pytest.raises(AnabranchError, match="the rebuilt state was not swapped in: worker 0: the disk is full"):
            recovery.swap_rebuilt(config, [0], UNKEYED)
        monkeypatch.setattr(send_command, "send_command", no_reply)
        assert recovery.swap_rebuilt(config, [0], UNKEYED) is False


def test_a_users_sequence_is_shown_as_it_was_at_a_time(tmp_path):
    shop(tmp_path)

    def items(*more: str) -> list[str]:
        found = anabranch("user", "ann", "--data", str(tmp_path), "--json", *more)
        assert found.returncode == 0, found.stderr
        return [step["item"] for step in json.loads(found.stdout)["sequence"]]

    assert items() == ["milk", "bread"]
    assert items("--at", "2023-11-14T22:13:30Z") == ["milk"]


def test_a_trainer_started_by_hand_does_not_slow_its_terminals_session():
    weight = Path("/proc/self/autogroup")
    if not weight.exists():
        pytest.skip("no /proc/self/autogroup: this kernel does not schedule by session")
    before = weight.read_text()
    subprocess.run(
        [sys.executable, "-c", "from stream.cli.process import lower_priority; lower_priority(False)"], check=True
    )
    assert weight.read_text() == before


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("earliest", Since()),
        ("12", Since(offset=12)),
        ("1970-01-01T00:00:01Z", Since(ts_ms=1000)),
        ("1960-01-01", Since(ts_ms=0)),  # Kafka knows no time before 1970
    ],
)
def test_replay_begins_at_the_earliest_offset_an_offset_or_a_time(text, since):
    assert recovery.parse_since(text) == since
