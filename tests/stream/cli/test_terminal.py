"""What commands do with terminals, shells, encodings, full disks and closed pipes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from state.events import hash_id
from state.identity import Identity
from state.settings import StateSettings
from state.store import Store
from state.titles import Titles
from stream.cli import main  # noqa: F401  registers the commands
from stream.cli.app import app
from stream.cli.entry import run_command
from stream.cli.output import MAX_COMPLAINTS, Complaints, show
from stream.cli.watch import show_message
from stream.printable import printable
from tests.state.oracle import Event, apply
from tests.stream.cli.small_shop import RECOMMENDATION
from tests.stream.cli.test_cli import COMMANDS, ROOT

USER = "ann\x1b[2J\u202e"
ITEM = "milk\n2026-01-01 00:00:00  purchase  tea\x9b"
TITLE = "Größe \x1b]0;owned\x07"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("shop") / "data"
    store = Store(data / "clicks-0", Identity("cluster", "clicks", 0, 1, 100, 32), StateSettings())
    apply(store, *(Event(USER, item, 1_700_000_000_000 + n) for n, item in enumerate((ITEM, "é", ITEM))))
    store.pending.claim(10)
    recommendation = RECOMMENDATION | {"user": USER, "items": [{"item": ITEM, "score": 0.5, "title": TITLE}]}
    store.record_answers([(hash_id(USER), msgspec.json.encode(recommendation))])
    store.close()
    titles = Titles(data)
    titles.apply({hash_id(ITEM): TITLE}, "topic", {0: 1})
    titles.close()
    return data


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A command, with the streams and the environment that are given."""
    env = {**os.environ, **options.pop("env", {})}
    command = [sys.executable, "-m", "stream.cli", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, cwd=ROOT, env=env, **options)


@pytest.mark.parametrize("command", [["user", USER], ["item", ITEM], ["item", ITEM, "--at", "2024-01-01"]])
def test_ids_and_titles_are_escaped_on_the_terminal_and_whole_in_the_document(shop, command):
    shown = CliRunner().invoke(app, [*command, "--data", str(shop)], catch_exceptions=False).stdout
    assert all(printable(line) == line for line in shown.splitlines())
    assert r"milk\n2026-01-01 00:00:00  purchase  tea\x9b" in shown
    if command == ["user", USER]:
        assert [line.split()[-1] for line in shown.splitlines()[:3]] == [r"tea\x9b", "é", r"tea\x9b"]
        assert r"Größe \x1b]0;owned\x07" in shown
    document = CliRunner().invoke(app, [*command, "--data", str(shop), "--json"], catch_exceptions=False).stdout
    assert document.count("\n") == 1
    assert printable(document.rstrip()) == document.rstrip()
    found = json.loads(document)
    assert found.get("user", USER) == USER
    assert ITEM in (found.get("item"), *(step["item"] for step in found.get("sequence", [])))


def test_a_table_is_escaped(capsys):
    from rich.table import Table

    table = Table("version", "age\x1b[1m", box=None)
    table.add_row("[bold]000001\x1b[31m", "x\ny", style="bold")
    show(table)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["version", r"age\x1b[1m"], [r"[bold]000001\x1b[31m", r"x\ny"]]


@pytest.mark.parametrize("as_json", [True, False])
def test_a_terminal_without_the_characters_gets_escapes(shop, as_json):
    arguments = ["user", USER, "--data", str(shop), *(["--json"] if as_json else [])]
    for env in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        found = run(*arguments, stdout=subprocess.PIPE, env=env)
        assert (found.returncode, found.stderr) == (0, "")
        assert found.stdout.isascii()
        if as_json:
            assert [step["item"] for step in json.loads(found.stdout)["sequence"]] == [ITEM, "é", ITEM]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["user", USER], ["user", USER, "--json"], ["--help"], ["--version"]])
def test_a_full_disk_behind_stdout_is_one_line_and_exit_1(shop, arguments):
    with open("/dev/full", "w") as full:
        found = run(*arguments, *([] if arguments[0].startswith("-") else ["--data", str(shop)]), stdout=full)
    assert found.returncode == 1
    [line] = found.stderr.splitlines()
    assert line.startswith("anabranch: cannot write")
    assert line.endswith("No space left on device")


@pytest.mark.parametrize("as_json", [True, False])
def test_a_reader_who_has_gone_is_no_error(shop, as_json):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        found = run("user", USER, "--data", str(shop), *(["--json"] if as_json else []), stdout=writer)
    finally:
        os.close(writer)
    assert (found.returncode, found.stderr) == (0, "")


def test_closed_streams_are_no_error(shop):
    command = f"{sys.executable} -m stream.cli graph --data {shop} >&- 2>&- <&-"
    assert subprocess.run(command, shell=True, cwd=ROOT, timeout=60, check=False).returncode == 0


def test_the_version_is_shown():
    assert CliRunner().invoke(app, ["--version"]).output.startswith("anabranch 0.")


@pytest.mark.parametrize("name", ["", *sorted(COMMANDS)])
def test_every_command_has_a_short_flag_for_its_help(name):
    found = CliRunner().invoke(app, [name, "-h"] if name else ["-h"])
    assert (found.exit_code, found.output.split()[0]) == (0, "Usage:")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["watch", "--limit", "-1", "--broker", "x:1"], "'--limit'"),
        (["watch", "--limit", "0", "--broker", "x:1"], "'--limit'"),
        (["watch", "--limit", "nan", "--broker", "x:1"], "'--limit'"),
        (["forget", "ann", "--within", "nan", "--broker", "x:1"], "'--within'"),
        (["forget", "ann", "--within", "inf", "--broker", "x:1"], "inf is not a finite number"),
        (["forget", "ann", "--within", "-1", "--broker", "x:1"], "'--within'"),
        (["evaluate", "f", "--protocol", "prequential", "--cycles", "9" * 30], "'--cycles'"),
        (["evaluate", "f", "--protocol", "prequential", "--seed", "-1"], "'--seed'"),
        (["up", "--port", "65536"], "'--port'"),
        (["demo", "--seconds", "nan"], "'--seconds'"),
        (["demo", "--events", "0"], "'--events'"),
        (["publish", "f", "--broker", "x:1", "--speed", "nan"], "--speed nan"),
        (["publish", "f", "--broker", "x:1", "--speed", "infx"], "--speed infx"),
        (["publish", "f", "--broker", "x:1", "--speed", "0x"], "--speed 0x"),
        (["graph", "--from", "yesterday"], "'yesterday' is not a time"),
        (["user", "ann", "--at", "12"], "'12' is not a time, it is too small"),
    ],
)
def test_a_wrong_number_is_one_line_and_exit_2(shop, arguments, message, monkeypatch, capsys):
    on_state = ["--data", str(shop)] if arguments[0] in ("graph", "user") else []
    monkeypatch.setattr(sys, "argv", ["anabranch", *arguments, *on_state])
    assert run_command() == 2
    output = capsys.readouterr()
    [line] = output.err.splitlines()
    assert message in line
    assert output.out == ""


@pytest.mark.parametrize(
    ("arguments", "env", "meant"),
    [
        (["statsu"], "", "'status'"),
        (["status", "--brokr", "x:1"], "", "--broker"),
        (["status"], "ANABRANCH_TRAINER_EVERY_S", "did you mean ANABRANCH_TRAINER__EVERY_S?"),
        (["status"], "ANABRANCH_TRIANER__EVERY_S", "environment variable ANABRANCH_TRIANER__EVERY_S"),
    ],
)
def test_a_mistyped_command_flag_or_setting_is_answered_with_the_right_one(arguments, env, meant, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["anabranch", *arguments])
    if env:
        monkeypatch.setenv(env, "5")
    assert run_command() == 2
    [line] = capsys.readouterr().err.splitlines()
    assert meant in line


def test_complaints_are_counted_after_the_first_twenty(capsys):
    complaints = Complaints()
    for line in range(1, 101):
        complaints(line, "x\x1b[2J")
    complaints.end()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == MAX_COMPLAINTS + 1
    assert lines[0] == r"anabranch: line 1: x\x1b[2J; left out"
    assert lines[-1] == "anabranch: and 80 more lines left out"


def record(value: bytes) -> Any:
    return SimpleNamespace(value=value, partition=1, offset=7)


def test_a_foreign_message_in_a_watched_topic_is_reported_and_the_next_is_shown(capsys):
    complaints = Complaints("offset")
    for junk in (b"not json", b"[1]", b'{"user": "ann"}', b"\xff\xfe", b"[" * 5000):
        assert not show_message(record(junk), True, complaints)
    shown = RECOMMENDATION | {"user": USER, "more": [1, 2]}
    assert show_message(record(json.dumps(shown, indent=2).encode()), True, complaints)
    assert show_message(record(json.dumps(shown, indent=2).encode()), False, complaints)
    output = capsys.readouterr()
    document, line = output.out.splitlines()
    assert json.loads(document) == shown
    assert line.startswith(r"ann\x1b[2J\u202e (version 000001, after offset 0:3): Green tea")
    assert output.err.count("\n") == complaints.count == 5
    assert output.err.startswith("anabranch: offset 7: no recommendation, in partition 1: ")
