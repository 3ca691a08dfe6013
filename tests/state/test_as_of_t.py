"""The graph as of any time against an oracle of plain lists: late, out-of-order, equal-time and duplicate events."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from state import timeline
from state.events import hash_id
from state.identity import Identity
from state.journal import DAY_MS
from state.settings import Kind, StateSettings
from state.store import Store
from tests.state.oracle import Event, Oracle, apply, assert_rows_are_right, hashed

KINDS = StateSettings().kinds | {"wishlist": Kind("positive", 0.5), "seen": Kind("positive", 0.0)}
SETTINGS = StateSettings(
    sequence_events=4, neighbours_per_item=8, pair_window_events=2, dedup_window_events=5, kinds=KINDS, window_s=0
)
LOG = Identity("cluster", "clicks", 0, 1, 4, 8)
USERS, ITEMS = ("ann", "bob"), ("milk", "bread", "salt")
LATEST_TIME = 10**15
"""A time after every event."""
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)
"""A store is opened for every example: shrinking one would take minutes."""

kinds = st.sampled_from(("click", "click", "click", "view", "wishlist", "seen", "hide", "undo"))
events = st.builds(
    Event,
    st.sampled_from(USERS),
    st.sampled_from(ITEMS),
    st.integers(1, 12).map(lambda t: t * DAY_MS // 4),
    kinds,
    st.sampled_from((None, None, None, "one", "two")),
)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "LEAF_STEPS", 3)
    monkeypatch.setattr("state.partition.HEAD_EDGES", 2)


def tuples(records: np.ndarray) -> list[tuple[int, int, int]]:
    return [tuple(r) for r in records.tolist()]


COMES_BACK = [
    Event("cid", "salt", 432_000_000), Event("ann", "bread", 604_800_000), Event("bob", "salt", 1_274_400_000),
    Event("ann", "milk", 1_144_800_000, "view"), Event("ann", "milk", 367_200_000),
    Event("ann", "rye", 388_800_000, "hide"), Event("ann", "salt", 108_000_000),
]  # fmt: skip
"""Salt is clicked again while an expired step of another user waits to be removed."""


@pytest.mark.medium
@settings(max_examples=60, deadline=None, phases=UNSHRUNK, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(events, min_size=1, max_size=60), st.lists(st.integers(1, 60), max_size=8), st.data())
def test_queries_as_of_a_time_agree_with_the_oracle(tmp_path_factory, log, cuts, data):
    store, oracle = Store(tmp_path_factory.mktemp("store") / "s", LOG, SETTINGS), Oracle(SETTINGS)
    bounds = sorted({0, len(log), *(c for c in cuts if c < len(log))})
    for start, end in pairwise(bounds):
        apply(store, *log[start:end])
    for event in log:
        oracle.add(event)
    assert (store.progress.applied, store.progress.duplicate) == (oracle.applied, oracle.duplicate)

    times = [*data.draw(st.lists(st.integers(0, 13).map(lambda t: t * DAY_MS // 4), max_size=3)), LATEST_TIME]
    for t in times:
        k = data.draw(st.integers(1, 20))
        since = data.draw(st.integers(0, 13)) * DAY_MS // 4
        for user in USERS:
            mine = oracle.of_user(user)
            before = [e for e in mine if e.ts < t]
            node = hash_id(user)
            assert tuples(store.steps(node, k, t)) == hashed(before, "item")[-k:]
            assert store.users.count(node, since, t) == sum(since <= e.ts < t for e in mine)
            assert tuples(store.users.between(node, since, t)) == hashed([e for e in mine if since <= e.ts < t], "item")
            assert (
                tuples(store.users.after(node, since, k, t))
                == hashed([e for e in mine if since < e.ts < t], "item")[:k]
            )
        for item in ITEMS:
            its = [e for e in oracle.of_item(item) if e.ts < t]
            assert tuples(store.edges(hash_id(item), k, t)) == hashed(its, "user")[-k:]
            assert store.items.count(hash_id(item), 0, t) == len(its)
        inside = [e for e in oracle.graph() if since < e.ts <= t]
        found = store.window(since, t)[["user", "item", "ts", "kind"]]
        rows_of = [(hash_id(e.user), *row) for e, row in zip(inside, hashed(inside, "item"), strict=True)]
        assert tuples(found) == rows_of

    users = np.array([hash_id(u) for u in USERS], np.uint64)
    newest, hidden = store.sequences(users), store.hidden(users)
    positives = store.positives(users)
    for row, user in enumerate(USERS):
        assert tuples(newest.of(row)) == hashed(oracle.of_user(user), "item")[-4:]
        assert set(hidden[row].tolist()) == {hash_id(i) for i in oracle.hidden(user)}
        if len(oracle.of_user(user)) <= 4:
            assert tuples(positives.of(row)) == hashed(oracle.positives(user), "item")
    assert_rows_are_right(store, oracle, ITEMS)
    assert store.journal(0, LATEST_TIME)["item"].tolist() == [hash_id(e.item) for e in oracle.events]
    store.close()


EXPIRING = StateSettings(
    sequence_events=4, neighbours_per_item=8, pair_window_events=2, kinds=KINDS, window_s=5 * DAY_MS / 1000
)
timed_events = st.builds(
    Event,
    st.sampled_from((*USERS, "cid")),
    st.sampled_from((*ITEMS, "rye")),
    st.integers(1, 60).map(lambda t: t * DAY_MS // 4),
    st.sampled_from(("click", "click", "click", "view", "hide", "undo")),
    st.none(),
)


@pytest.mark.medium
@settings(max_examples=60, deadline=None, phases=UNSHRUNK, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(log=COMES_BACK, size=6, in_order=True)
@given(st.lists(timed_events, min_size=1, max_size=60), st.integers(1, 9), st.booleans())
def test_events_behind_the_horizon_are_removed_entirely(tmp_path_factory, monkeypatch, log, size, in_order):
    monkeypatch.setattr("state.store.MIN_EXPIRED_EVENTS", 3)
    log = sorted(log, key=lambda e: e.ts) if in_order else log
    store, oracle = Store(tmp_path_factory.mktemp("store") / "s", LOG, EXPIRING), Oracle(EXPIRING)
    for start in range(0, len(log), size):
        apply(store, *log[start : start + size])
    for event in log:
        oracle.add(event)
    # No query returns events from behind the horizon, even where expiry has not reached them yet.
    for user in (*USERS, "cid"):
        assert tuples(store.steps(hash_id(user), 100)) == hashed(oracle.of_user(user), "item")
        assert set(store.hidden(np.array([hash_id(user)], np.uint64))[0].tolist()) == {
            hash_id(i) for i in oracle.hidden(user)
        }
    for item in (*ITEMS, "rye"):
        assert tuples(store.edges(hash_id(item), 100)) == hashed(oracle.of_item(item), "user")
    assert len(store.window(0, LATEST_TIME)) == sum(e.ts > 0 for e in oracle.graph())
    assert store.progress.too_old == oracle.too_old

    # Whole days behind it are removed from disk, and with them users and items without any event left.
    for _ in range(len(log)):
        apply(store)
    day = oracle.horizon // DAY_MS * DAY_MS
    assert (store.journal(0, LATEST_TIME)["ts"] >= day).all()
    on_disk = [e for e in oracle.events if e.ts >= day]
    names = {e.user for e in on_disk}
    assert {u for u in (*USERS, "cid") if store.user_ids(np.array([hash_id(u)], np.uint64))[0]} == names
    assert store.progress.users == len(names)
    there = {e.item for e in on_disk}
    assert set(store.all_items().tolist()) == {hash_id(i) for i in there}
    assert store.progress.items == len(there)
    assert store.progress.edges == len(on_disk)
    assert_rows_are_right(store, oracle, sorted(there), day)
    rows = store.rows(store.all_items())
    assert set(rows.nodes.ravel().tolist()) <= {0, *store.all_items().tolist()}
    store.close()
