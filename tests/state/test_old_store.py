"""A store and a checkpoint written by an earlier version are upgraded with everything that was in them.

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
from state.errors import EarlierLayout
from state.events import Records, hash_id
from state.identity import Identity
from state.progress import Progress
from state.settings import StateSettings
from state.store import Store
from state.upgrade import upgrade
from state.view import View
from tests.state.oracle import Event, Oracle, assert_rows_are_right

ARCHIVE = Path(__file__).parent / "data" / "store-of-layout-2.tar.xz"
SETTINGS = StateSettings(sequence_events=4, neighbours_per_item=8, pair_window_events=2)
LOG = Identity("cluster", "clicks", 0, 1, 4, 8)
USERS = np.array([hash_id(user) for user in ("ann", "bob", "cid", "dan", "eve")], np.uint64)
ITEM_NAMES = [f"item-{n}" for n in range(10)]
ITEMS = np.array([hash_id(item) for item in ITEM_NAMES], np.uint64)
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
    assert upgrade(path, LOG, SETTINGS, lambda *_: None) == len(events_of(old))
    opened = Store(path, LOG, SETTINGS)
    yield opened
    opened.close()


def events_of(old: Path) -> list[Event]:
    """The events in the old store, without those of the forgotten user."""
    journal = json.loads((old / "expected.json").read_text())["journal"]
    users = {hash_id(user): user for user in ("ann", "bob", "dan", "eve")}
    items = {hash_id(item): item for item in ITEM_NAMES}
    kinds = list(StateSettings().kinds)
    return [Event(users[user], items[item], ts, kinds[kind]) for user, item, ts, _, kind in journal if user in users]


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
    journal = [event for event in expected["journal"] if event[0] != hash_id("cid")]
    assert rows(store.journal(0, ALL_OFFSETS), "user", "item", "ts", "offset", "kind") == journal
    assert [hidden.tolist() for hidden in store.hidden(USERS)] == expected["hidden"]
    found = store.rows(ITEMS)
    for name in ("nodes", "degree", "ts"):
        assert getattr(found, name).tolist() == expected["rows"][name], name
    for name in ("after", "before", "popularity"):
        np.testing.assert_allclose(getattr(found, name), expected["rows"][name], rtol=1e-5, err_msg=name)
    assert [item for item, _ in store.popular().tolist()] == [item for item, _ in expected["popular"]]
    assert [name and name.decode() for name in store.user_ids(USERS)] == expected["user_ids"]
    assert [name and name.decode() for name in store.item_ids(ITEMS)] == expected["item_ids"]
    messages = [store.recommended(user) for user in USERS.tolist()]
    assert [message and message.decode() for message in messages] == expected["recommended"]


def test_an_old_store_gets_the_counts_that_it_did_not_have(old: Path, store: Store):
    assert [(caps.user_item, caps.user) for caps in store.caps.caps[:1]] == [(0, 0)], "the earlier version had no caps"
    oracle = Oracle(msgspec.structs.replace(SETTINGS, user_item_cap=0, user_cap=0))
    for event in events_of(old):
        oracle.add(event)
    assert_rows_are_right(store, oracle, ITEM_NAMES)
    assert len({*store.rows(ITEMS).first_ts.tolist()}) > 4


def test_an_old_store_is_not_read_as_if_its_rows_were_those_of_today(old: Path):
    with pytest.raises(EarlierLayout, match=r"layout 2.*Start `anabranch worker` on this data directory"):
        Store(old / "clicks-0", LOG, SETTINGS)
    with View(old, "clicks", SETTINGS) as view:
        assert len(view.sequences(USERS).steps), "nothing else has changed"
        with pytest.raises(EarlierLayout, match="counts them again from the events in the store"):
            view.rows(ITEMS)
        upgrade(old / "clicks-0", LOG, SETTINGS, lambda *_: None)
        view.refresh()
        assert view.rows(ITEMS).first_ts.any()


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
