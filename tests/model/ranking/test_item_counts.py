"""Counts of clicks are the same whether they are counted one by one or read from the graph."""

import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ranking.item_counts import ItemCounts
from state.events import make_events
from state.graph import MemoryGraph
from state.settings import StateSettings

STATE = StateSettings(popularity_half_life_s=3600.0, user_item_cap=0)
HALF_LIVES_S = STATE.half_lives_s
ITEMS = np.array([10, 20, 30], np.uint64)
clicks = st.lists(st.tuples(st.sampled_from([10, 20, 30]), st.integers(0, 40_000_000)), min_size=1, max_size=60)


@given(clicks, st.integers(0, 60))
def test_clicks_count_the_same_one_by_one_and_read_from_the_graph(made, read):
    items, ts = np.array(made).T
    events = make_events(np.zeros(len(made)), items, ts=ts + 1_600_000_000_000)
    graph = MemoryGraph(STATE)
    graph.apply(events[:read])
    some = ItemCounts(HALF_LIVES_S)
    some.extend(ITEMS, graph.rows)
    some.update(np.searchsorted(ITEMS, events["item"][read:]) + 1, events["ts"][read:], np.ones(len(events[read:])))

    graph.apply(events[read:])
    whole = ItemCounts(HALF_LIVES_S)
    whole.extend(ITEMS, graph.rows)
    assert some.damping == pytest.approx(whole.damping)
    # Items that were not clicked are refreshed only every hundredth of a half-life.
    assert some.signal.numpy() == pytest.approx(whole.signal.numpy(), abs=0.02)
    columns, moments = np.arange(1, 4), np.full(3, events["ts"].max() + 1)
    one, other = some.at(columns, moments), whole.at(columns, moments)
    for name in ("clicks", "age_ms", "since_ms"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist(), name
    np.testing.assert_allclose(one.recent, other.recent, rtol=1e-3, atol=1e-6)
    for half_life in range(len(HALF_LIVES_S)):
        assert {*some.top(half_life, 3).tolist()} == {*whole.top(half_life, 3).tolist()}


def test_a_click_two_half_lives_ago_counts_a_quarter():
    popularity = ItemCounts(HALF_LIVES_S)
    popularity.extend(ITEMS, MemoryGraph(STATE).rows)
    popularity.update(np.array([1] * 4), np.array([1_600_000_000_000] * 4), np.ones(4))
    popularity.update(np.array([2]), np.array([1_600_000_000_000 + 2 * 3_600_000]), np.ones(1))
    assert popularity.signal[1].item() == pytest.approx(popularity.signal[2].item(), abs=1e-5)
    assert popularity.damping.tolist() == pytest.approx([0.0, 0.5, 1.0, 1.0])


def test_removed_clicks_leave_no_trace_in_the_counts():
    one, other = ItemCounts(HALF_LIVES_S), ItemCounts(HALF_LIVES_S)
    for popularity in (one, other):
        popularity.extend(ITEMS, MemoryGraph(STATE).rows)
        popularity.update(np.array([1, 2]), np.array([1_600_000_000_000] * 2), np.ones(2))
    one.update(np.array([1, 3]), np.array([1_600_000_001_000] * 2), np.array([0.5, 1.0]))
    one.remove(np.array([1, 3]), np.array([1_600_000_001_000] * 2), np.array([0.5, 1.0]))
    assert one.signal.numpy() == pytest.approx(other.signal.numpy(), abs=1e-4)
    assert one.damping.tolist() == other.damping.tolist()
    assert np.flatnonzero(~one.has_clicks(np.arange(len(one)))).tolist() == [0, 3]


def test_no_column_is_lost_while_another_thread_counts_clicks(monkeypatch):
    monkeypatch.setattr("model.ranking.item_counts.REFRESH_ALL_HALF_LIVES", 0.0)  # every click refreshes all columns
    popularity, graph, stop = ItemCounts(HALF_LIVES_S), MemoryGraph(STATE), threading.Event()

    def click() -> None:
        ts = 1_600_000_000_000
        while not stop.is_set():
            ts += 1000
            popularity.update(np.array([1, 2]), np.array([ts, ts]), np.ones(2))

    popularity.extend(ITEMS, graph.rows)
    before, clicking = sys.getswitchinterval(), threading.Thread(target=click)
    sys.setswitchinterval(1e-6)
    clicking.start()
    try:
        lengths = []
        for number in range(300):
            popularity.extend(np.array([100 + number], np.uint64), graph.rows)
            time.sleep(1e-4)
            lengths.append(len(popularity))
    finally:
        stop.set()
        clicking.join()
        sys.setswitchinterval(before)
    assert lengths == [5 + number for number in range(300)]
