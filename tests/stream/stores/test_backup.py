"""A backup has the models too, and a restore serves the version that served."""

import json

import msgspec
import pytest

from model.learning.versions import list_versions, load, publish
from state.checkpoint import take
from state.events import hash_ids
from state.id_hash import IdHash, new_key
from state.identity import KEYED_LAYOUT, Identity
from state.store import Store
from state.view import View
from stream.cli import recovery
from stream.config import Config
from stream.kafka.pointers import MODEL_NAME, pointer_to, read_last_pointers
from stream.stores import backup
from tests.model.examples import cycling, learned
from tests.state.oracle import Event, apply


@pytest.fixture(scope="module")
def trained():
    return learned(cycling())


@pytest.mark.parametrize("shared", [False, True], ids=["beside the state", "in an artifact store"])
def test_state_versions_and_champion_are_restored_elsewhere(tmp_path, trained, shared):
    config = Config(data=tmp_path / "data")
    store = Store(config.data / "clicks-0", Identity("cluster", "clicks", 0, 1, 100, 32), config.state)
    apply(store, Event("ann", "milk", 1_600_000_000_000))
    take(store, tmp_path / "copy")
    store.close()
    for _ in range(2):
        publish(config.artifacts_url, MODEL_NAME, trained, {0: 1})
    champion = pointer_to(config, "000001", None, pinned=True)
    url = str(tmp_path / "kept")
    written = backup.write(config, url, [tmp_path / "copy"], champion)
    assert backup.read(url) == written

    artifacts = str(tmp_path / "shared") if shared else ""
    elsewhere = msgspec.structs.replace(config, data=tmp_path / "elsewhere", artifacts=artifacts)
    backup.restore(elsewhere, url, backup.read(url))
    assert [v.version for v in list_versions(elsewhere.artifacts_url, MODEL_NAME)] == ["000001", "000002"]
    served = read_last_pointers(elsewhere.data).champion
    assert served == msgspec.structs.replace(champion, url=elsewhere.artifacts_url)
    back = load(served.url, MODEL_NAME, served.version, served.sha256)
    assert back.trained.vocabulary.ids == trained.vocabulary.ids
    with View(elsewhere.data, "clicks", config.state) as view:
        assert view.partitions[0].user_ids(hash_ids([b"ann"])) == [b"ann"]


def test_a_backup_carries_the_id_key_and_prints_its_fingerprint(tmp_path, capsys):
    config, key = Config(data=tmp_path / "data"), new_key()
    identity = Identity("cluster", "clicks", 0, 1, 100, 32, layout=KEYED_LAYOUT, id_key=key)
    store = Store(config.data / "clicks-0", identity, config.state)
    apply(store, Event("ann", "milk", 1_600_000_000_000))
    store.close()
    recovery.backup(str(tmp_path / "kept"), settings=config, as_json=True)
    elsewhere = msgspec.structs.replace(config, data=tmp_path / "elsewhere")
    recovery.restore(str(tmp_path / "kept"), settings=elsewhere, as_json=True)
    printed = capsys.readouterr().out
    assert key not in printed
    assert [json.loads(line)["partitions"][0]["identity"]["id_key"] for line in printed.splitlines()] == (
        2 * [IdHash(key).fingerprint]
    )
    with View(elsewhere.data, "clicks", config.state) as view:
        assert view.ids == IdHash(key)
        assert view.user_ids(view.ids.of_many([b"ann"])) == [b"ann"]
