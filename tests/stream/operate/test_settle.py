"""After a restore the pointer names a version that the store has, and no report names one that does not serve."""

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from model.learning.manifests import manifest_sha256
from model.learning.versions import publish
from stream.cli.app import app
from stream.config import Config
from stream.kafka.messages import Pointer
from stream.kafka.pointers import MODEL_NAME, Pointers, apply_pointer, pointer_to, write_last_pointers
from stream.operate import model_report, settle
from stream.worker import served_file
from stream.worker.served_file import Served
from tests.faulty_store import FAILURES, fault
from tests.model.examples import cycling, learned
from tests.stream.cli.small_shop import make_small_shop


@pytest.fixture(scope="module")
def trained():
    return learned(cycling())


class Topic:
    """The models topic."""

    def __init__(self, monkeypatch) -> None:
        self.pointers = Pointers()
        monkeypatch.setattr(settle, "read_named", self.read)
        monkeypatch.setattr(settle, "publish_pointer", self.publish)

    async def read(self, config):
        return self.pointers

    async def publish(self, config, pointer):
        self.pointers = apply_pointer(self.pointers, pointer)
        return pointer


@pytest.fixture
def topic(monkeypatch):
    return Topic(monkeypatch)


def named(config: Config, version: str, **more) -> Pointer:
    """A pointer to a version that need not exist any more."""
    return Pointer(MODEL_NAME, version, config.artifacts_url, "0" * 64, 4_000_000_000_000, **more)


def settled(config: Config, restored: Pointer | None):
    return asyncio.run(settle.settle(config, restored))


def test_a_version_published_after_the_backup_is_replaced_by_the_one_that_served_then(tmp_path, trained, topic):
    config = Config(data=tmp_path)
    for _ in range(3):
        publish(config.artifacts_url, MODEL_NAME, trained, {})
    then = pointer_to(config, "000002", None)
    topic.pointers = Pointers(named(config, "000009", pinned=True), named(config, "000010", role="candidate"))
    found = settled(config, then)
    assert found.version == topic.pointers.champion.version == "000002"
    assert topic.pointers.champion.sha256 == manifest_sha256(config.artifacts_url, MODEL_NAME, "000002")
    assert not topic.pointers.champion.pinned
    assert topic.pointers.scored is None
    assert found.message == (
        "version 000009 was named in Kafka and is not in the artifact store: version 000002 is named now"
    )


def test_a_pin_of_the_backup_is_kept_and_a_pointer_to_a_version_that_is_there_is_left_alone(tmp_path, trained, topic):
    config = Config(data=tmp_path)
    for _ in range(2):
        publish(config.artifacts_url, MODEL_NAME, trained, {})
    topic.pointers = Pointers(named(config, "000009"))
    settled(config, pointer_to(config, "000001", None, pinned=True))
    assert (topic.pointers.champion.version, topic.pointers.champion.pinned) == ("000001", True)
    before = topic.pointers = Pointers(pointer_to(config, "000002", topic.pointers.champion, pinned=True))
    assert settled(config, pointer_to(config, "000001", None)).version == "000002"
    assert topic.pointers == before, "an operator's rollback after the backup stays"


def test_another_version_under_the_same_number_is_not_the_named_one(tmp_path, trained, topic):
    config = Config(data=tmp_path)
    publish(config.artifacts_url, MODEL_NAME, trained, {})
    topic.pointers = Pointers(named(config, "000001"))
    assert settled(config, pointer_to(config, "000001", None)).version == "000001"
    assert topic.pointers.champion.sha256 != "0" * 64


def test_without_a_version_that_served_the_newest_promoted_one_is_named(tmp_path, trained, topic):
    config = Config(data=tmp_path)
    publish(config.artifacts_url, MODEL_NAME, trained, {})
    kept = trained._replace(verdict=msgspec.structs.replace(trained.verdict, promoted=False, outcome="kept"))
    publish(config.artifacts_url, MODEL_NAME, kept, {})
    topic.pointers = Pointers(named(config, "000009"))
    assert settled(config, None).version == "000001"
    assert settled(config, None).version == "000001"


def test_without_any_version_or_pointer_nothing_is_published(tmp_path, topic):
    config = Config(data=tmp_path)
    assert settled(config, None).message.startswith("no version is named yet")
    before = topic.pointers = Pointers(named(config, "000009"))
    assert settled(config, None).version is None
    assert topic.pointers == before


def test_a_kafka_that_names_no_version_gets_the_pointer_of_the_backup(tmp_path, trained, topic):
    config = Config(data=tmp_path)
    for _ in range(2):
        publish(config.artifacts_url, MODEL_NAME, trained, {})
    then = pointer_to(config, "000001", None, pinned=True)
    write_last_pointers(tmp_path, Pointers(then))  # a restore writes them; another machine has none
    assert settled(config, then).message == "no version was named in Kafka: version 000001 is named now, pinned"
    assert (topic.pointers.champion.version, topic.pointers.champion.pinned) == ("000001", True)


def test_status_and_models_name_only_a_version_that_serves(tmp_path):
    make_small_shop(tmp_path)
    config = Config(data=tmp_path)
    right = pointer_to(config, "000001", None)
    gone = named(config, "000009")

    def found(pointer):
        model = model_report.model_status(config, Pointers(pointer))
        listed = model_report.models(config, Pointers(pointer))
        assert (listed.serving, listed.named, listed.problem) == (model.version, model.named, model.problem)
        assert [v.version for v in listed.versions if v.serving] == ([model.version] if model.version else [])
        return model.version, model.named, model.problem

    assert found(None) == (None, None, None)
    assert found(right) == ("000001", "000001", None)
    version, name, problem = found(gone)
    assert (version, name) == (None, "000009")
    assert "has no manifest.json of version 000009" in problem
    version, name, problem = found(msgspec.structs.replace(right, sha256="0" * 64))
    assert (version, name) == (None, "000001")
    assert "has another version 000001 than the pointer names" in problem
    served_file.write(tmp_path, Served("000009", "0" * 64, "000002", "HTTP 500"))
    assert found(gone) == ("000002", "000009", "HTTP 500")
    assert found(right) == ("000001", "000001", None), "the worker has not followed that one yet"


def test_status_names_a_version_that_cannot_be_loaded_as_such(tmp_path):
    make_small_shop(tmp_path)
    shutil.rmtree(Path(Config(data=tmp_path).artifacts_url) / "create" / "000001")
    for command in ("status", "models"):
        result = CliRunner().invoke(app, [command, "--data", str(tmp_path)], catch_exceptions=False)
        assert result.exit_code == 0
        words = " ".join(result.output.split())
        assert "version 000001 is named and does not serve:" in words
        assert "has no manifest.json of version 000001" in words


def test_status_with_a_store_that_fails_says_why(tmp_path):
    make_small_shop(tmp_path)
    config = Config(data=tmp_path, artifacts="faulty://status")
    champion = named(config, "000001")
    with fault(fails=FAILURES["no credentials"]):
        model = model_report.model_status(config, Pointers(champion))
    assert model.version is None
    assert "Unable to locate credentials" in model.artifacts
    assert "Unable to locate credentials" in model.problem
