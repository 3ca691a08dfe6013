"""Every command and message of the README works as shown."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from stream.kafka.decode import Click
from stream.kafka.messages import Recommendation
from stream.load_config import load
from tests.e2e.conftest import until

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def commands(text: str) -> list[str]:
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return [line.strip() for line in re.findall(r"^    (\S.*)$", text, re.M)]


def test_the_first_screen_has_exactly_two_commands():
    first = commands(README.split("Both need")[0])
    assert [c.split("#")[0].strip() for c in first] == ["make demo", "make test"]


ONE_CLICK = "One click in, one recommendation out"


def test_make_alone_lists_the_targets():
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "test-kafka", "lint", "types", "bench", "docs-check", "clean"):
        assert re.search(rf"^{target} +\S", listed, re.M), target


def test_the_click_in_the_readme_is_valid():
    click, _ = re.findall(r"^```json\n(.*?)^```", section(ONE_CLICK), re.M | re.S)
    shown = msgspec.json.decode(click, type=Click)
    assert json.loads(click).keys() <= set(Click.__struct_fields__), "every field of the example must exist"
    assert shown.user
    assert shown.item


def test_the_recommendation_in_the_readme_has_the_fields_that_a_worker_sends():
    click, message = (json.loads(j) for j in re.findall(r"^```json\n(.*?)^```", section(ONE_CLICK), re.M | re.S))
    sent = msgspec.json.decode(json.dumps(message), type=Recommendation)
    assert json.loads(msgspec.json.encode(sent)) == message, "the example must have the present fields"
    assert list(message) == list(Recommendation.__struct_fields__)
    assert sent.user == click["user"]
    assert [item.score for item in sent.items] == sorted((item.score for item in sent.items), reverse=True)
    waited = re.search(r"^(\d+) ms later", section(ONE_CLICK), re.M)
    assert waited is not None
    assert sent.event_ts is not None
    assert sent.emitted_ts - sent.event_ts == int(waited[1])


@pytest.mark.broker
def test_the_commands_of_your_own_clicks_work(broker, tmp_path, request):
    # Debian's kcat cannot read the embedded broker's answers, as the README says.
    with_kcat = shutil.which("kcat") is not None and request.config.getoption("--broker") == "kafka"
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
            if "kcat" in command and not with_kcat:
                continue
            if endless.search(command):
                with (tmp_path / f"output-{len(started)}").open("wb") as output:
                    started[command] = subprocess.Popen(
                        f"exec {command}", shell=True, cwd=ROOT, env=env, stdout=output, stderr=output
                    )
                continue
            subprocess.run(command, shell=True, cwd=ROOT, env=env, check=True, capture_output=True, timeout=60)
        subscriber = next(n for n, command in enumerate(started) if "subscribe.py" in command)
        until(lambda: "alice: milk" in (tmp_path / f"output-{subscriber}").read_text())
        until(lambda: list((tmp_path / "data").glob("clicks-*/CURRENT")))

        shown = commands(section("Commands"))
        for words in ("status", "graph", "user ID", "item ID", "recommend USER", "pause", "resume"):
            assert any(words in line for line in shown), words
            line = f"anabranch {words} --json --broker {broker}".replace("ID", "alice").replace("USER", "alice")
            line = line.replace("item alice", "item milk")
            done = subprocess.run(line, shell=True, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            json.loads(done.stdout)
    finally:
        for process in started.values():
            process.terminate()
            process.wait(40)
    for n, command in enumerate(started):
        if command.startswith("kcat"):  # it writes when its buffer is full, or at its end
            assert '"user":"alice"' in (tmp_path / f"output-{n}").read_text()


def test_the_configuration_in_the_readme_is_valid(tmp_path):
    text = "\n".join(re.findall(r"^    (.*)$", section("Your own clicks").split("dotted paths:")[1], re.M))
    assert tomllib.loads(text)
    file = tmp_path / "anabranch.toml"
    file.write_text(text.replace("HOST:PORT", "localhost:9092"))
    config = load(file, {"ANABRANCH_KAFKA__SASL_PASSWORD": "x"})
    assert config.clicks.fields.user == "customer.id"
    assert config.kafka.tls
