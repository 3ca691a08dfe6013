"""A store and a checkpoint written by an earlier version open with everything that was in them.

`data/store-of-layout-2.tar.xz` holds the store `clicks-0`, a checkpoint of it, and what that version read from it
(`expected.json`). Among its events are a duplicate, a hide, an undo and an unfinished forget.
"""

import json
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from state.checkpoint import CheckpointStore, Manifest
from state.erasure import Erasure
from state.events import Records, hash_id
from state.identity import Identity
from state.progress import Progress
from state.settings import StateSettings
from state.store import Store

ARCHIVE = Path(__file__).parent / "data" / "store-of-layout-2.tar.xz"
SETTINGS = StateSettings(sequence_events=4, neighbours_per_item=8, pair_window_events=2)
LOG = Identity("cluster", "clicks", 0, 1, 4, 8)
USERS = np.array([hash_id(user) for user in ("ann", "bob", "cid", "dan", "eve")], np.uint64)
ITEMS = np.array([hash_id(f"item-{n}") for n in range(10)], np.uint64)
ALL_OFFSETS = 10**9


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture(params=["store", "checkpoint"])
def store(old: Path, request: pytest.FixtureRequest):
    path = old / "clicks-0"
    if request.param == "checkpoint":
        checkpoints = CheckpointStore(str(old / "artifacts"), LOG)
        [manifest] = checkpoints.usable()
        path = old / "restored"
        checkpoints.restore(manifest, path)
    opened = Store(path, LOG, SETTINGS)
    yield opened
    opened.close()


def rows(records: Records, *names: str) -> list[list[int]]:
    return [[int(record[name]) for name in names] for record in records]


def test_an_old_store_has_the_content_that_the_earlier_version_read(old: Path, store: Store):
    expected: dict[str, Any] = json.loads((old / "expected.json").read_text())
    assert {name: getattr(store.progress, name) for name in expected["progress"]} == expected["progress"]
    assert store.answered() == expected["answered"]
    for name, found in (("sequences", store.sequences(USERS)), ("positives", store.positives(USERS))):
        assert [rows(found.of(row), "item", "ts", "kind") for row in range(len(USERS))] == expected[name]
    assert rows(store.steps(int(USERS[0]), ALL_OFFSETS), "item", "ts", "kind") == expected["steps_of_ann"]
    assert [rows(store.edges(item, ALL_OFFSETS), "user", "ts", "kind") for item in ITEMS.tolist()] == expected["edges"]
    assert rows(store.journal(0, ALL_OFFSETS), "user", "item", "ts", "offset", "kind") == expected["journal"]
    assert [hidden.tolist() for hidden in store.hidden(USERS)] == expected["hidden"]
    graph_rows = store.rows(ITEMS)
    assert {name: getattr(graph_rows, name).tolist() for name in graph_rows._fields} == expected["rows"]
    assert [list(record) for record in store.popular().tolist()] == expected["popular"]
    assert [name and name.decode() for name in store.user_ids(USERS)] == expected["user_ids"]
    assert [name and name.decode() for name in store.item_ids(ITEMS)] == expected["item_ids"]
    messages = [store.recommended(user) for user in USERS.tolist()]
    assert [message and message.decode() for message in messages] == expected["recommended"]


def test_an_old_stores_pending_users_and_unfinished_erasure_go_on(old: Path, store: Store):
    expected: dict[str, Any] = json.loads((old / "expected.json").read_text())
    assert sorted(store.pending.claim(100)) == expected["pending"]
    erasures = store.erasures.without_tombstone()
    assert [[e.id, e.offset, e.days, e.tombstone_sent] for e in erasures] == expected["erasing"]
    store.record_tombstones(erasures)
    assert not store.ids.keyed
    while store.erasing:
        store.erasures.sweep()
    assert hash_id("cid") not in store.journal(0, ALL_OFFSETS)["user"]


def test_names_on_disk_stay_those_of_earlier_versions():
    manifest = Manifest(LOG, Progress(), created_ts=0, files=[])
    assert json.loads(msgspec.json.encode(manifest)).keys() == {"identity", "marks", "created_ts", "files"}
    erasure = Erasure(1, "ann", 0, [])
    assert json.loads(msgspec.json.encode(erasure)).keys() == {"user", "id", "offset", "days", "told"}
