"""A store is copied while it is written, verified when it is restored, and never replaced by an older one."""

import threading
import uuid
from pathlib import Path

import fsspec
import msgspec
import pytest

from state.checkpoint import CheckpointError, CheckpointStore, take
from state.store import Store
from tests.state.test_store import LOG, SETTINGS, apply, hashes


@pytest.fixture(params=["path", "memory"])
def url(request, tmp_path: Path) -> str:
    return str(tmp_path / "artifacts") if request.param == "path" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def store(tmp_path: Path):
    opened = Store(tmp_path / "clicks-0", LOG, SETTINGS)
    yield opened
    opened.close()


def publish(store: Store, checkpoints: CheckpointStore, tmp_path: Path):
    folder = tmp_path / f"copy-{uuid.uuid4().hex}"
    take(store, folder)
    return checkpoints.upload(folder, SETTINGS)


def clicks(count: int, first: int = 0) -> list[tuple[str, str, int]]:
    return [(f"user{n % 40}", f"item{n % 7}", n + 1) for n in range(first, first + count)]


def contents(store: Store) -> dict[str, list[tuple[bytes, bytes]]]:
    return {name: list(column.items()) for name, column in store.database.columns.items()}


def test_a_restored_store_equals_the_copied_one(store, url, tmp_path):
    apply(store, clicks(500))
    checkpoints = CheckpointStore(url, LOG)
    publish(store, checkpoints, tmp_path)
    before = contents(store)
    apply(store, clicks(50, 500))  # after the checkpoint: in the tail of the log
    [manifest] = CheckpointStore(url, LOG).usable()
    checkpoints.restore(manifest, tmp_path / "elsewhere" / "clicks-0")
    restored = Store(tmp_path / "elsewhere" / "clicks-0", LOG, SETTINGS)
    assert (manifest.progress.next_offset, restored.progress.next_offset) == (500, 500)
    assert contents(restored) == before
    apply(restored, clicks(50, 500))
    assert contents(restored) == contents(store)
    restored.close()


def test_a_checkpoint_of_a_store_that_is_being_written_holds_whole_batches(store, tmp_path):
    checkpoints = CheckpointStore(str(tmp_path / "artifacts"), LOG)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            apply(store, clicks(20, store.progress.next_offset))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        manifests = []
        while len(manifests) < 5:
            manifest = publish(store, checkpoints, tmp_path)
            if manifest is not None:  # else nothing was written since the one before
                manifests.append(manifest)
    finally:
        stop.set()
        writer.join()
    offsets = [m.progress.next_offset for m in manifests]
    assert offsets == sorted(set(offsets))
    for manifest in manifests:
        path = tmp_path / f"at-{manifest.progress.next_offset}"
        checkpoints.restore(manifest, path)
        restored = Store(path, LOG, SETTINGS)
        oracle = Store(tmp_path / f"oracle-{manifest.progress.next_offset}", LOG, SETTINGS)
        for first in range(0, manifest.progress.next_offset, 20):
            apply(oracle, clicks(20, first))
        assert contents(restored) == contents(oracle)
        restored.close()
        oracle.close()


def test_a_file_already_there_is_not_uploaded_again(store, tmp_path):
    checkpoints = CheckpointStore(str(tmp_path / "artifacts"), LOG)
    apply(store, clicks(500))
    first = publish(store, checkpoints, tmp_path)
    apply(store, clicks(10, 500))
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "artifacts").rglob("files/*")}
    second = publish(store, checkpoints, tmp_path)
    tables = [{f.sha256 for f in m.files if f.name.endswith(".sst")} for m in (first, second)]
    assert tables[0] & tables[1]
    for path in (tmp_path / "artifacts").rglob("files/*"):
        assert path.stat().st_mtime_ns == written.get(path.name, path.stat().st_mtime_ns)
    assert len(checkpoints.hashed) == len(second.files), "hashes of removed files are dropped"
    assert publish(store, checkpoints, tmp_path) is None, "nothing is new: no checkpoint"


@pytest.mark.parametrize("damage", [lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b[:-1], lambda b: b""])
def test_a_damaged_checkpoint_is_refused_and_uploaded_again_next_time(store, tmp_path, damage):
    checkpoints = CheckpointStore(str(tmp_path / "artifacts"), LOG)
    apply(store, clicks(200))
    manifest = publish(store, checkpoints, tmp_path)
    table = next(f for f in manifest.files if f.name.endswith(".sst"))
    file = next((tmp_path / "artifacts").rglob(table.sha256))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointError, match=table.name):
        checkpoints.restore(manifest, tmp_path / "elsewhere")
    assert not list(tmp_path.glob("*elsewhere*"))
    apply(store, clicks(10, 200))
    newer = publish(store, checkpoints, tmp_path)
    checkpoints.restore(newer, tmp_path / "elsewhere")


def test_a_manifest_is_written_last(store, tmp_path):
    checkpoints = CheckpointStore(str(tmp_path / "artifacts"), LOG)
    apply(store, clicks(200))
    written: list[str] = []

    def may() -> bool:
        written.append("asked")
        return len(written) < 3

    folder = tmp_path / "copy"
    take(store, folder)
    assert checkpoints.upload(folder, SETTINGS, may_continue=may) is None, "the lease was lost during the upload"
    assert checkpoints.usable() == []


def test_an_older_checkpoint_never_replaces_a_newer_one(store, tmp_path):
    checkpoints = CheckpointStore(str(tmp_path / "artifacts"), LOG)
    apply(store, clicks(100))
    take(store, tmp_path / "of-the-zombie")
    apply(store, clicks(100, 100))
    publish(store, checkpoints, tmp_path)
    assert CheckpointStore(str(tmp_path / "artifacts"), LOG).upload(tmp_path / "of-the-zombie", SETTINGS) is None
    assert [m.progress.next_offset for m in checkpoints.usable()] == [200]


def test_after_pruning_the_newest_checkpoints_can_be_restored(store, url, tmp_path):
    checkpoints = CheckpointStore(url, LOG)
    for round_ in range(4):
        apply(store, clicks(50, 50 * round_))
        publish(store, checkpoints, tmp_path)
    assert checkpoints.prune(2) == 2
    assert [m.progress.next_offset for m in checkpoints.usable()] == [200, 150]
    named = {f.sha256 for m in checkpoints.usable() for f in m.files}
    fs, root = fsspec.core.url_to_fs(url)
    assert {Path(file).name for file in fs.find(root) if "/files/" in file} == named
    for manifest in checkpoints.usable():
        checkpoints.restore(manifest, tmp_path / f"at-{manifest.progress.next_offset}")


def test_checkpoints_of_another_log_are_not_used_and_removed_once_there_are_enough_of_this_log(store, tmp_path):
    url = str(tmp_path / "artifacts")
    old = msgspec.structs.replace(LOG, topic_id="old")
    before = Store(tmp_path / "before", old, SETTINGS)
    apply(before, clicks(300))
    publish(before, CheckpointStore(url, old), tmp_path)
    before.close()
    checkpoints = CheckpointStore(url, msgspec.structs.replace(LOG, topic_id="new"))
    assert checkpoints.usable() == []
    fresh = Store(tmp_path / "fresh", msgspec.structs.replace(LOG, topic_id="new"), SETTINGS)
    for offset in (0, 10):
        apply(fresh, clicks(10, offset))
        publish(fresh, checkpoints, tmp_path)
        checkpoints.prune(2)
    assert [m.progress.next_offset for m in checkpoints.usable()] == [20, 10]
    assert CheckpointStore(url, old).usable() == []
    fresh.close()


def test_a_restored_store_answers_as_before(store, tmp_path):
    apply(store, clicks(80))
    checkpoints = CheckpointStore(str(tmp_path / "artifacts"), LOG)
    manifest = publish(store, checkpoints, tmp_path)
    checkpoints.restore(manifest, tmp_path / "elsewhere")
    restored = Store(tmp_path / "elsewhere", LOG, SETTINGS)
    pending = restored.pending.claim(100)
    assert pending == store.pending.claim(100)
    assert len(pending) == 40
    assert restored.sequences(hashes("user3")).of(0).tolist() == store.sequences(hashes("user3")).of(0).tolist()
    restored.close()
