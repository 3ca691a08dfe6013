"""One partition's store, against plain dicts folded from the same log."""

from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.events import EventBatch, hash_id, make_batch
from state.identity import Identity
from state.settings import StateSettings
from state.store import Store

SETTINGS = StateSettings(sequence_events=5, neighbours_per_item=4, pair_window_events=2, popular_items=3)
LOG = Identity("cluster", "clicks", 0, 1, 5, 4)

Click = tuple[str, str, int]


def batch(clicks: list[Click], first_offset: int = 0, ids: dict[int, bytes] | None = None) -> EventBatch:
    users, items = [u.encode() for u, _, _ in clicks], [i.encode() for _, i, _ in clicks]
    offset = first_offset + np.arange(len(clicks))
    return make_batch(users, items, ts=[ts for _, _, ts in clicks], offset=offset, ids=ids)


def apply(store: Store, clicks: list[Click]) -> None:
    start = store.progress.next_offset
    store.apply(batch(clicks, start), start + len(clicks))


def hashes(*names: str) -> np.ndarray:
    return np.array([hash_id(n) for n in names], np.uint64)


@pytest.fixture
def store(tmp_path: Path):
    opened = Store(tmp_path / "clicks-0", LOG, SETTINGS)
    yield opened
    opened.close()


def test_a_sequence_holds_the_newest_events_oldest_first(store):
    apply(store, [("ann", f"item{n}", 1000 + n) for n in range(7)])
    items = store.sequences(hashes("ann")).of(0)["item"]
    assert items.tolist() == hashes(*(f"item{n}" for n in range(2, 7))).tolist()


def test_a_late_event_is_inserted_by_its_time(store):
    apply(store, [("ann", "first", 1000), ("ann", "third", 3000)])
    apply(store, [("ann", "second", 2000)])
    assert store.sequences(hashes("ann")).of(0)["item"].tolist() == hashes("first", "second", "third").tolist()


def test_the_first_co_occurrence_makes_two_items_neighbours(store):
    apply(store, [("ann", "bread", 1000), ("ann", "butter", 2000)])
    rows = store.rows(hashes("bread", "butter"))
    assert rows.nodes[0, 0] == hash_id("butter")
    assert rows.after[0, 0] == pytest.approx(1.0, rel=1e-4)
    assert rows.before[1, 0] == pytest.approx(1.0, rel=1e-4)


def test_pairs_are_found_across_batches(store):
    apply(store, [("ann", "bread", 1000)])
    apply(store, [("ann", "butter", 2000)])
    assert store.rows(hashes("bread")).after[0, 0] == pytest.approx(1.0, rel=1e-4)


def test_the_users_of_an_item_are_its_edges(store):
    apply(store, [("ann", "bread", 1000), ("bob", "milk", 1500)])
    apply(store, [("bob", "bread", 2000)])
    assert store.edges(hash_id("bread"), 10)["user"].tolist() == hashes("ann", "bob").tolist()
    assert store.edges(hash_id("bread"), 1)["user"].tolist() == hashes("bob").tolist()


def test_the_most_popular_items_come_first(store):
    apply(store, [("ann", "milk", 1000), ("bob", "milk", 1000), ("cid", "bread", 1000)])
    assert store.popular()["item"].tolist() == hashes("milk", "bread").tolist()


def test_an_id_seen_before_is_a_duplicate_also_after_reopening(tmp_path):
    with_id = [("ann", "milk", 1000)]
    store = Store(tmp_path / "s", LOG, SETTINGS)
    store.apply(batch(with_id, 0, {0: b"order-1"}), 1)
    store.close()
    store = Store(tmp_path / "s", LOG, SETTINGS)
    outcome = store.apply(batch(with_id, 1, {0: b"order-1"}), 2)
    assert outcome.duplicate == 1
    assert len(store.sequences(hashes("ann")).of(0)) == 1
    assert store.progress.next_offset == 2
    store.close()


def test_touched_users_stay_pending_until_answered_also_after_reopening(tmp_path):
    store = Store(tmp_path / "s", LOG, SETTINGS)
    apply(store, [("bob", "bread", 1000), ("ann", "milk", 1000)])
    assert list(store.pending.claim(1)) == [hash_id("ann")]
    store.record_answers([(hash_id("ann"), b"for ann")])
    store.close()
    store = Store(tmp_path / "s", LOG, SETTINGS)
    pending = store.pending.claim(10)
    assert hash_id("bob") in pending
    assert store.recommended(hash_id("ann")) == b"for ann"
    store.record_answers([(user, b"") for user in pending])
    store.close()
    store = Store(tmp_path / "s", LOG, SETTINGS)
    assert store.pending.claim(10) == {}
    assert not store.pending.waiting
    store.close()


def test_a_batch_without_pending_users_is_recorded_as_answered(tmp_path):
    path = tmp_path / "s"
    store = Store(path, LOG, SETTINGS)
    store.apply(batch([("ann", "milk", 1000), ("bob", "milk", 1000)], 0, {0: b"order-1"}), 2)
    store.close()
    store = Store(path, LOG, SETTINGS)
    apply(store, [("ann", "bread", 2000), ("bob", "bread", 2000)])
    store.record_answers([(user, b"") for user in store.pending.claim(10)])
    store.record_all_answered()
    assert store.answered() == 0, "users touched before the store was opened are not read back yet"
    assert store.pending.claim(10) == {}
    store.record_all_answered()
    assert store.answered() == 4
    store.apply(batch([("ann", "milk", 1000)], 4, {0: b"order-1"}), 5)  # a duplicate
    store.record_all_answered()
    assert store.answered() == 5
    apply(store, [("ann", "milk", 3000)])
    for _ in ("waiting", "claimed"):
        store.record_all_answered()
        assert store.answered() == 5
        store.pending.claim(1)
    store.close()


def test_an_answer_being_sent_does_not_complete_a_newer_event(store):
    apply(store, [("ann", "milk", 1000)])
    assert store.pending.claim(1)[hash_id("ann")].offset == 0
    apply(store, [("ann", "bread", 2000)])
    assert store.pending.claim(1) == {}, "one answer a user at a time"
    assert store.pending.watermark(2) == 0
    store.record_answers([(hash_id("ann"), b"")])
    assert store.pending.claim(1)[hash_id("ann")].offset == 1
    assert store.answered() == 1


clicks = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("vwxyz"), st.integers(1, 6)), min_size=1, max_size=30
)


@settings(max_examples=60, deadline=None)
@given(clicks, st.lists(st.integers(1, 30), max_size=4))
def test_the_state_equals_the_oracle_for_every_cut_of_the_log_into_batches(tmp_path_factory, log, cuts):
    store = Store(tmp_path_factory.mktemp("store") / "s", LOG, SETTINGS)
    bounds = sorted({0, len(log), *(c for c in cuts if c < len(log))})
    for start, end in pairwise(bounds):
        apply(store, log[start:end])

    sequences: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for user, item, ts in log:
        steps = sequences[user]
        steps.append((ts, item))
        steps.sort(key=lambda step: step[0])  # stable: equal times keep the order of arrival
        # The oracle keeps whole sequences: below, only short ones are compared in full.
    for user, steps in sequences.items():
        kept = store.sequences(hashes(user)).of(0)
        assert len(kept) == min(5, len(steps))
        assert (np.diff(kept["ts"]) >= 0).all()
        if len(steps) <= 5:
            assert kept["item"].tolist() == hashes(*(i for _, i in steps)).tolist()
    counts = Counter(item for _, item in {(user, item) for user, item, _ in log})  # a user counts once a day
    names = sorted(counts)
    assert store.rows(hashes(*names)).degree.tolist() == [counts[n] for n in names]
    assert store.progress.applied == len(log)
    assert store.progress.users == len(sequences)
    assert store.progress.items == len(counts)
    journal = store.journal(0, len(log))
    assert journal["item"].tolist() == hashes(*(i for _, i, _ in log)).tolist()
    assert store.journal(1, len(log) - 1)["offset"].tolist() == list(range(1, len(log) - 1))
    store.close()


def test_events_deleted_by_retention_are_skipped_and_counted(store):
    apply(store, [("ann", "milk", 1)])
    store.skip_to(10)
    assert (store.read_progress().next_offset, store.read_progress().lost, store.read_progress().applied) == (10, 9, 1)


def test_released_users_wait_again_behind_newer_events(store):
    apply(store, [("ann", "milk", 1), ("ben", "milk", 2)])
    claimed = store.pending.claim(2)
    assert store.pending.waiting == 0
    apply(store, [("ann", "bread", 3), ("cat", "bread", 4)])
    store.pending.release(claimed)
    again = store.pending.claim(3)
    assert list(again) == [hash_id("cat"), hash_id("ann"), hash_id("ben")]
    assert (again[hash_id("ann")].first_offset, again[hash_id("ann")].offset) == (0, 2)
