"""Today's code goes on with what the release before has left: state, versions, checkpoints, topics.

`data/installation-0.1.0.tar.xz` was made by the code of the commit 7c40166 (`keep_installation.py`). Its worker was
paused when it was stopped, its users were answered by version 000001, and 61 events have come since that one.
"""

import base64
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic

from stream.config import Config
from stream.kafka.shapes import SHAPES
from stream.local.embedded_broker import EmbeddedBroker
from tests.e2e.conftest import anabranch, read_all, run, succeed, until

pytestmark = pytest.mark.broker

ARCHIVE = Path(__file__).parent / "data" / "installation-0.1.0.tar.xz"
TOPICS_SINCE = {"members"}
"""Topics that the release did not have."""
PARTITIONED = {"clicks", "requests", "recommendations"}


class Kept(NamedTuple):
    """The installation as it was left: its files in place, its topics with what they held."""

    config: Config
    env: dict[str, str]
    """Its settings."""
    expected: dict[str, Any]
    """What its own commands said about it."""

    def says(self, *command: str) -> Any:
        """The document of a command of today."""
        return json.loads(succeed(self.config, *command, "--json", env=self.env).stdout)

    def log(self, role: str) -> str:
        """The log of today's worker or trainer."""
        return (self.config.data / f"{role}.log").read_text()

    def applied(self) -> int:
        return self.says("status")["events"]["applied"]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    made = json.loads((tmp_path / "expected.json").read_text())
    # Not the broker of the session: its topics have other names than those that the stores were built from.
    with EmbeddedBroker(tmp_path / "broker") as broker:
        config = Config(broker=broker.address, data=tmp_path / "data")
        create_topics(config, SHAPES.keys() - TOPICS_SINCE)
        fill(config, made["topics"])
        env = made["settings"] | {"ANABRANCH_ARTIFACTS": str(tmp_path / "artifacts")}
        yield Kept(config, env | {"ANABRANCH_CHECKPOINTS__EVERY_S": "600"}, made["expected"])


def create_topics(config: Config, names: set[str]) -> None:
    admin = KafkaAdminClient(bootstrap_servers=config.broker)
    admin.create_topics(
        [NewTopic(getattr(config.topics, name), 2 if name in PARTITIONED else 1, 1) for name in sorted(names)]
    )
    admin.close()


def fill(config: Config, topics: dict[str, list[dict[str, Any]]]) -> None:
    """Publish what the topics held, at the same offsets."""
    producer = KafkaProducer(bootstrap_servers=config.broker)
    for topic, records in topics.items():
        for record in records:
            key, value = (record[part] and base64.b64decode(record[part]) for part in ("key", "value"))
            producer.send(
                getattr(config.topics, topic), key=key, value=value,
                partition=record["partition"], timestamp_ms=record["timestamp"],
            )  # fmt: skip
        producer.flush()
    producer.close()


def test_the_archive_is_small():
    assert ARCHIVE.stat().st_size < 300_000


def test_init_adds_the_new_topics_and_changes_nothing_else(kept: Kept):
    key = kept.expected["status"]["id_keys"]
    made = kept.says("init")
    created = {topic["name"] for topic in made["topics"] if topic["created"]}
    assert created == {getattr(kept.config.topics, name) for name in TOPICS_SINCE}
    assert made["id_key"] == {"fingerprint": key[0], "written": False}
    assert not [topic for topic in kept.says("init")["topics"] if topic["created"]]


def test_the_state_is_read_before_anything_runs(kept: Kept):
    kept.says("init")
    said = kept.expected["users"]["user-1"]
    found = kept.says("user", "user-1")
    assert as_before(found, said) == said
    for command in (("graph",), ("item", "item-1")):
        refused = run(kept.config, *command, env=kept.env)
        assert refused.returncode == 1
        assert "Start `anabranch worker` on this data directory, and run this again then" in refused.stderr
        assert "Traceback" not in refused.stderr
    [version] = kept.says("models")["versions"]
    assert (version["version"], version["serving"], version["trained_offsets"]) == (
        "000001",
        True,
        {"0": 451, "1": 450},
    )


@pytest.mark.slow
def test_a_worker_and_a_trainer_go_on_where_those_before_ended(kept: Kept):
    kept.says("init")
    expected = kept.expected["status"]
    with anabranch(kept.config, "worker", env=kept.env), anabranch(kept.config, "trainer", env=kept.env):
        until(lambda: "serving version 000001" in kept.log("worker"))
        until(lambda: {p["state"] for p in kept.says("status")["partitions"]} == {"answering"})
        status = kept.says("status")
        assert (status["events"]["applied"], status["users"]) == (expected["events"]["applied"], expected["users"])
        assert [p["next_offset"] for p in status["partitions"]] == [p["next_offset"] for p in expected["partitions"]]
        assert "the worker before this one was paused" in kept.log("worker")
        assert kept.log("worker").count("upgraded in") == 2, "both of its stores"
        assert as_before(kept.says("graph"), kept.expected["graph"]) == kept.expected["graph"]
        item, found = kept.expected["item"], kept.says("item", "item-1")
        assert (found["title"], found["degree"]) == (item["title"], item["degree"])
        assert [one["item"] for one in found["next"]] == [one["item"] for one in item["next"]]
        assert len(read_all(kept.config, kept.config.topics.recommendations)) == 100, "nobody is answered twice"

        producer = KafkaProducer(bootstrap_servers=kept.config.broker)
        click = {"user": "user-1", "item": "item-1", "ts": 1_790_001_000_000}
        sent = producer.send("clicks", key=b"user-1", value=json.dumps(click).encode()).get(20)
        producer.close()
        until(lambda: len(read_all(kept.config, kept.config.topics.recommendations)) > 100)
        [answer] = [
            message
            for record in read_all(kept.config, kept.config.topics.recommendations)
            if record.value and (message := json.loads(record.value))["offset"] == sent.offset
            and message["partition"] == sent.partition
        ]  # fmt: skip
        assert (answer["user"], answer["model"], answer["source"]) == ("user-1", "000001", "model")
        assert "item-3" not in {item["item"] for item in answer["items"]}, "it was withdrawn from the release before"
        assert all(item["title"].startswith("Title ") for item in answer["items"])
        steps = kept.says("user", "user-1")["sequence"]
        before = [*kept.expected["users"]["user-1"]["sequence"], click_step(click)][-len(steps) :]
        assert as_before(steps, before) == before

        until(lambda: "trainer ready" in kept.log("trainer"))
        outcome = kept.says("retrain", "--wait")
        assert outcome["status"] in ("done", "kept"), outcome
        versions = {version["version"]: version for version in kept.says("models")["versions"]}
        assert versions.keys() == {"000001", "000002"}
        assert versions["000002"]["parent"] == "000001"
        assert sum(versions["000002"]["trained_offsets"].values()) == expected_events(expected) + 1
        assert ", 62 new events in " in kept.says("status")["trainer"]["last"], "it learns what came since 000001"
    for role in ("worker", "trainer"):
        assert "Traceback" not in kept.log(role)
        assert " ERROR " not in kept.log(role)
    assert not list(kept.config.data.glob("aside-*"))


def as_before(found: Any, before: Any) -> Any:
    """A document without the keys that have been added since."""
    if isinstance(before, dict):
        return {key: as_before(found[key], value) for key, value in before.items()}
    if isinstance(before, list) and len(found) == len(before):
        return [as_before(one, value) for one, value in zip(found, before, strict=True)]
    return found


def click_step(click: dict[str, Any]) -> dict[str, Any]:
    """A click in a sequence."""
    return {"item": click["item"], "ts": click["ts"], "event": "click"}


def expected_events(status: dict[str, Any]) -> int:
    """Records that the state had read."""
    return sum(partition["next_offset"] for partition in status["partitions"])


@pytest.mark.slow
def test_another_machine_restores_the_checkpoints_of_the_release_before(kept: Kept, tmp_path: Path):
    kept.says("init")
    elsewhere = kept._replace(config=msgspec.structs.replace(kept.config, data=tmp_path / "elsewhere"))
    with anabranch(elsewhere.config, "worker", "--instance", "elsewhere", env=kept.env):
        until(lambda: elsewhere.log("worker").count("restored from the checkpoint at offset") == 2)
        until(lambda: elsewhere.applied() == kept.expected["status"]["events"]["applied"])
        assert elsewhere.log("worker").count("upgraded in") == 2
    for user, said in kept.expected["users"].items():
        assert as_before(elsewhere.says("user", user)["sequence"], said["sequence"]) == said["sequence"]
    assert as_before(elsewhere.says("graph"), kept.expected["graph"]) == kept.expected["graph"]
