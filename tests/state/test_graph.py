"""The item-item graph: decay, full rows, and the same rows from memory and from several partitions."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.events import make_events
from state.graph import MemoryGraph, Rows, combine
from state.kinds import code_of
from state.settings import StateSettings

HOUR_MS = 3_600_000
SETTINGS = StateSettings(
    neighbours_per_item=4, pair_window_events=2, pair_half_life_s=3600, popularity_half_life_s=3600
)


def graph(*clicks: tuple[int, int, int]) -> MemoryGraph:
    made = MemoryGraph(SETTINGS)
    made.apply(events_of(clicks))
    return made


def events_of(clicks: Iterable[tuple[int, int, int]]) -> np.ndarray:
    users, items, ts = zip(*clicks, strict=True)
    return make_events(users, items, ts=ts)


def items(*hashes: int) -> np.ndarray:
    return np.array(hashes, np.uint64)


def test_a_count_halves_with_every_half_life_of_event_time():
    made = graph((1, 10, HOUR_MS), (1, 11, HOUR_MS), (2, 10, 2 * HOUR_MS))
    rows = made.rows(items(10))
    assert rows.after[0, 0] == pytest.approx(0.5)
    assert rows.popularity[0] == pytest.approx(1.5)
    assert rows.degree[0] == 2


def test_a_click_is_counted_at_five_half_lives():
    made = graph((1, 10, HOUR_MS), (2, 10, 7 * HOUR_MS))
    days = [6 / 24, 6 / (30 * 24)]
    right = [1 + 2**-6, 1 + 2**-6, 1.5, *(1 + 2**-age for age in days)]
    assert made.rows(items(10)).recent[0].tolist() == pytest.approx(right)


def test_the_very_next_item_is_counted_apart_from_later_ones():
    rows = graph((1, 10, HOUR_MS), (1, 11, HOUR_MS), (1, 12, HOUR_MS), (2, 10, 2 * HOUR_MS), (2, 12, 2 * HOUR_MS))
    found = rows.rows(items(10))
    following = dict(zip(found.nodes[0].tolist(), found.next[0].tolist(), strict=True))
    assert following == pytest.approx({11: 0.5, 12: 1.0, 0: 0.0})
    assert not rows.rows(items(12)).next.any(), "nothing came after it"


def test_the_first_and_the_last_event_of_an_item_may_be_of_any_kind_and_arrive_late():
    made = MemoryGraph(SETTINGS)
    for kind, hour in (("click", 5), ("hide", 3), ("click", 9), ("click", 7)):
        made.apply(make_events([1], [10], ts=hour * HOUR_MS, kind=code_of(kind)))
    rows = made.rows(items(10))
    assert (rows.first_ts[0], rows.last_ts[0]) == (3 * HOUR_MS, 9 * HOUR_MS)
    assert rows.degree[0] == 1, "the second click is beyond the cap of the day"
    made.apply(make_events([1], [11], ts=HOUR_MS, kind=code_of("hide")))
    assert made.popular(9).tolist() == [10], "an item that nobody has clicked is not popular"


def test_a_neighbour_two_steps_away_counts_half():
    rows = graph((1, 10, HOUR_MS), (1, 11, HOUR_MS), (1, 12, HOUR_MS)).rows(items(10))
    assert dict(zip(rows.nodes[0].tolist(), rows.after[0].tolist(), strict=True)) == {
        11: 1.0,
        12: 0.5,
        0: 0.0,
    }


def test_an_unknown_item_has_an_empty_row():
    rows = graph((1, 10, HOUR_MS)).rows(items(99))
    assert rows.degree[0] == 0
    assert not rows.nodes.any()


def test_a_full_row_keeps_its_strong_neighbours_and_still_takes_a_new_one():
    clicks = [(user, item, HOUR_MS) for user in range(5) for item in (10, 11)]
    clicks += [(100 + n, item, HOUR_MS) for n in range(20, 40) for item in (10, n)]
    made = graph(*clicks)
    before = made.rows(items(10)).nodes[0].tolist()
    assert 11 in before
    made.apply(make_events([999, 999], [10, 77], ts=HOUR_MS))
    after = made.rows(items(10)).nodes[0].tolist()
    assert 77 in after
    assert 11 in after


def assert_same_rows(one: Rows, other: Rows) -> None:
    """Check that rows hold the same counts; only the order of their slots may differ."""
    for name in ("degree", "first_ts", "last_ts", "ts"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist(), name
    np.testing.assert_allclose(one.recent, other.recent, rtol=1e-4)
    for name in ("after", "before", "next"):
        for mine, theirs in zip(neighbours(one, name), neighbours(other, name), strict=True):
            assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-6), name


def neighbours(rows: Rows, name: str) -> list[dict[int, float]]:
    """Each row's neighbours with a count."""
    columns = zip(rows.nodes.tolist(), getattr(rows, name).tolist(), strict=True)
    return [{node: count for node, count in zip(*row, strict=True) if node} for row in columns]


click = st.tuples(st.integers(1, 4), st.integers(10, 14), st.integers(1, 5).map(lambda h: h * HOUR_MS))


@settings(max_examples=60, deadline=None)
@given(st.lists(click, min_size=1, max_size=40), st.integers(1, 40))
def test_two_batches_in_time_order_make_the_same_graph_as_one(clicks, cut):
    clicks = sorted(clicks, key=lambda c: c[2])
    whole = StateSettings(
        neighbours_per_item=16, pair_window_events=2, pair_half_life_s=3600, popularity_half_life_s=3600
    )
    events = events_of(clicks)
    one, two = MemoryGraph(whole), MemoryGraph(whole)
    one.apply(events)
    two.apply(events[:cut])
    if len(events[cut:]):
        two.apply(events[cut:])
    known = np.unique(events["item"])
    assert_same_rows(one.rows(known), two.rows(known))


@settings(max_examples=40, deadline=None)
@given(st.lists(click, min_size=2, max_size=40))
def test_combined_partitions_equal_one_partition(clicks):
    whole = StateSettings(
        neighbours_per_item=16, pair_window_events=2, pair_half_life_s=3600, popularity_half_life_s=3600
    )
    events = events_of(clicks)
    whole_graph, parts = MemoryGraph(whole), [MemoryGraph(whole), MemoryGraph(whole)]
    whole_graph.apply(events)
    for number, part in enumerate(parts):
        own = events[events["user"] % 2 == number]
        if len(own):
            part.apply(own)
    known = np.unique(events["item"])
    assert_same_rows(whole_graph.rows(known), combine([p.rows(known) for p in parts], whole))


@settings(max_examples=40, deadline=None)
@given(st.lists(click, min_size=1, max_size=40), st.integers(0, 40))
def test_a_fork_equals_the_continued_graph_and_leaves_the_graph_unchanged(clicks, cut):
    events = events_of(sorted(clicks, key=lambda c: c[2]))
    known = np.unique(events["item"])
    graph = MemoryGraph(SETTINGS)
    graph.apply(events[:cut])
    before = [column.tolist() for column in graph.rows(known)]
    copied, forked = graph.copy(), graph.fork()
    for other in (copied, forked):
        other.apply(events[cut:])
    assert [c.tolist() for c in forked.rows(known)] == [c.tolist() for c in copied.rows(known)]
    assert set(forked.popular(9).tolist()) == set(copied.popular(9).tolist()) == set(known.tolist())
    assert [column.tolist() for column in graph.rows(known)] == before
