"""RocksDB's errors name the problem and the remedy."""

import pytest

from state.errors import StoreBlocked, StoreInUse, StoreUnreadable
from state.rocksdb import state_error
from state.store import Store
from tests.state.test_store import LOG, SETTINGS, apply


def test_a_store_has_one_owner(tmp_path):
    store = Store(tmp_path / "s", LOG, SETTINGS)
    with pytest.raises(StoreInUse, match="--data"):
        Store(store.path, LOG, SETTINGS)
    store.close()


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_file_is_reported_as_damage(tmp_path, damage):
    store = Store(tmp_path / "clicks-0", LOG, SETTINGS)
    apply(store, [(f"user{n}", f"item{n}", n + 1) for n in range(500)])
    store.database.flush()
    store.close()
    for file in (tmp_path / "clicks-0").glob("*.sst"):
        content = bytearray(file.read_bytes())
        if damage == "truncated":
            content = content[:-10]
        else:
            content[10:40] = bytes(30)
        file.write_bytes(content)
    with pytest.raises(StoreUnreadable, match="Corruption"):
        apply(Store(tmp_path / "clicks-0", LOG, SETTINGS), [(f"user{n}", f"item{n}", n + 1) for n in range(500)])


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("No space left on device: While appending to file: /data/clicks-0/000012.log", "make room"),
        ("While open a file for appending: /data/clicks-0/LOCK: Permission denied", "chown"),
        ("While open directory: /data/clicks-0: Too many open files", "ulimit -n"),
        ("While opening a file: /data/clicks-0/000012.log: Read-only file system", "mount the file system writable"),
    ],
)
def test_a_problem_of_the_machine_is_not_reported_as_damage(tmp_path, message, remedy):
    error = state_error("write", tmp_path, f"IO error: {message}")
    assert isinstance(error, StoreBlocked)
    assert remedy in str(error)


def test_damage_is_not_reported_as_a_problem_of_the_machine(tmp_path):
    assert isinstance(state_error("open", tmp_path, "Corruption: block checksum mismatch"), StoreUnreadable)
