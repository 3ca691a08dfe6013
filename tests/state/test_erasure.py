"""A forgotten user leaves no data behind, other users are unchanged, and a user who comes back starts empty."""

import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state import timeline
from state.erasure import COMPACT_EVERY_S, MAX_CHUNKS_PER_SWEEP, Erasure, Erasures
from state.events import hash_id
from state.identity import Identity
from state.journal import DAY_MS, Journal
from state.progress import PROGRESS_KEY
from state.settings import StateSettings
from state.store import Store
from tests.state.oracle import Event, Oracle, apply, assert_rows_are_right, batch, hashed
from tests.state.test_as_of_t import ITEMS, LATEST_TIME, UNSHRUNK, USERS, tuples

SETTINGS = StateSettings(sequence_events=4, neighbours_per_item=8, pair_window_events=2)
LOG = Identity("cluster", "clicks", 0, 1, 4, 8)
ANN = hash_id("ann-who-leaves")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "LEAF_STEPS", 3)
    monkeypatch.setattr("state.partition.HEAD_EDGES", 2)


def finish(store: Store) -> None:
    """Do the work that a worker does between batches."""
    store.record_tombstones(store.erasures.without_tombstone())
    while store.erasing:
        store.erasures.sweep()


def everything(store: Store) -> bytes:
    """Every key and value, uncompressed."""
    return b"".join(k + v for family in store.database.families() for k, v in family.items())


def clicks_of(user: str, count: int) -> list[Event]:
    return [Event(user, f"item-{n % 7}", 1_600_000_000_000 + n * DAY_MS // 3) for n in range(count)]


def test_nothing_of_the_user_is_left_in_any_file(tmp_path: Path):
    store = Store(tmp_path / "s", LOG, SETTINGS)
    apply(
        store,
        *clicks_of("bob", 20),
        *clicks_of("ann-who-leaves", 20),
        Event("ann-who-leaves", "item-1", LATEST_TIME, "hide"),
    )
    store.record_answers([(user, b"for ann-who-leaves" if user == ANN else b"") for user in store.pending.claim(10)])
    assert store.recommended(ANN) == b"for ann-who-leaves"
    apply(store, Event("ann-who-leaves", "", LATEST_TIME, "forget"))
    assert [e.id for e in store.erasures.without_tombstone()] == ["ann-who-leaves"]
    assert store.erasing
    finish(store)
    assert not store.erasing
    words = (b"ann-who-leaves", ANN.to_bytes(8, "little"), ANN.to_bytes(8, "big"))
    assert not [w for w in words if w in everything(store)]
    store.close()
    for file in (tmp_path / "s").iterdir():
        assert not [w for w in words if w in file.read_bytes()], file


def test_an_erasure_goes_on_after_a_restart(tmp_path: Path):
    store = Store(tmp_path / "s", LOG, SETTINGS)
    apply(store, *clicks_of("ann-who-leaves", 20), Event("ann-who-leaves", "", LATEST_TIME, "forget"))
    store.close()
    store = Store(tmp_path / "s", LOG, SETTINGS)
    assert store.erasing
    assert store.pending.claim(10) == {}, "no user is pending"
    finish(store)
    assert ANN.to_bytes(8, "little") not in everything(store)
    store.close()


def test_a_store_closed_while_its_files_are_rewritten_can_be_opened_again(tmp_path: Path):
    store = Store(tmp_path / "s", LOG, SETTINGS)
    for n in range(6):
        apply(store, *clicks_of(f"user-{n}", 2000))
    closed = []
    for delay_s in (0.0, 0.002, 0.005, 0.01):
        apply(store, *clicks_of("ann-who-leaves", 2), Event("ann-who-leaves", "", LATEST_TIME, "forget"))
        store.record_tombstones(store.erasures.without_tombstone()[:1])
        while not store.erasures.compacting:
            store.erasures.sweep()
        time.sleep(delay_s)
        closed.append((store, store.erasures._compaction))  # the thread may hold it a moment longer
        store.close()
        store = Store(tmp_path / "s", LOG, SETTINGS)
        assert store.erasing
    finish(store)
    store.close()


def test_a_user_who_comes_back_starts_from_nothing(tmp_path: Path):
    store = Store(tmp_path / "s", LOG, SETTINGS)
    again = Event("ann-who-leaves", "item-9", LATEST_TIME)
    apply(store, *clicks_of("ann-who-leaves", 20), Event("ann-who-leaves", "", LATEST_TIME, "forget"), again)
    finish(store)
    assert tuples(store.steps(ANN, 10)) == hashed([again], "item")
    assert store.pending.claim(1).keys() == {ANN}
    assert (store.progress.users, store.progress.items, store.progress.edges) == (1, 1, 1)
    assert store.journal(0, LATEST_TIME)["item"].tolist() == [hash_id("item-9")]
    store.close()


def test_an_answer_to_a_user_forgotten_meanwhile_is_not_recorded(tmp_path: Path):
    store = Store(tmp_path / "s", LOG, SETTINGS)
    apply(store, *clicks_of("ann-who-leaves", 2))
    assert store.pending.claim(1).keys() == {ANN}
    apply(store, Event("ann-who-leaves", "", LATEST_TIME, "forget"))
    store.record_answers([(ANN, b"for ann")])
    assert store.recommended(ANN) is None
    assert store.answered() == store.progress.next_offset
    store.close()


events = st.builds(
    Event,
    st.sampled_from(USERS),
    st.sampled_from(ITEMS),
    st.integers(1, 12).map(lambda t: t * DAY_MS // 4),
    st.sampled_from(("click", "click", "click", "click", "hide", "undo", "forget")),
    st.none(),
)


@pytest.mark.medium
@settings(max_examples=40, deadline=None, phases=UNSHRUNK, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(events, min_size=1, max_size=50), st.integers(1, 20))
def test_other_users_are_as_if_the_forgotten_ones_had_never_clicked(tmp_path_factory, log, size):
    store, oracle = Store(tmp_path_factory.mktemp("store") / "s", LOG, SETTINGS), Oracle(SETTINGS)
    for start in range(0, len(log), size):
        apply(store, *log[start : start + size])
    finish(store)
    for event in log:
        oracle.add(event)
    for user in USERS:
        assert tuples(store.steps(hash_id(user), 100)) == hashed(oracle.of_user(user), "item")
    for item in ITEMS:
        assert tuples(store.edges(hash_id(item), 100)) == hashed(oracle.of_item(item), "user")
        assert store.items.count(hash_id(item), 0, LATEST_TIME) == len(oracle.of_item(item))
    assert_rows_are_right(store, oracle, ITEMS)
    assert store.progress.applied == oracle.applied
    assert store.progress.edges == len(oracle.events)
    assert store.progress.users == len({e.user for e in oracle.events})
    assert store.progress.items == len({e.item for e in oracle.events})
    assert store.journal(0, LATEST_TIME)["item"].tolist() == [hash_id(e.item) for e in oracle.events]
    store.close()


DROPPING = StateSettings(
    sequence_events=4, neighbours_per_item=8, pair_window_events=2, dedup_window_events=7, window_s=2 * DAY_MS / 1000
)
duplicated = st.builds(lambda event, given: event._replace(id=given), events, st.sampled_from((None, "one", "two")))


@pytest.mark.medium
@settings(max_examples=40, deadline=None, phases=UNSHRUNK, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(duplicated, min_size=1, max_size=50), st.integers(1, 20))
def test_dropped_events_do_not_depend_on_the_batch_of_a_forget(tmp_path_factory, log, size):
    store, oracle = Store(tmp_path_factory.mktemp("store") / "s", LOG, DROPPING), Oracle(DROPPING)
    for start in range(0, len(log), size):
        apply(store, *log[start : start + size])
    for event in log:
        oracle.add(event)
    progress = store.progress
    assert (progress.applied, progress.duplicate, progress.too_old) == (
        oracle.applied,
        oracle.duplicate,
        oracle.too_old,
    )
    assert progress.newest_ts == oracle.newest
    for user in USERS:
        assert tuples(store.steps(hash_id(user), 100)) == hashed(oracle.of_user(user), "item")
    store.close()


def test_a_long_journal_is_swept_a_little_at_a_time(tmp_path: Path):
    store = Store(tmp_path / "s", LOG, SETTINGS)
    for _ in range(MAX_CHUNKS_PER_SWEEP + 5):
        apply(store, Event("ann-who-leaves", "milk", 1_600_000_000_000), Event("bob", "milk", 1_600_000_000_000))
    apply(store, Event("ann-who-leaves", "", LATEST_TIME, "forget"))
    store.record_tombstones(store.erasures.without_tombstone()[:1])
    store.erasures.sweep()
    assert ANN in store.journal(0, LATEST_TIME)["user"]
    finish(store)
    assert set(store.journal(0, LATEST_TIME)["user"].tolist()) == {hash_id("bob")}
    store.close()


def test_a_user_forgotten_again_during_the_sweep_is_swept_for_the_later_events_too(tmp_path: Path):
    store = Store(tmp_path / "s", LOG, SETTINGS)
    for _ in range(MAX_CHUNKS_PER_SWEEP + 5):
        apply(store, Event("ann-who-leaves", "milk", 1_600_000_000_000))
    apply(store, Event("ann-who-leaves", "", LATEST_TIME, "forget"))
    store.record_tombstones(store.erasures.without_tombstone())
    store.erasures.sweep()
    apply(store, Event("ann-who-leaves", "bread", 1_600_000_000_000 + 9 * DAY_MS))
    apply(store, Event("ann-who-leaves", "", LATEST_TIME, "forget"))
    finish(store)
    assert len(store.journal(0, LATEST_TIME)) == 0
    store.close()


def test_many_users_are_swept_at_once_and_a_reopened_store_knows_the_rest(tmp_path: Path):
    store = Store(tmp_path / "s", LOG, SETTINGS)
    many = [f"user-{n}" for n in range(50)]
    apply(store, *(Event(user, f"item-{n % 7}", 1_600_000_000_000 + n * DAY_MS) for n, user in enumerate(many)))
    apply(store, *(Event(user, "", LATEST_TIME, "forget") for user in many), Event("bob", "milk", LATEST_TIME))
    assert len(store.erasures.without_tombstone()) == 50
    store.record_tombstones(store.erasures.without_tombstone()[:20])
    store.close()
    store = Store(tmp_path / "s", LOG, SETTINGS)
    assert store.erasing
    assert {e.id for e in store.erasures.without_tombstone()} == set(many[20:])
    store.record_tombstones(store.erasures.without_tombstone())
    for _ in range(3):
        store.erasures.sweep()
    assert set(store.journal(0, LATEST_TIME)["user"].tolist()) == {hash_id("bob")}
    finish(store)
    assert not store.erasing
    assert store.erasures.users == []
    store.close()


def records(store: Store) -> list[tuple[bytes, bytes]]:
    """Every record but the progress."""
    return [(k, v) for family in store.database.families() for k, v in family.items() if k != PROGRESS_KEY]


def forget(*users: str) -> list[Event]:
    return [Event(user, "", LATEST_TIME, "forget") for user in users]


def test_a_forget_of_an_unknown_user_changes_nothing_and_compacts_nothing(tmp_path: Path):
    store = Store(tmp_path / "s", LOG, SETTINGS)
    apply(store, *clicks_of("bob", 5))
    before, progress = records(store), store.progress
    users = batch([*forget("ann", "cat"), *clicks_of("dan", 1), *forget("dan"), *forget("bob")], progress.next_offset)
    assert sorted(store.unknown_forgotten(users)) == ["ann", "cat", "dan"]
    unknown = batch(forget("ann", "cat"), progress.next_offset)
    applied = store.apply(unknown, progress.next_offset + 2, unknown=store.unknown_forgotten(unknown))
    assert applied.forgotten.tolist() == [hash_id("ann"), hash_id("cat")]
    assert not store.erasing
    store.erasures.sweep()
    assert not store.erasures.compacting
    assert records(store) == before
    assert store.progress == msgspec.structs.replace(progress, next_offset=progress.next_offset + 2)
    store.close()


def test_a_user_of_whom_only_a_hidden_item_or_an_answer_is_known_is_not_unknown(tmp_path: Path):
    store = Store(tmp_path / "s", LOG, SETTINGS)
    apply(store, Event("ann", "milk", LATEST_TIME, "hide"))
    assert store.unknown_forgotten(batch(forget("ann"), 1)) == []
    apply(store, *forget("ann"))
    assert store.unknown_forgotten(batch(forget("ann"), 2)) == ["ann"]
    store.close()


def test_users_erased_in_one_batch_and_one_by_one_leave_the_same_store(tmp_path: Path):
    stores = [Store(tmp_path / name, LOG, SETTINGS) for name in ("together", "one by one")]
    users = [f"user-{n}" for n in range(20)]
    for store in stores:
        for user in [*users, "bob"]:
            apply(store, *clicks_of(user, 20))
    together, alone = stores
    apply(together, *forget(*users))
    for user in users:
        apply(alone, *forget(user))
    assert together.progress == alone.progress
    for store in stores:
        finish(store)
    for column in ("sequences", "sequence_leaves", "edges", "ids", "days"):
        assert dict(together.database.columns[column].items()) == dict(alone.database.columns[column].items()), column
    items = np.array([hash_id(f"item-{n}") for n in range(7)], np.uint64)
    assert together.rows(items).degree.tolist() == alone.rows(items).degree.tolist()
    for store in stores:
        store.close()


def test_a_chunk_of_the_journal_is_read_once_for_all_users_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(tmp_path / "s", LOG, SETTINGS)
    users = [f"user-{n}" for n in range(100)]
    for _ in range(10):
        apply(store, *(Event(user, "milk", 1_600_000_000_000) for user in users))
    apply(store, *forget(*users))
    read: list[bytes] = []
    real = Journal.chunk
    monkeypatch.setattr(Journal, "chunk", lambda journal, key: (read.append(key), real(journal, key))[1])
    finish(store)
    assert len(read) == 10
    assert len(store.journal(0, LATEST_TIME)) == 0
    store.close()


def test_forgets_in_a_row_compact_once_and_every_byte_is_gone_after_the_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clock, compactions = [0.0], []
    monkeypatch.setattr("state.erasure.time.monotonic", lambda: clock[0])
    real = Erasures._compact
    monkeypatch.setattr(Erasures, "_compact", lambda erasures: (compactions.append(clock[0]), real(erasures))[1])
    store = Store(tmp_path / "s", LOG, SETTINGS)
    for n in range(10):
        clock[0] += 1.0
        apply(store, *clicks_of(f"ann-who-leaves-{n}", 5), *forget(f"ann-who-leaves-{n}"))
        store.record_tombstones(store.erasures.without_tombstone())
        for _ in range(3):
            store.erasures.sweep()
            while store.erasures.compacting and not store.erasures._compaction.done():
                time.sleep(0.001)
    assert len(compactions) == 1
    assert store.erasing
    clock[0] += COMPACT_EVERY_S
    finish(store)
    assert len(compactions) == 2
    assert b"ann-who-leaves" not in everything(store)
    store.close()
    for file in (tmp_path / "s").iterdir():
        assert b"ann-who-leaves" not in file.read_bytes(), file


def test_users_who_wait_for_their_tombstones_do_not_keep_others_in_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("state.erasure.COMPACT_EVERY_S", 0.0)
    store = Store(tmp_path / "s", LOG, SETTINGS)
    apply(store, *clicks_of("ann-who-leaves", 5), *clicks_of("bob-who-waits", 5))
    apply(store, *forget("ann-who-leaves", "bob-who-waits"))
    store.record_tombstones([e for e in store.erasures.without_tombstone() if e.user == ANN])
    while store.compacting or b"ann-who-leaves" in everything(store):
        store.erasures.sweep()
    assert [e.id for e in store.erasures.without_tombstone()] == ["bob-who-waits"]
    finish(store)
    store.close()


def test_the_tombstones_of_many_users_are_asked_for_in_turn(tmp_path: Path):
    store = Store(tmp_path / "s", LOG, SETTINGS)
    apply(store, *(Event(user, "milk", LATEST_TIME) for user in "abcde"), *forget(*"abcde"))
    apply(store, *(Event(user, "milk", LATEST_TIME) for user in "ab"))  # they are back: an answer follows
    found = {erasure.id for _ in range(3) for erasure in store.tombstones(2)}
    assert found == set("cde")
    store.close()


def test_the_erasing_list_of_an_earlier_version_is_finished(tmp_path: Path):
    store = Store(tmp_path / "s", LOG, SETTINGS)
    apply(store, *clicks_of("ann-who-leaves", 5))
    days = sorted({e.ts // DAY_MS for e in clicks_of("ann-who-leaves", 5)})
    store.database.put(b"erasing", msgspec.json.encode([Erasure(ANN, "ann-who-leaves", 4, days)]))
    store.close()
    store = Store(tmp_path / "s", LOG, SETTINGS)
    assert store.erasing
    finish(store)
    assert not store.erasing
    assert len(store.journal(0, LATEST_TIME)) == 0
    store.close()
