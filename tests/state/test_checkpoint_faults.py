"""A failing store, a hostile manifest, a damaged checkpoint: an error each time, and nothing is deleted."""

import contextlib
import hashlib
import json
import logging
import uuid
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.checkpoint import CheckpointError, CheckpointStore
from state.store import Store
from tests.faulty_store import FAILURES, fault
from tests.state.test_checkpoint import clicks, contents, publish
from tests.state.test_store import LOG, SETTINGS, apply


@pytest.fixture
def store(tmp_path: Path):
    opened = Store(tmp_path / "clicks-0", LOG, SETTINGS)
    apply(opened, clicks(200))
    yield opened
    opened.close()


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("failure", ["no credentials", "HTTP 500", "connection dropped"])
@pytest.mark.parametrize("call", ["list", "read", "write", "remove"])
def test_a_failing_store_fails_the_checkpoint_and_later_it_succeeds(store, tmp_path, call, failure):
    checkpoints = CheckpointStore(f"faulty://{uuid.uuid4().hex}", LOG)
    publish(store, checkpoints, tmp_path)
    apply(store, clicks(10, 200))
    with fault(fails=FAILURES[failure], fails_in={call}):
        with contextlib.suppress(CheckpointError):
            publish(store, checkpoints, tmp_path)
        with contextlib.suppress(CheckpointError):
            checkpoints.prune(1)
    apply(store, clicks(10, 210))
    publish(store, checkpoints, tmp_path)
    checkpoints.prune(1)
    [manifest] = checkpoints.usable()
    checkpoints.restore(manifest, tmp_path / "restored")
    restored = Store(tmp_path / "restored", LOG, SETTINGS)
    assert contents(restored) == contents(store)
    restored.close()


def test_a_store_that_does_not_read_loses_no_checkpoint_to_a_prune(store, tmp_path):
    checkpoints = CheckpointStore(f"faulty://{uuid.uuid4().hex}", LOG)
    for first in range(200, 230, 10):
        publish(store, checkpoints, tmp_path)
        apply(store, clicks(10, first))
    with fault(fails=FAILURES["HTTP 500"], fails_in={"read"}), pytest.raises(CheckpointError):
        checkpoints.prune(1)
    for manifest in checkpoints.usable():
        checkpoints.restore(manifest, tmp_path / f"at-{manifest.progress.next_offset}")
    assert len(checkpoints.usable()) == 3


def test_a_stale_listing_loses_no_file_of_the_checkpoint_just_written(store, tmp_path):
    checkpoints = CheckpointStore(f"faulty://{uuid.uuid4().hex}", LOG)
    publish(store, checkpoints, tmp_path)
    apply(store, clicks(10, 200))
    newest = publish(store, checkpoints, tmp_path)
    without = lambda entries: [e for e in entries if "00210.json" not in e["name"]]  # noqa: E731
    with fault(lists=without):
        checkpoints.prune(1)
    assert [m.progress.next_offset for m in checkpoints.usable()] == [210, 200]
    checkpoints.restore(newest, tmp_path / "restored")


def test_a_wrong_size_in_the_listing_fails_the_checkpoint_or_uploads_again(store, tmp_path):
    checkpoints = CheckpointStore(f"faulty://{uuid.uuid4().hex}", LOG)
    larger = lambda entries: [e | {"size": e["size"] + 1} for e in entries]  # noqa: E731
    with fault(lists=larger), pytest.raises(CheckpointError, match="are missing there, or have another size"):
        publish(store, checkpoints, tmp_path)
    assert checkpoints.usable() == []
    assert publish(store, checkpoints, tmp_path) is not None


@pytest.mark.parametrize("lie", [lambda c: c[:-1], lambda c: c + b"x", lambda c: b"x" + c[1:], lambda c: b""])
def test_a_lie_of_the_store_restores_nothing_and_deletes_nothing(store, tmp_path, lie):
    checkpoints = CheckpointStore(f"faulty://{uuid.uuid4().hex}", LOG)
    manifest = publish(store, checkpoints, tmp_path)
    with fault(reads=lie), contextlib.suppress(CheckpointError):
        checkpoints.restore(manifest, tmp_path / "restored")
        longer_answers_are_cut = Store(tmp_path / "restored", LOG, SETTINGS)
        assert contents(longer_answers_are_cut) == contents(store)
        longer_answers_are_cut.close()
        return
    assert not (tmp_path / "restored").exists()
    checkpoints.restore(manifest, tmp_path / "restored")


PATHS = ["../../../victim", "/etc/passwd", "..", ".", "", "a/b", "\0", "~root", "C:\\x", "x" * 1000, "A" * 64, "0" * 63]


def hostile(**changes):
    """A manifest with a changed first file, or other changed fields."""

    def change(manifest: dict) -> dict:
        for key, value in changes.items():
            if key in manifest["files"][0]:
                manifest["files"][0][key] = value
            elif key == "next_offset":
                manifest["marks"][key] = value
            else:
                manifest[key] = value
        return manifest

    return change


CHANGES = [
    *(hostile(sha256=path) for path in PATHS),
    *(hostile(name=path) for path in PATHS if path not in ("A" * 64, "0" * 63)),
    *(hostile(size=size) for size in (-1, 1 << 60, 1 << 70, 1.5, "3")),
    *(hostile(next_offset=offset) for offset in (-1, 0, 1 << 62, 1 << 80)),
    lambda manifest: manifest | {"files": [manifest["files"][0]] * 2},
    lambda manifest: manifest | {"files": None},
    lambda manifest: [],
]


def test_a_hostile_manifest_is_not_used_and_removes_nothing_that_it_names(store, tmp_path, caplog):
    artifacts = tmp_path / "artifacts"
    checkpoints = CheckpointStore(str(artifacts), LOG)
    publish(store, checkpoints, tmp_path)
    (tmp_path / "victim").write_text("mine")
    [file] = artifacts.rglob("0*.json")
    text, before = file.read_text(), tree(artifacts)
    for change in CHANGES:
        hostile_one = json.dumps(change(json.loads(text)))
        file.write_text(hostile_one)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert checkpoints.usable() == [], hostile_one
        assert "is not used" in caplog.text
        checkpoints.prune(3)
        left = tree(artifacts)
        assert {name for name in before.keys() - left.keys() if "/files/" not in name} == set()
        assert (tmp_path / "victim").read_text() == "mine"
    apply(store, clicks(10, 200))
    newer = publish(store, checkpoints, tmp_path)
    assert checkpoints.usable() == [newer], "later checkpoints are taken all the same"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(PATHS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
PLACES = st.sampled_from(
    [
        "identity",
        "marks",
        "created_ts",
        "files",
        "files.0",
        "files.0.name",
        "files.0.size",
        "files.0.sha256",
        "marks.base",
    ]
)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A checkpoint in an artifact store, with its manifest."""
    folder = tmp_path_factory.mktemp("published")
    opened = Store(folder / "clicks-0", LOG, SETTINGS)
    apply(opened, clicks(50))
    publish(opened, CheckpointStore(str(folder / "artifacts"), LOG), folder)
    opened.close()
    [file] = (folder / "artifacts").rglob("0*.json")
    (folder / "victim").write_text("mine")
    return folder, file, file.read_text()


@settings(max_examples=60, deadline=None)
@given(place=PLACES, value=JSON)
def test_whatever_a_manifest_says_only_what_is_verified_is_restored(published, place, value):
    folder, file, text = published
    manifest = json.loads(text)
    at, *rest = place.split(".")
    inside = manifest
    for key in rest:
        inside, at = inside[int(at) if at.isdigit() else at], key
    inside[int(at) if at.isdigit() else at] = value
    file.write_text(json.dumps(manifest))
    before = tree(folder / "artifacts")
    checkpoints = CheckpointStore(str(folder / "artifacts"), LOG, read_only=True)
    target = folder / uuid.uuid4().hex
    for usable in checkpoints.usable():
        with contextlib.suppress(CheckpointError):
            checkpoints.restore(usable, target)
            for stored in usable.files:
                assert hashlib.sha256((target / stored.name).read_bytes()).hexdigest() == stored.sha256
    assert tree(folder / "artifacts") == before
    assert (folder / "victim").read_text() == "mine"
    assert {path.name for path in folder.iterdir() if path.name not in (target.name, f"restoring-{target.name}")} >= {
        "artifacts", "clicks-0", "victim",
    }  # fmt: skip


def test_a_damaged_file_stays_and_is_uploaded_again_by_the_next_checkpoint(store, tmp_path):
    artifacts = tmp_path / "artifacts"
    checkpoints = CheckpointStore(str(artifacts), LOG)
    manifest = publish(store, checkpoints, tmp_path)
    table = next(f for f in manifest.files if f.name.endswith(".sst"))
    file = next(artifacts.rglob(table.sha256))
    damaged = b"x" + file.read_bytes()[1:]
    file.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=table.name):
        checkpoints.restore(manifest, tmp_path / "restored")
    assert file.read_bytes() == damaged
    apply(store, clicks(10, 200))
    checkpoints.restore(publish(store, checkpoints, tmp_path), tmp_path / "restored")
    checkpoints.prune(1)
    assert not list(artifacts.rglob("*.damaged"))


def test_an_interrupted_restore_of_a_backup_is_continued_and_reads_no_file_twice(store, tmp_path):
    url = f"faulty://{uuid.uuid4().hex}"
    manifest = publish(store, CheckpointStore(url, LOG), tmp_path)
    backup, reads = CheckpointStore(url, LOG, read_only=True), []

    def counted(content: bytes) -> bytes:
        reads.append(content)
        if len(reads) == 3:
            raise ConnectionResetError("Connection reset by peer")
        return content

    with fault(reads=counted):
        with pytest.raises(CheckpointError, match="Connection reset by peer"):
            backup.restore(manifest, tmp_path / "restored")
        assert not (tmp_path / "restored").exists()
        backup.restore(manifest, tmp_path / "restored")
    assert len(reads) == len([f for f in manifest.files if f.size]) + 1
    restored = Store(tmp_path / "restored", LOG, SETTINGS)
    assert contents(restored) == contents(store)
    restored.close()


def test_only_checkpoints_signed_with_a_known_key_are_restored(store, tmp_path, caplog):
    url = str(tmp_path / "artifacts")
    publish(store, CheckpointStore(url, LOG), tmp_path)
    with caplog.at_level(logging.WARNING):
        assert CheckpointStore(url, LOG, ("new",)).usable() == []
    assert "is not signed, and kafka.signing_key is set" in caplog.text
    publish(store, CheckpointStore(url, LOG, ("old",)), tmp_path)  # the same offset, now signed
    [manifest] = CheckpointStore(url, LOG, ("new", "old")).usable()
    CheckpointStore(url, LOG, ("new", "old")).restore(manifest, tmp_path / "restored")
    assert CheckpointStore(url, LOG, ("another",)).usable() == []


def test_a_log_whose_name_is_a_path_has_no_checkpoints(tmp_path):
    for cluster in ("../..", "a/../b", "/", "a b"):
        with pytest.raises(CheckpointError, match="not a name in an artifact store"):
            CheckpointStore(str(tmp_path / "artifacts"), msgspec.structs.replace(LOG, cluster=cluster)).usable()
