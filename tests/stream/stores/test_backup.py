"""A backup has the models too, and a restore serves the version that served."""

import msgspec
import pytest

from model.learning.versions import list_versions, load, publish
from state.checkpoint import take
from state.events import hash_ids
from state.identity import Identity
from state.store import Store
from state.view import View
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
    assert backup.read(url, config) == written

    artifacts = str(tmp_path / "shared") if shared else ""
    elsewhere = msgspec.structs.replace(config, data=tmp_path / "elsewhere", artifacts=artifacts)
    backup.restore(elsewhere, url, backup.read(url, config))
    assert [v.version for v in list_versions(elsewhere.artifacts_url, MODEL_NAME)] == ["000001", "000002"]
    served = read_last_pointers(elsewhere.data).champion
    assert served == msgspec.structs.replace(champion, url=elsewhere.artifacts_url)
    back = load(served.url, MODEL_NAME, served.version, served.sha256)
    assert back.trained.vocabulary.ids == trained.vocabulary.ids
    with View(elsewhere.data, "clicks", config.state) as view:
        assert view.partitions[0].user_ids(hash_ids([b"ann"])) == [b"ann"]
