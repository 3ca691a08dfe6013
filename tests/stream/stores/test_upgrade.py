"""A worker upgrades a store of an earlier version when it opens it, whatever happens on the way.

The store, and a checkpoint of it, are those of `tests/state/test_old_store.py`.
"""

import logging
import shutil
import subprocess
import sys
import tarfile
from collections import namedtuple
from pathlib import Path

import msgspec
import pytest

from state.errors import EarlierLayout, StoreBlocked, WrongLayout
from state.identity import LAYOUT
from state.store import Store
from state.view import View
from stream.config import Config
from stream.kafka.topics import Log
from stream.stores.partition_stores import PartitionStores
from tests.state.test_old_store import ALL_OFFSETS, ARCHIVE, ITEMS, SETTINGS

EVENTS, END = 78, 82
"""Events in the old store, and the offset behind the last one."""

DIE = """
import os
import sys
from pathlib import Path
from state import rehash, upgrade
from tests.state.test_old_store import LOG, SETTINGS

rehash.OFFSETS_AT_ONCE = 10
point, path = sys.argv[1], Path(sys.argv[2])
remove = upgrade.shutil.rmtree
if point == "before the old one is moved":
    upgrade.replaced_path = lambda _: os._exit(9)
if point == "before the new one is moved":
    upgrade.finish = lambda _: os._exit(9)
if point == "before the old one is removed":
    upgrade.shutil.rmtree = lambda folder, **kw: os._exit(9) if "replaced-" in folder.name else remove(folder, **kw)
upgrade.upgrade(path, LOG, SETTINGS, lambda at, *_: os._exit(9) if point == "while it counts" and at > 40 else None)
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return Config(data=tmp_path, state=SETTINGS)


def opened(config: Config, end: int = END, cluster: str = "cluster") -> Store:
    return PartitionStores(config).open(0, Log(cluster, "", 1, 0, end))


def assert_upgraded(store: Store) -> None:
    assert store.identity.layout == LAYOUT
    assert (store.progress.log_offset, store.progress.edges) == (END, EVENTS)
    assert len(store.journal(0, ALL_OFFSETS)) == EVENTS
    assert store.rows(ITEMS).first_ts.any()
    assert {folder.name for folder in store.path.parent.iterdir()} <= {"clicks-0", "artifacts", "expected.json"}


def test_it_says_what_it_does_and_leaves_only_the_new_store(config, caplog):
    with caplog.at_level(logging.INFO):
        store = opened(config)
    assert_upgraded(store)
    store.close()
    begun, done = (record.getMessage() for record in caplog.records)
    assert begun.startswith("partition 0: its store was written by an earlier version; its 78 events are counted again")
    assert "its users get no new recommendations" in begun
    assert "upgraded in" in done
    assert done.endswith("with 78 events")
    caplog.clear()
    with caplog.at_level(logging.INFO):
        opened(config).close()
    assert not caplog.records, "once"


@pytest.mark.parametrize(
    "point",
    [
        "while it counts",
        "before the old one is moved",
        "before the new one is moved",
        "before the old one is removed",
    ],
)
def test_a_worker_that_is_killed_loses_nothing(config, point):
    died = subprocess.run([sys.executable, "-c", DIE, point, config.data / "clicks-0"], check=False)
    assert died.returncode == 9
    assert {f"{state}-clicks-0" for state in ("upgrading", "replaced")} & {f.name for f in config.data.iterdir()}
    store = opened(config)
    assert_upgraded(store)
    store.close()


def test_a_disk_without_room_for_both_stores_keeps_the_old_one(config, monkeypatch):
    usage = namedtuple("usage", "free")
    with monkeypatch.context() as full:
        full.setattr("state.upgrade.shutil.disk_usage", lambda _: usage(1_000))
        with pytest.raises(StoreBlocked, match=r"needs [0-9,]+ free bytes on this disk .*; 1,000 are free: make room"):
            opened(config)
    with monkeypatch.context() as full:
        full.setattr("state.upgrade.fold_journal", fail)
        with pytest.raises(StoreBlocked, match="No space left"):
            opened(config)
    assert not (config.data / "upgrading-clicks-0").exists(), "it would keep the disk full"
    store = opened(config)
    assert_upgraded(store)
    store.close()


def fail(*_: object) -> None:
    raise StoreBlocked("No space left on device", Path("upgrading"))


def test_a_checkpoint_of_the_earlier_version_is_restored_and_upgraded(config, caplog):
    shutil.rmtree(config.data / "clicks-0")
    shared = msgspec.structs.replace(config, artifacts=str(config.data / "artifacts"))
    with caplog.at_level(logging.INFO):
        store = opened(shared)
    assert_upgraded(store)
    store.close()
    assert [word for word in ("restored from the checkpoint", "upgraded in") if word in caplog.text] == [
        "restored from the checkpoint",
        "upgraded in",
    ]


def test_a_view_reads_all_but_the_rows_before_and_all_after(config):
    with View(config.data, "clicks", config.state) as view:
        assert len(view.window(0, 10**15)) > 0
        with pytest.raises(EarlierLayout, match="Start `anabranch worker`"):
            view.rows(ITEMS)
        opened(config).close()
        view.refresh()
        assert view.rows(ITEMS).first_ts.any()


def test_a_store_that_is_not_ours_is_refused_as_before_and_not_upgraded(config, caplog):
    other = msgspec.structs.replace(config, state=msgspec.structs.replace(config.state, sequence_events=7))
    with pytest.raises(WrongLayout, match=r"state\.sequence_events = 4, but the configuration has 7"):
        opened(other)
    with caplog.at_level(logging.INFO):
        opened(config, cluster="elsewhere").close()
    assert "upgraded" not in caplog.text
    assert len(list(config.data.glob("aside-clicks-0-*"))) == 1
