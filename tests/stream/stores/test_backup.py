"""A backup has the models too, and a restore serves the version that served."""

import json
import shutil
import uuid
from pathlib import Path

import msgspec
import pytest

from model.errors import ArtifactError
from model.learning.versions import list_versions, load, publish
from state.artifact_store import ArtifactStore
from state.checkpoint import take
from state.errors import StateError
from state.events import hash_ids
from state.id_hash import IdHash, new_key
from state.identity import KEYED_LAYOUT, Identity
from state.store import Store
from state.view import View
from stream.cli import recovery
from stream.config import Config, KafkaSettings
from stream.errors import AnabranchError, DataDirectoryError
from stream.kafka.pointers import MODEL_NAME, pointer_to, read_last_pointers
from stream.stores import backup
from tests.faulty_store import FAILURES, fault
from tests.model.examples import cycling, learned
from tests.state.oracle import Event, apply


@pytest.fixture(scope="module")
def trained():
    return learned(cycling())


def data_with_versions(folder, trained, versions=2) -> Config:
    """A data directory with one partition and these versions, and a copy of its store in `folder/copy`."""
    config = Config(data=folder / "data")
    store = Store(config.data / "clicks-0", Identity("cluster", "clicks", 0, 1, 100, 32), config.state)
    apply(store, Event("ann", "milk", 1_600_000_000_000))
    take(store, folder / "copy")
    store.close()
    for _ in range(versions):
        publish(config.artifacts_url, MODEL_NAME, trained, {0: 1})
    return config


def tree(folder):
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def kept(tmp_path, trained):
    """A configuration of an empty data directory, and a backup to restore there."""
    config = data_with_versions(tmp_path, trained)
    backup.write(config, str(tmp_path / "kept"), [tmp_path / "copy"], pointer_to(config, "000002", None))
    return msgspec.structs.replace(config, data=tmp_path / "elsewhere"), tmp_path / "kept"


@pytest.mark.parametrize("shared", [False, True], ids=["beside the state", "in an artifact store"])
def test_state_versions_and_champion_are_restored_elsewhere(tmp_path, trained, shared):
    config = data_with_versions(tmp_path, trained)
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


def test_a_flipped_bit_is_reported_and_the_backup_is_left_as_it_is(kept):
    config, folder = kept
    for file in [f for f in folder.rglob("*") if f.is_file() and "/create/" not in str(f) and f.stat().st_size]:
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        before = tree(folder)
        with pytest.raises((AnabranchError, StateError)):
            backup.restore(config, str(folder), backup.read(str(folder), config))
        assert tree(folder) == before
        assert not config.data.exists()
        file.write_bytes(content)
        shutil.rmtree(config.data.with_name("elsewhere.restoring"), ignore_errors=True)  # what was verified is kept
    backup.restore(config, str(folder), backup.read(str(folder), config))
    with View(config.data, "clicks", config.state) as view:
        assert view.partitions[0].user_ids(hash_ids([b"ann"])) == [b"ann"]


@pytest.mark.parametrize("file", ["weights.safetensors", "items.msgpack", "manifest.json"])
def test_a_damaged_version_in_a_backup_is_reported_and_the_others_are_restored(kept, caplog, file):
    config, folder = kept
    damaged = folder / "create" / "000001" / file
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    before = tree(folder)
    backup.restore(config, str(folder), backup.read(str(folder), config))
    assert tree(folder) == before
    assert "a version is not copied" in caplog.text
    assert "000001" in caplog.text
    assert [v.version for v in list_versions(config.artifacts_url, MODEL_NAME)] == ["000002"]


HOSTILE = [
    ("cluster", "../../../outside"), ("cluster", "/outside"), ("topic", "../outside"), ("partition", -1),
    ("partition", 1 << 40), ("partition", "../x"), ("partitions", "x"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), HOSTILE)
def test_a_backup_whose_manifest_names_a_path_is_refused(kept, field, value):
    config, folder = kept
    manifest = json.loads((folder / "backup.json").read_bytes())
    manifest["partitions"][0]["identity"][field] = value
    (folder / "backup.json").write_text(json.dumps(manifest))
    before = tree(folder.parent)
    with pytest.raises((AnabranchError, StateError)):
        backup.restore(config, str(folder), backup.read(str(folder), config))
    after = {name: content for name, content in tree(folder.parent).items() if ".restoring/" not in name}
    assert after == before
    assert not config.data.exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 5000, b"\xff", b"null", b" " * (17 << 20)])
def test_a_backup_whose_manifest_is_none_is_refused(kept, content):
    config, folder = kept
    (folder / "backup.json").write_bytes(content)
    with pytest.raises(AnabranchError, match=r"backup\.json"):
        backup.read(str(folder), config)


@pytest.mark.parametrize("moment", ["marker", "download", "write", "pointers", "rename"])
def test_an_interrupted_restore_leaves_no_data_directory_and_the_next_one_completes_it(kept, monkeypatch, moment):
    config, folder = kept
    calls = {
        "marker": (type(config.data), "write_text"),
        "download": (ArtifactStore, "download"), "write": (ArtifactStore, "write"),
        "pointers": (backup.json_file, "write"), "rename": (type(config.data), "rename"),
    }  # fmt: skip
    owner, name = calls[moment]
    real, count = getattr(owner, name), []

    def interrupted(*args, **kwargs):
        count.append(name)
        if len(count) == 2 or moment not in ("download", "write"):
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            backup.restore(config, str(folder), backup.read(str(folder), config))
    assert not config.data.exists()
    backup.restore(config, str(folder), backup.read(str(folder), config))
    assert sorted(path.name for path in config.data.iterdir()) == ["clicks-0", "models", "pointers.json"]
    assert not list(config.data.parent.glob("*.restoring"))
    for version in ("000001", "000002"):
        load(config.artifacts_url, MODEL_NAME, version)
    with View(config.data, "clicks", config.state) as view:
        assert view.partitions[0].user_ids(hash_ids([b"ann"])) == [b"ann"]


def test_a_restore_of_another_backup_begins_again(kept, monkeypatch, tmp_path, trained):
    config, folder = kept
    with monkeypatch.context() as patched:
        patched.setattr(ArtifactStore, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            backup.restore(config, str(folder), backup.read(str(folder), config))
    other = data_with_versions(tmp_path / "other", trained, 1)
    backup.write(other, str(tmp_path / "newer"), [tmp_path / "other" / "copy"], pointer_to(other, "000001", None))
    url = str(tmp_path / "newer")
    backup.restore(config, url, backup.read(url, config))
    assert [v.version for v in list_versions(config.artifacts_url, MODEL_NAME)] == ["000001"]


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_folder_that_no_restore_has_made_is_not_removed(kept):
    config, folder = kept
    ours = config.data.with_name("elsewhere.restoring")
    ours.mkdir()
    (ours / "precious").write_text("mine")
    with pytest.raises(DataDirectoryError, match=r"elsewhere\.restoring is where a restore is written"):
        backup.restore(config, str(folder), backup.read(str(folder), config))
    assert (ours / "precious").read_text() == "mine"


def test_the_root_of_a_volume_is_refused_before_anything_is_copied(kept, monkeypatch):
    config, folder = kept
    monkeypatch.setattr(Path, "is_mount", lambda path: path == config.data)
    with pytest.raises(DataDirectoryError, match=r"is the root of a volume.*--data \S+/elsewhere/anabranch"):
        backup.restore(config, str(folder), backup.read(str(folder), config))
    assert not config.data.with_name("elsewhere.restoring").exists()
    inside = msgspec.structs.replace(config, data=config.data / "anabranch")
    inside.data.parent.mkdir()
    backup.restore(inside, str(folder), backup.read(str(folder), inside))
    assert read_last_pointers(inside.data).champion is not None


def test_versions_of_a_shared_store_are_not_replaced_by_those_of_a_backup(kept, tmp_path, trained, caplog):
    config, folder = kept
    shared = msgspec.structs.replace(config, artifacts=str(tmp_path / "shared"))
    ours = publish(shared.artifacts, MODEL_NAME, trained, {0: 77})
    half = tmp_path / "shared" / "create" / "000002"
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"half of it")  # an interrupted copy
    backup.restore(shared, str(folder), backup.read(str(folder), shared))
    assert load(shared.artifacts, MODEL_NAME, "000001", ours.manifest_sha256).manifest.offsets == {0: 77}
    assert load(shared.artifacts, MODEL_NAME, "000002").manifest.offsets == {0: 1}
    assert "version 000001" in caplog.text


def test_a_backup_to_a_store_that_fails_is_an_error_and_no_backup(tmp_path, trained):
    config = data_with_versions(tmp_path, trained, 1)
    url = f"faulty://{uuid.uuid4().hex}"
    for name, failure in FAILURES.items():
        for call in ("list", "write"):
            with fault(fails=failure, fails_in={call}), pytest.raises((AnabranchError, StateError, ArtifactError)):
                backup.write(config, f"{url}-{name}", [tmp_path / "copy"], None)
        with pytest.raises(AnabranchError, match="it is not a complete backup"):
            backup.read(f"{url}-{name}", config)


def test_with_a_key_only_a_backup_that_was_signed_is_restored(tmp_path, trained, kept):
    config, folder = kept
    keyed = msgspec.structs.replace(config, kafka=KafkaSettings(signing_key="the key of this shop"))
    with pytest.raises(AnabranchError, match=r"backup\.json in .* is not signed"):
        backup.read(str(folder), keyed)
    other = data_with_versions(tmp_path / "other", trained, 0)
    keys = keyed.kafka.signing_keys
    publish(other.artifacts_url, MODEL_NAME, trained, {0: 1}, keys)
    signed = msgspec.structs.replace(other, kafka=keyed.kafka)
    url = str(tmp_path / "signed")
    backup.write(signed, url, [tmp_path / "other" / "copy"], pointer_to(signed, "000001", None))
    backup.restore(keyed, url, backup.read(url, keyed))
    assert [v.version for v in list_versions(keyed.artifacts_url, MODEL_NAME, keys)] == ["000001"]


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
