"""A restore settles the pointer in Kafka; with a key, what a stranger writes to the topic is not followed."""

import asyncio
import shutil

import msgspec
import pytest

from model.learning.versions import publish
from state.identity import Identity
from state.store import Store
from stream.cli import control, recovery, status
from stream.config import Config, KafkaSettings
from stream.kafka.messages import Pointer, encode
from stream.kafka.pointers import MODEL_NAME, pointer_to, publish_pointer, read_last_pointers, read_pointers
from tests.model.examples import cycling, learned
from tests.state.oracle import Event, apply

pytestmark = pytest.mark.broker


def champion(config: Config) -> Pointer:
    return asyncio.run(read_pointers(config)).champion


def promote(config: Config, trained) -> Pointer:
    before = champion(config)
    version = publish(config.artifacts_url, MODEL_NAME, trained, {0: 1}, config.kafka.signing_keys)
    return asyncio.run(publish_pointer(config, pointer_to(config, version.manifest.version, before, by="trainer")))


def test_a_restore_names_a_version_that_is_there_and_a_stranger_names_none(config, producer, tmp_path, capsys):
    config = msgspec.structs.replace(config, kafka=KafkaSettings(signing_key="the key of this shop"))
    trained = learned(cycling())
    store = Store(
        config.data / f"{config.topics.clicks}-0", Identity("c", config.topics.clicks, 0, 2, 100, 32), config.state
    )
    apply(store, Event("ann", "milk", 1_600_000_000_000))
    store.close()
    promote(config, trained)
    recovery.backup(str(tmp_path / "kept"), settings=config, as_json=False)
    newer = promote(config, trained)
    stranger = msgspec.structs.replace(newer, version="000001", moved_ts=newer.moved_ts + 9, signature="")
    producer.send(config.topics.models, key=b"create", value=encode(stranger))
    producer.flush()
    assert champion(config).version == "000002"

    shutil.rmtree(config.data)
    recovery.restore(str(tmp_path / "kept"), settings=config, as_json=False)
    printed = " ".join(capsys.readouterr().err.split())
    assert "version 000002 was named in Kafka and is not in the artifact store: version 000001 is named now" in printed
    assert champion(config).version == read_last_pointers(config.data).champion.version == "000001"
    status.models(settings=config, as_json=True)
    assert msgspec.json.decode(capsys.readouterr().out)["serving"] == "000001"

    rotated = msgspec.structs.replace(config, kafka=KafkaSettings(signing_key="another key of this shop"))
    assert champion(rotated).version == "000001", "the pointers beside the state are believed"
    control.rollback("000001", sign=True, settings=rotated, as_json=False)
    assert champion(rotated) != champion(config)
    assert champion(rotated).pinned
