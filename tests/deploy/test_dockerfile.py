"""The Dockerfile and what it takes from the clone."""

import re
import runpy
import subprocess
import sys

import pytest
from typer.main import get_command

from stream.cli.app import app
from stream.config import setting_names
from tests.deploy.compose import DEPLOY
from tests.deploy.programs import program

ROOT = DEPLOY.parent
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
IGNORE = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
COPIED = [
    source
    for line in re.findall(r"^COPY ((?!--).+)$", DOCKERFILE, re.M)
    for source in line.split()[:-1]
]  # fmt: skip


@pytest.mark.ops
def test_hadolint_finds_nothing():
    done = subprocess.run([program("hadolint"), str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("source", COPIED)
def test_what_the_image_is_made_from_exists_and_is_sent_to_the_build(source):
    assert (ROOT / source).exists()
    assert f"!{source}" in IGNORE


def test_nothing_else_is_sent_to_the_build():
    assert IGNORE[0] == "*"
    assert sorted(line.removeprefix("!") for line in IGNORE if line.startswith("!")) == sorted(COPIED)


def test_the_base_has_the_python_that_the_lock_has_torch_for():
    [python] = re.findall(r"^ARG BASE=python:([\d.]+)-slim", DOCKERFILE, re.M)
    assert f"Python {python})" in (ROOT / "requirements-cpu.lock").read_text()


def test_the_commands_that_the_image_runs_exist():
    [command] = re.findall(r'^CMD \["(\w+)"\]', DOCKERFILE, re.M)
    [health] = re.findall(r'HEALTHCHECK .*CMD \["anabranch", "(\w+)"\]', DOCKERFILE)
    assert {command, health} <= COMMANDS.keys()


def test_the_settings_that_the_image_sets_exist():
    set_here = re.findall(r"ANABRANCH_([A-Z_]+)=", DOCKERFILE)
    assert set_here == ["DATA"]
    assert {name.lower().replace("__", ".") for name in set_here} <= set(setting_names())


def test_the_health_check_loads_nothing_heavy():
    """It runs four times a minute in every container."""
    script = "import sys, stream.operate.health; print(*{'torch', 'scipy', 'faust', 'rocksdict'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_package_is_checked_by_its_hash():
    script = (DEPLOY / "image/dependencies.py").read_text()
    [install] = re.findall(r"^def install\(.*?\n\n", script, re.M | re.S)
    assert '"--require-hashes"' in install
    assert '"--only-binary", ":all:"' in install
    # The rest, the names of EXTRA_PACKAGES aside, is a dry run.
    assert re.findall(r'pip\("install", (.*?),', script) == ['"--quiet"', "*binary"]
    assert '"--dry-run"' in script


def test_the_installed_packages_are_those_that_the_program_needs(tmp_path):
    """`needed` is pip's answer; `locked` finds every entry of the lock, with its hashes."""
    found = runpy.run_path(str(DEPLOY / "image/dependencies.py"))
    entries = found["locked"](ROOT / "requirements.lock")
    lock = (ROOT / "requirements.lock").read_text()
    assert "".join(entries.values()) == lock.partition("\n")[2]
    assert {"torch", "aiokafka", "typing-extensions", "faust-streaming"} <= entries.keys()
