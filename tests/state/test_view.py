"""A view reads the stores that can be opened, and leaves nothing behind."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from state.errors import StoreUnreadable
from state.identity import Identity
from state.settings import StateSettings
from state.store import Store
from state.view import View
from tests.state.oracle import Event, apply


def two_partitions(data: Path) -> Path:
    """Make two stores; return the file of the second one that RocksDB reads first."""
    for number in (0, 1):
        store = Store(data / f"clicks-{number}", Identity("cluster", "clicks", number, 2, 100, 32), StateSettings())
        apply(store, Event(f"user-{number}", "milk", 1_700_000_000_000))
        store.close()
    return data / "clicks-1" / "CURRENT"


def test_a_store_that_cannot_be_opened_is_listed_with_the_reason_and_the_others_are_read(tmp_path):
    current = two_partitions(tmp_path)
    sound = current.read_text()
    current.write_text("nonsense")
    with View(tmp_path, "clicks", StateSettings()) as view:
        assert list(view.partitions) == [0]
        with pytest.raises(StoreUnreadable, match=r"cannot open .*clicks-1"):
            view.check_all_open()
        current.write_text(sound)
        view.refresh()
        assert list(view.partitions) == [0, 1]
        view.check_all_open()


def test_a_view_waits_for_a_store_that_is_being_created(tmp_path):
    current = two_partitions(tmp_path)
    sound = current.read_text()
    current.write_text("")
    with View(tmp_path, "clicks", StateSettings()) as view:
        assert list(view.unreadable) == [1]
        created = threading.Timer(0.3, current.write_text, [sound])
        created.start()
        view.check_all_open()
        created.join()
        assert list(view.partitions) == [0, 1]


def test_the_next_view_removes_the_folder_of_a_killed_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f"anabranch-view-{gone.pid}-abc"
    others = [tmp_path / f"anabranch-view-{os.getppid()}-abc", tmp_path / "anabranch-view-x-abc", tmp_path / "else"]
    for folder in (left, *others):
        (folder / "0").mkdir(parents=True)
    with View(tmp_path / "data", "clicks", StateSettings()):
        assert not left.exists()
        assert len(list(tmp_path.glob(f"anabranch-view-{os.getpid()}-*"))) == 1
    assert sorted(p for p in tmp_path.iterdir() if p.name != "data") == sorted(others)
