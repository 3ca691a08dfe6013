"""A newcomer types what the README says, line by line."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stream.load_config import load
from tests.e2e.conftest import until

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def commands(text: str) -> list[str]:
    return [line.strip() for line in re.findall(r"^    (\S.*)$", text, re.M)]


def test_the_first_screen_has_exactly_two_commands():
    first = commands(README.split("Both need")[0])
    assert [c.split("#")[0].strip() for c in first] == ["make demo", "make test"]


def test_make_alone_lists_the_targets():
    said = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "test-kafka", "lint", "types", "bench", "docs-check", "clean"):
        assert re.search(rf"^{target} +\S", said, re.M), target


@pytest.mark.broker
def test_your_own_clicks_as_the_readme_has_it(broker, tmp_path):
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANABRANCH_DATA": str(tmp_path / "data"),
        "PYTHONWARNINGS": "ignore",
    }
    typed = [c.replace("HOST:PORT", broker).split("  #")[0] for c in commands(section("Your own clicks"))]
    typed = [c for c in typed if re.match(r"anabranch|python|echo|kcat", c)]
    endless = re.compile(r"anabranch up|subscribe\.py|kcat -C")
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for command in typed:
            if "kcat" in command and shutil.which("kcat") is None:
                continue
            if endless.search(command):
                with (tmp_path / f"said-{len(started)}").open("wb") as said:
                    started[command] = subprocess.Popen(
                        f"exec {command}", shell=True, cwd=ROOT, env=env, stdout=said, stderr=said
                    )
                continue
            subprocess.run(command, shell=True, cwd=ROOT, env=env, check=True, capture_output=True, timeout=60)
        place = next(n for n, command in enumerate(started) if "subscribe.py" in command)
        until(lambda: "alice: milk" in (tmp_path / f"said-{place}").read_text())
        until(lambda: list((tmp_path / "data").glob("clicks-*/CURRENT")))

        shown = commands(section("Looking and operating"))
        for words in ("status", "graph", "user ID", "item ID", "recommend USER", "pause", "resume"):
            assert any(words in line for line in shown), words
            line = f"anabranch {words} --json --broker {broker}".replace("ID", "alice").replace("USER", "alice")
            line = line.replace("item alice", "item milk")
            said = subprocess.run(line, shell=True, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
            assert said.returncode == 0, said.stderr
            json.loads(said.stdout)
    finally:
        for process in started.values():
            process.terminate()
            process.wait(40)


def test_the_configuration_shown_is_one(tmp_path):
    text = "\n".join(re.findall(r"^    (.*)$", section("Your own clicks").split("dotted paths:")[1], re.M))
    assert tomllib.loads(text)
    file = tmp_path / "anabranch.toml"
    file.write_text(text.replace("HOST:PORT", "localhost:9092"))
    config = load(file, {"ANABRANCH_KAFKA__SASL_PASSWORD": "x"})
    assert config.clicks.fields.user == "customer.id"
    assert config.kafka.tls
