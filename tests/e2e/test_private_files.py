"""No file of an installation can be read by another user of the machine, whatever the umask of the shell."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import until

CLICKS = "".join(f'{{"user": "user-{n % 9}", "item": "item-{n % 7}"}}\n' for n in range(90))


def open_to_others(folder: Path) -> list[str]:
    """What group or others may read, write or enter, with its mode."""
    found = ((path, stat.S_IMODE(path.lstat().st_mode)) for path in [folder, *folder.rglob("*")])
    return [f"{path} {mode:o}" for path, mode in found if mode & 0o077]


@pytest.mark.broker
def test_state_logs_checkpoints_and_backups_are_for_their_own_user(tmp_path):
    data, artifacts, output = tmp_path / "data", tmp_path / "artifacts", tmp_path / "output"
    clicks = tmp_path / "clicks.jsonl"
    clicks.write_text(CLICKS)
    env = {**os.environ, "ANABRANCH_CHECKPOINTS__EVERY_S": "1", "ANABRANCH_ARTIFACTS": str(artifacts)}

    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "stream.cli", *arguments, "--data", str(data)]

    def run(*arguments: str) -> str:
        done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=90, env=env, umask=0)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with output.open("wb") as written:
        up = subprocess.Popen(command("up"), stdout=written, stderr=written, env=env, umask=0)
    try:
        until(lambda: "anabranch is up" in output.read_text())
        broker = output.read_text().split("broker ")[1].split(",")[0]
        run("publish", str(clicks), "--broker", broker)
        until(lambda: list(data.glob("clicks-*/CURRENT")))
        until(lambda: json.loads(run("status", "--json"))["events"]["applied"] == 90)
        until(lambda: list(artifacts.rglob("files/*")))
        run("backup", str(tmp_path / "backup"), "--broker", broker)
        for folder in (data, artifacts, tmp_path / "backup"):
            assert open_to_others(folder) == []
        names = {path.name for path in data.rglob("*")}
        assert {"worker.log", "trainer.log", "broker.log", "worker.lock", "trainer.lock", "CURRENT"} <= names
    finally:
        up.terminate()
        up.wait(40)
