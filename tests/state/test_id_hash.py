"""An id that was made to collide with another user's harms nobody: its hash depends on a secret key.

The pairs below were computed in a second from nothing but the victim's name.
"""

import logging

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state import id_hash
from state.checkpoint import CheckpointStore, Manifest, take
from state.errors import StateError, WrongLayout
from state.events import hash_id, hash_ids
from state.id_hash import KEY_BYTES, IdHash, new_key
from state.identity import KEYED_LAYOUT, LAYOUT, Identity
from state.journal import DAY_MS
from state.partition import Partition
from state.progress import Progress
from state.search import search
from state.settings import StateSettings
from state.store import Store
from state.view import View
from tests.state.oracle import Event, apply

T = 1_600_000_000_000
COLLIDING = [("user-1131", "%ay{G7VA"), ("household-61143", "YzxTWN7O"), ("user-44000", "y7dxhp:z")]
"""A victim, and an id that has the victim's hash where there is no key."""
KEY = "000102030405060708090a0b0c0d0e0f"
SETTINGS = StateSettings(sequence_events=4, neighbours_per_item=8)
UNKEYED_LOG = Identity("cluster", "clicks", 0, 1, 4, 8)
KEYED_LOG = msgspec.structs.replace(UNKEYED_LOG, layout=KEYED_LAYOUT, id_key=KEY)

keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES).map(bytes.hex)


@pytest.mark.parametrize(("victim", "collider"), COLLIDING)
def test_without_a_key_the_collider_is_the_victim(victim, collider):
    assert hash_id(victim) == hash_id(collider)
    assert IdHash().of(victim) == IdHash().of(collider) == hash_id(victim)


@given(keys, st.sampled_from(COLLIDING))
def test_with_a_key_the_collider_is_somebody_else(key, pair):
    victim, collider = pair
    assert IdHash(key).of(victim) != IdHash(key).of(collider)


@given(keys, keys, st.binary(min_size=1, max_size=512))
def test_another_key_gives_another_hash(one, other, identifier):
    assert (IdHash(one).of(identifier) == IdHash(other).of(identifier)) is (one == other)
    assert IdHash(one).of(identifier) != hash_id(identifier)


def test_the_hash_of_an_id_never_changes():
    assert IdHash(KEY).of("milk") == IdHash(KEY).of(b"milk") == 0x031346DCE8B758A8
    assert IdHash(KEY).of_many([b"milk", b"", "käse".encode()]).tolist() == [
        0x031346DCE8B758A8,
        0xEA5649480F989BF0,
        0x0060F0AE31862874,
    ]


@given(st.lists(st.binary(max_size=20), max_size=40), st.sampled_from(["", KEY]))
def test_many_ids_have_the_hashes_of_each_in_their_order(identifiers, key):
    ids = IdHash(key)
    assert ids.of_many(identifiers).tolist() == [IdHash(key).of(one) for one in identifiers]
    assert ids.of_many(identifiers).tolist() == ids.of_many(identifiers).tolist()


def test_no_more_ids_are_remembered_than_a_bound_and_all_hashes_stay_right(monkeypatch):
    monkeypatch.setattr(id_hash, "MAX_REMEMBERED", 7)
    identifiers, ids = [f"user-{n % 40}".encode() for n in range(100)], IdHash(KEY)
    assert ids.of_many(identifiers).tolist() == [IdHash(KEY).of(one) for one in identifiers]
    assert ids.of_many(identifiers[:5]).tolist() == [IdHash(KEY).of(one) for one in identifiers[:5]]


def test_the_key_is_in_no_text_that_a_person_could_see():
    manifest = Manifest(KEYED_LOG, Progress(), created_ts=0, files=[])
    for shown in (IdHash(KEY), KEYED_LOG, manifest, [KEYED_LOG]):
        assert KEY not in f"{shown} {shown!r}"
        assert IdHash(KEY).fingerprint in repr(shown)
    assert new_key() != new_key()


@pytest.mark.parametrize(("log", "harmed"), [(UNKEYED_LOG, True), (KEYED_LOG, False)], ids=["unkeyed", "keyed"])
@pytest.mark.parametrize(("victim", "collider"), COLLIDING)
def test_a_collider_neither_reads_nor_erases_its_victim(tmp_path, log, harmed, victim, collider):
    store = Store(tmp_path / "clicks-0", log, SETTINGS)
    apply(store, Event(victim, "milk", T), Event(collider, "bread", T + 1))
    the_victim, the_collider = store.ids.of_many([victim.encode()]), store.ids.of_many([collider.encode()])
    milk, bread = store.ids.of("milk"), store.ids.of("bread")
    assert store.sequences(the_collider).of(0)["item"].tolist() == ([milk, bread] if harmed else [bread])
    assert store.user_ids(the_collider) == [victim.encode() if harmed else collider.encode()]
    apply(store, Event(collider, "", T + DAY_MS, "forget"))
    assert len(store.sequences(the_victim).of(0)) == (0 if harmed else 1)
    store.close()


@pytest.mark.parametrize(("log", "dropped"), [(UNKEYED_LOG, 1), (KEYED_LOG, 0)], ids=["unkeyed", "keyed"])
def test_an_event_id_of_another_user_does_not_suppress_the_event_that_has_it(tmp_path, log, dropped):
    store = Store(tmp_path / "clicks-0", log, SETTINGS)
    forged = apply(store, Event("mallory", "bread", T, id="order-1002"))
    assert apply(store, Event("ann", "milk", T, id="order-1002")).duplicate == dropped
    assert forged.duplicate == 0
    assert apply(store, Event("mallory", "bread", T, id="order-1002")).duplicate == 1
    store.close()


def test_a_repeat_of_ones_own_event_is_dropped_in_one_batch_and_over_a_restart(tmp_path):
    store = Store(tmp_path / "clicks-0", KEYED_LOG, SETTINGS)
    event = Event("ann", "milk", T, id="order-1")
    assert apply(store, event, event).duplicate == 1
    store.close()
    store = Store(tmp_path / "clicks-0", KEYED_LOG, SETTINGS)
    assert apply(store, event, Event("ann", "milk", T, id="order-2")).duplicate == 1
    store.close()


@pytest.mark.parametrize(
    ("stored", "wanted", "reason"),
    [
        (UNKEYED_LOG, KEYED_LOG, r"hashes its ids without a key, and this installation with the key [0-9a-f]{12}"),
        (KEYED_LOG, UNKEYED_LOG, r"hashes its ids with the key [0-9a-f]{12}, and this installation without a key"),
        (KEYED_LOG, msgspec.structs.replace(KEYED_LOG, id_key=new_key()), "`anabranch init --id-key data` makes it"),
    ],
    ids=["from before the key", "keyed", "another key"],
)
def test_a_store_of_another_key_is_refused_and_unchanged(tmp_path, stored, wanted, reason):
    Store(tmp_path / "clicks-0", stored, SETTINGS).close()
    with pytest.raises(WrongLayout, match=reason) as refused:
        Store(tmp_path / "clicks-0", wanted, SETTINGS)
    assert KEY not in str(refused.value)
    Store(tmp_path / "clicks-0", stored, SETTINGS).close()


def test_code_from_before_the_key_refuses_a_keyed_store():
    assert KEYED_LOG.layout != LAYOUT, "it compares layouts, and would else mix its hashes with ours"


def test_a_checkpoint_carries_its_key_and_is_used_with_no_other(tmp_path, caplog):
    store = Store(tmp_path / "clicks-0", KEYED_LOG, SETTINGS)
    apply(store, Event("ann", "milk", T))
    take(store, tmp_path / "copy")
    store.close()
    artifacts = str(tmp_path / "artifacts")
    CheckpointStore(artifacts, KEYED_LOG).upload(tmp_path / "copy", SETTINGS)
    assert CheckpointStore(artifacts, UNKEYED_LOG).newest_identity() == KEYED_LOG
    with caplog.at_level(logging.WARNING):
        assert CheckpointStore(artifacts, UNKEYED_LOG).usable() == []
    assert "hashes its ids with the key" in caplog.text
    assert KEY not in caplog.text
    [manifest] = CheckpointStore(artifacts, KEYED_LOG).usable()
    CheckpointStore(artifacts, KEYED_LOG).restore(manifest, tmp_path / "clicks-0-again")
    again = Store(tmp_path / "clicks-0-again", KEYED_LOG, SETTINGS)
    assert again.user_ids(again.ids.of_many([b"ann"])) == [b"ann"]
    again.close()


def test_a_view_takes_the_key_from_the_stores_and_never_guesses(tmp_path):
    with View(tmp_path, "clicks", SETTINGS) as view:
        for number in range(2):
            log = msgspec.structs.replace(KEYED_LOG, partition=number, partitions=2)
            store = Store(tmp_path / f"clicks-{number}", log, SETTINGS)
            apply(store, Event(f"ann-{number}", "milk", T))
            store.close()
        Partition(tmp_path / "clicks-2", SETTINGS).close()  # its worker has not written its identity yet
        view.refresh()
        assert len(view.partitions) == 3
        assert view.ids == IdHash(KEY)
        assert view.user_ids(view.ids.of_many([b"ann-1"])) == [b"ann-1"]
        assert view.user_ids(hash_ids([b"ann-1"])) == [None]
    Store(tmp_path / "clicks-2", msgspec.structs.replace(UNKEYED_LOG, partition=2), SETTINGS).close()
    with View(tmp_path, "clicks", SETTINGS) as view, pytest.raises(StateError, match=r"different keys .* 2: none"):
        _ = view.ids


def test_a_search_finds_a_user_under_the_key_of_each_store_also_one_that_was_moved_aside(tmp_path):
    user = "ann-who-is-there"
    for name, log in (("clicks-0", KEYED_LOG), ("aside-clicks-0-1", UNKEYED_LOG)):
        store = Store(tmp_path / name, log, SETTINGS)
        apply(store, Event(user, "milk", T))
        store.close()
    places = search(tmp_path, user).places
    for name in ("clicks-0", "aside-clicks-0-1"):
        assert {f"{name}, column family {column}" for column in ("sequences", "edges", "journal")} <= set(places)
    assert search(tmp_path, "bob-who-never-clicked").places == []


@pytest.mark.parametrize("hashed", [IdHash(KEY), IdHash()], ids=["keyed", "unkeyed"])
def test_a_search_finds_a_hash_left_in_any_file(tmp_path, hashed):
    Store(tmp_path / "clicks-0", KEYED_LOG, SETTINGS).close()
    left = hashed.of("ann-who-is-there")
    (tmp_path / "left.bin").write_bytes(bytes(9) + left.to_bytes(8, "little") + bytes(9))
    assert search(tmp_path, "ann-who-is-there").places == ["left.bin"]
