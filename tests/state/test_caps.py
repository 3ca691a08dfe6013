"""What one user's events count for others is capped by day: popularity and the item-item graph against an oracle."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state import timeline
from state.caps import CapsByDay
from state.events import hash_id, make_events
from state.graph import MemoryGraph
from state.identity import Identity
from state.journal import DAY_MS
from state.kinds import code_of
from state.settings import Kind, StateSettings
from state.store import Store
from tests.state.oracle import Event, Oracle, apply, assert_rows_are_right
from tests.state.test_as_of_t import UNSHRUNK
from tests.state.test_graph import assert_same_rows

KINDS = StateSettings().kinds | {"seen": Kind("positive", 0.0)}
USERS, ITEMS = ("ann", "bob", "cid"), ("milk", "bread", "salt", "rye")
LOG = Identity("cluster", "clicks", 0, 1, 4, 8)
QUARTER_MS = DAY_MS // 4


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "LEAF_STEPS", 3)
    monkeypatch.setattr("state.partition.HEAD_EDGES", 2)
    monkeypatch.setattr("state.store.MIN_EXPIRED_EVENTS", 3)


def capped(user_item: int, user: int, days: int = 0) -> StateSettings:
    return StateSettings(
        sequence_events=4,
        neighbours_per_item=8,
        pair_window_events=2,
        kinds=KINDS,
        user_item_cap=user_item,
        user_cap=user,
        window_s=days * DAY_MS / 1000,
    )


kinds = st.sampled_from(("click", "click", "click", "view", "seen", "hide", "undo", "undo", "forget"))
events = st.builds(
    Event,
    st.sampled_from(USERS),
    st.sampled_from(ITEMS),
    st.integers(4, 18).map(lambda t: t * QUARTER_MS),
    kinds,
    st.none(),
)


@settings(max_examples=80, deadline=None, phases=UNSHRUNK, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(events, min_size=1, max_size=50),
    st.booleans(),
    st.integers(1, 9),
    st.sampled_from(((1, 0), (2, 3), (0, 2), (1, 5), (0, 0))),
    st.sampled_from((0, 2)),
    st.lists(st.integers(4, 18).map(lambda t: t * QUARTER_MS), max_size=2),
)
def test_rows_and_past_times_show_what_counts_for_others(tmp_path_factory, log, in_order, size, caps, days, asked):
    config = capped(*caps, days)
    log = sorted(log, key=lambda e: e.ts) if in_order else log
    store, oracle = Store(tmp_path_factory.mktemp("store") / "s", LOG, config), Oracle(config)
    for start in range(0, len(log), size):
        apply(store, *log[start : start + size])
    for event in log:
        oracle.add(event)
    for _ in range(len(log) if days else 0):
        apply(store)
    assert_rows_are_right(store, oracle, ITEMS, oracle.horizon // DAY_MS * DAY_MS)
    for t in (*asked, 20 * QUARTER_MS):
        past = oracle.before(t)
        for item in ITEMS:
            popularity = past.popularity(item, t, oracle.horizon)
            assert store.popularity(hash_id(item), t) == pytest.approx(popularity, abs=1e-3)
            followers = {hash_id(other): n for other, n in past.followers(item, t, oracle.horizon).items()}
            assert store.transitions(hash_id(item), t, 100) == pytest.approx(followers, abs=1e-3)
    store.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(events, min_size=1, max_size=60), st.integers(1, 60), st.sampled_from(((1, 0), (2, 3), (0, 2), (0, 0))))
def test_a_graph_in_memory_counts_like_a_store(tmp_path_factory, log, cut, caps):
    config = capped(*caps)
    log = [e for e in sorted(log, key=lambda e: e.ts) if e.kind not in ("undo", "forget")]
    store, graph = Store(tmp_path_factory.mktemp("store") / "s", LOG, config), MemoryGraph(config)
    gained = apply(store, *log).gained if log else store.positives(np.zeros(0, np.uint64)).steps
    stream = make_events(
        [hash_id(e.user) for e in log],
        [hash_id(e.item) for e in log],
        ts=[e.ts for e in log],
        kind=[code_of(e.kind) for e in log],
    )
    shared = [*graph.apply(stream[:cut]), *graph.copy().apply(stream[cut:])]
    assert sorted((int(e["item"]), int(e["ts"])) for e in shared) == sorted(gained[["item", "ts"]].tolist())
    forked = graph.fork()
    forked.apply(stream[cut:])
    items = np.array([hash_id(item) for item in ITEMS], np.uint64)
    assert_same_rows(forked.rows(items), store.rows(items))
    store.close()


def test_a_bot_counts_once_a_day_for_each_item(tmp_path):
    store = Store(tmp_path / "s", LOG, capped(1, 1_000))
    apply(store, *[Event("bot", "milk", DAY_MS + n) for n in range(500)])
    apply(store, *[Event("bot", "milk", DAY_MS + 500 + n) for n in range(500)])
    apply(store, Event("ann", "bread", DAY_MS), Event("bob", "bread", DAY_MS + 1))
    assert store.popular()["item"].tolist() == [hash_id("bread"), hash_id("milk")]
    assert store.rows(np.array([hash_id("milk")], np.uint64)).degree[0] == 1
    assert len(store.sequences(np.array([hash_id("bot")], np.uint64)).steps) == 4  # its own sequence stays whole
    store.close()


def test_a_bot_that_spreads_over_items_counts_as_one_busy_user(tmp_path):
    store = Store(tmp_path / "s", LOG, capped(1, 20))
    for batch in range(10):
        apply(store, *[Event("bot", f"item-{n}", DAY_MS + n) for n in range(batch * 50, batch * 50 + 50)])
    clicked = store.rows(np.array([hash_id(f"item-{n}") for n in range(500)], np.uint64)).degree
    assert clicked.sum() == clicked[:20].sum() == 20
    store.close()


def test_a_purchase_counts_beside_a_view_of_the_same_day(tmp_path):
    store = Store(tmp_path / "s", LOG, capped(1, 0))
    apply(store, *[Event("ann", "milk", DAY_MS, kind) for kind in ("view", "view", "purchase", "purchase")])
    assert store.popularity(hash_id("milk"), DAY_MS + 1) == pytest.approx(1.5)
    store.close()


def test_a_new_cap_holds_from_the_next_day_on_and_older_days_leave_as_they_came(tmp_path):
    milk = np.array([hash_id("milk")], np.uint64)
    store = Store(tmp_path / "s", LOG, capped(0, 0))
    apply(store, *[Event("ann", "milk", DAY_MS + n) for n in range(5)])
    store.close()
    store = Store(tmp_path / "s", LOG, capped(1, 0))
    apply(store, *[Event("ann", "milk", DAY_MS + 9 + n) for n in range(5)])
    assert store.rows(milk).degree[0] == 10  # the day began without a cap
    apply(store, *[Event("ann", "milk", 2 * DAY_MS + n) for n in range(5)])
    assert store.rows(milk).degree[0] == 11
    assert store.popularity(hash_id("milk"), 3 * DAY_MS) == pytest.approx(10 * 2 ** (-2 / 7) + 2 ** (-1 / 7), rel=1e-3)
    apply(store, Event("ann", "", 2 * DAY_MS, "forget"), Event("bob", "milk", 2 * DAY_MS))
    assert store.rows(milk).degree[0] == 1
    assert store.rows(milk).popularity[0] == pytest.approx(1.0)
    store.close()


def test_a_store_without_caps_of_its_own_has_none_for_its_days(tmp_path):
    store = Store(tmp_path / "s", LOG, capped(0, 0))
    apply(store, *[Event("ann", "milk", DAY_MS + n) for n in range(5)])
    store.database.default.delete(b"caps")  # as an earlier version left it
    store.close()
    store = Store(tmp_path / "s", LOG, capped(1, 9))
    assert [caps.since_ts for caps in store.caps.caps] == [0, 2 * DAY_MS]
    apply(store, Event("ann", "", DAY_MS, "forget"), Event("bob", "milk", DAY_MS))
    assert store.rows(np.array([hash_id("milk")], np.uint64)).degree[0] == 1
    store.close()


def test_caps_of_settings_that_change_twice_on_one_day_begin_once():
    caps = CapsByDay.of(capped(0, 0)).followed_by(capped(3, 0), DAY_MS).followed_by(capped(1, 7), DAY_MS + 5)
    assert [(c.user_item, c.user, c.since_ts) for c in caps.caps] == [(0, 0, 0), (1, 7, 2 * DAY_MS)]
    assert caps.followed_by(capped(1, 7), 9 * DAY_MS) == caps
