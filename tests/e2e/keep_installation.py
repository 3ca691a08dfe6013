"""Keep a small installation as one release leaves it, for the test of the upgrade from it (`test_upgrade.py`).

    git archive v0.1.0 | tar -x -C /tmp/old
    python -m tests.e2e.keep_installation /tmp/old tests/e2e/data/installation-0.1.0.tar.xz

The code in the first folder makes it: state, versions, a checkpoint, the files beside the state. With it are kept what
its topics held, its settings, and what its own commands said about it (`expected.json`). The archive is at most 300 kB:
the model is small, and there are few events.
"""

import base64
import contextlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from stream.config import Config, TopicSettings
from stream.local.embedded_broker import EmbeddedBroker
from tests.e2e.conftest import read_all, until

USERS, ITEMS, EVENTS, LATER_EVENTS = 40, 30, 900, 60
FIRST_MS = 1_790_000_000_000
SETTINGS = {
    "ANABRANCH_MODEL__DIM": "16",
    "ANABRANCH_TRAINER__EVERY_EVENTS": "1000000",
    "ANABRANCH_TRAINER__MIN_EVENTS": "1000000",
    "ANABRANCH_CHECKPOINTS__EVERY_S": "1",
}
"""Beside the defaults."""
RUN = """
import sys
import stream.kafka.topics
# The test cannot create topics with the ids that they had. A store from a broker without such ids has none.
stream.kafka.topics.topic_id = lambda config, topic: ""
from stream.cli import main
main()
"""
KEPT_TOPICS = ("clicks", "items", "models", "recommendations")
NOT_KEPT = {"faust", "fork-server.log"}


class Release:
    """The commands of the code in a folder."""

    def __init__(self, code: Path, home: Path, broker: str) -> None:
        self._code, self._home, self._broker = code, home, broker
        self._env = (
            os.environ | SETTINGS | {"ANABRANCH_ARTIFACTS": str(home / "artifacts"), "ANABRANCH_CONFIG": "/dev/null"}
        )

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", RUN, *arguments, "--data", str(self._home / "data"), "--broker", self._broker]

    def says(self, *arguments: str) -> Any:
        """The document of a command."""
        done = subprocess.run(
            self._command(*arguments, "--json"),
            cwd=self._code,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    @contextlib.contextmanager
    def runs(self, role: str) -> Iterator[Path]:
        """Run a worker or trainer until the block ends; its log."""
        log = self._home / f"{role}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                self._command(role), cwd=self._code, env=self._env, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield log
        finally:
            process.terminate()
            process.wait(30)


def clicks(first: int, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Clicks of several kinds; user-39 is forgotten in the end."""
    for n in range(first, first + count):
        user, item = f"user-{n * 7 % USERS}", f"item-{(n * n + n // 3) % ITEMS}"
        kind = "hide" if n % 41 == 0 else "purchase" if n % 11 == 0 else "undo" if n % 97 == 0 else "click"
        yield user, {"user": user, "item": item, "ts": FIRST_MS + 1000 * n, "event": kind, "id": f"event-{n}"}
    yield "user-39", {"user": "user-39", "event": "forget", "ts": FIRST_MS + 1000 * (first + count)}


def keep(code: Path, archive: Path) -> None:
    """Make the installation and the archive."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(Path(folder) / "broker") as broker:
        home = Path(folder) / "home"
        home.mkdir()
        config = Config(broker=broker.address, data=home / "data", topics=TopicSettings())
        release = Release(code, home, broker.address)
        release.says("init")
        with contextlib.closing(KafkaProducer(bootstrap_servers=broker.address)) as producer:
            made = live(release, config, producer)
        topics = {topic: held(config, topic) for topic in KEPT_TOPICS}
        kept = {"settings": SETTINGS, "topics": topics, "expected": made}
        (home / "expected.json").write_text(json.dumps(kept, indent=1))
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive, "w:xz", preset=9) as tar:
            for name in ("data", "artifacts", "expected.json"):
                tar.add(home / name, name, filter=worth_keeping)
    print(f"{archive}: {archive.stat().st_size:,} bytes")


def live(release: Release, config: Config, producer: KafkaProducer) -> dict[str, Any]:
    """Let the release apply clicks, learn a version and take a checkpoint; return what it says in the end."""

    def publish(topic: str, key: str, value: dict[str, Any]) -> None:
        producer.send(topic, key=key.encode(), value=json.dumps(value).encode())

    def applied(count: int) -> Callable[[], bool]:
        return lambda: release.says("status")["events"]["applied"] >= count

    with release.runs("worker") as log, release.runs("trainer") as trainer_log:
        until(lambda: "trainer ready" in trainer_log.read_text())
        for n in range(ITEMS):
            publish(config.topics.items, f"item-{n}", {"item": f"item-{n}", "title": f"Title {n}"})
        for user, event in clicks(0, EVENTS):
            publish(config.topics.clicks, user, event)
        producer.flush()
        until(applied(EVENTS - 100))
        assert release.says("retrain", "--wait")["status"] == "done"
        until(lambda: "serving version 000001" in log.read_text())
        release.says("withdraw", "item-3")
        for user, event in clicks(EVENTS, LATER_EVENTS):
            publish(config.topics.clicks, user, event)
        producer.flush()
        until(lambda: all(p["lag"] == 0 for p in release.says("status")["partitions"]))
        time.sleep(4)  # answers and a checkpoint of the end
        release.says("pause")
        time.sleep(2)
    return {
        "status": release.says("status"),
        "users": {user: release.says("user", user) for user in ("user-1", "user-7", "user-39")},
        "item": release.says("item", "item-1"),
        "models": release.says("models"),
        "graph": release.says("graph"),
    }


def held(config: Config, topic: str) -> list[dict[str, Any]]:
    """Every record of a topic."""
    return [
        {
            "partition": record.partition,
            "timestamp": record.timestamp,
            "key": None if record.key is None else base64.b64encode(record.key).decode(),
            "value": None if record.value is None else base64.b64encode(record.value).decode(),
        }
        for record in read_all(config, getattr(config.topics, topic))
    ]


def worth_keeping(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without names and rights of this machine, and without logs."""
    name = Path(entry.name)
    if name.name in NOT_KEPT or name.name.startswith("LOG") or name.suffix == ".lock":
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    keep(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
