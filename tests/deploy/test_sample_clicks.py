"""The sample clicks are clicks, and there is something in them to learn."""

import json
import subprocess
import sys
from collections import Counter

from stream.config import Config
from stream.operate.event_files import EventFile, titles
from tests.deploy.compose import DEPLOY

SCRIPT = DEPLOY / "sample_clicks.py"


def lines(*arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def nothing_wrong(*complaint: object) -> None:
    raise AssertionError(complaint)


def test_publish_takes_every_line(tmp_path):
    clicks, items = tmp_path / "clicks.jsonl", tmp_path / "items.jsonl"
    clicks.write_text("\n".join(lines("--past", "200", "--speed", "0")))
    items.write_text("\n".join(lines("--titles")))
    config = Config()
    assert len(list(EventFile(str(clicks), config.clicks, config.state, nothing_wrong).messages(nothing_wrong))) == 200
    assert len(list(titles(str(items), nothing_wrong))) == 500


def test_every_item_has_a_title():
    titled = {json.loads(line)["item"] for line in lines("--titles")}
    assert {json.loads(line)["item"] for line in lines("--past", "2000", "--speed", "0")} <= titled


def test_what_follows_an_item_is_mostly_the_same():
    last: dict[str, str] = {}
    follows: dict[str, Counter[str]] = {}
    for click in map(json.loads, lines("--past", "20000", "--speed", "0", "--users", "200")):
        if click["user"] in last:
            follows.setdefault(last[click["user"]], Counter())[click["item"]] += 1
        last[click["user"]] = click["item"]
    often = [counts for counts in follows.values() if counts.total() >= 50]
    assert len(often) > 50
    assert all(sum(n for _, n in counts.most_common(3)) > 0.4 * counts.total() for counts in often)


def test_a_reader_that_ends_is_no_error():
    command = f"{sys.executable} {SCRIPT} --speed 0 | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
