"""What two stores answer about an item is, added up, what a view of both shows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.events import hash_id
from state.id_hash import UNKEYED
from state.identity import Identity
from state.store import Store
from state.titles import Titles
from state.view import View
from stream.config import Config
from stream.kafka.documents import merge_items, merge_popular
from stream.operate import lookup
from stream.worker.asked import MAX_PAST, Asked, choose
from stream.worker.documents import Documents
from stream.worker.recommender import Recommender
from tests.state.oracle import Event, batch

T = 1_700_000_000_000
shops = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 500)), min_size=1, max_size=40)


@settings(max_examples=15, deadline=None)
@given(shops)
def test_an_item_over_the_partitions_is_what_a_view_of_all_of_them_shows(tmp_path_factory, clicks):
    data = tmp_path_factory.mktemp("data")
    config = Config(data=data)
    stores = {n: Store(data / f"clicks-{n}", Identity("c", "clicks", n, 2, 100, 32), config.state) for n in (0, 1)}
    for number, store in stores.items():
        events = [Event(f"u{u}", f"i{i}", T + 1000 * s, "click") for u, i, s in clicks if u % 2 == number]
        store.apply(batch(events, 0), len(events))
    titles = Titles(data)
    titles.apply({hash_id("i0"): "Green tea"}, "topic", {0: 1})
    documents = Documents(config, Recommender(config, stores, titles), UNKEYED)
    with View(data, "clicks", config.state) as view:
        for name in (f"i{clicks[0][1]}", "unknown"):
            asked = [Asked("", 1, want="item", item=name)]
            parts = [documents.read(n, store, asked)[0].item for n, store in stores.items()]
            merged, whole = merge_items(parts, 10, config.state), lookup.item(config, view, name, None)
            assert (merged.degree, merged.title) == (whole.degree, whole.title)
            assert merged.popularity == pytest.approx(whole.popularity, abs=1e-3)
            assert {f.item: f.weight for f in merged.next} == pytest.approx(
                {f.item: f.weight for f in whole.next}, abs=1e-3
            )
    popular = merge_popular(
        [documents.read(n, s, [Asked("", 1, want="popular")])[0].popular for n, s in stores.items()], 9
    )
    counts = np.array([item.score for item in popular])
    assert {item.item for item in popular} == {f"i{i}" for _, i, _ in clicks}
    assert (np.diff(counts) <= 0).all()
    for store in stores.values():
        store.close()
    titles.close()


def test_an_item_before_a_time_is_what_a_view_shows_of_that_time(tmp_path):
    config = Config(data=tmp_path)
    store = Store(tmp_path / "clicks-0", Identity("c", "clicks", 0, 1, 100, 32), config.state)
    clicks = [("ann", "tea", 0), ("ann", "milk", 1), ("bob", "tea", 2), ("bob", "rice", 3), ("ann", "rice", 9)]
    store.apply(batch([Event(u, i, T + 1000 * s, "click") for u, i, s in clicks], 0), len(clicks))
    titles = Titles(tmp_path)
    titles.apply({hash_id("milk"): "Milk"}, "topic", {0: 1})
    documents = Documents(config, Recommender(config, {0: store}, titles), UNKEYED)
    with View(tmp_path, "clicks", config.state) as view:
        for seconds in (1, 2, 4, 20):
            at = T + 1000 * seconds
            part = documents.read(0, store, [Asked("", 1, want="item", item="tea", at=at)])[0].item
            seen = lookup.item_at(config, view, "tea", at)
            assert part is not None
            assert (part.degree, part.ts) == (seen.degree, at)
            assert {f.item: f.weight for f in part.next} == pytest.approx(
                {f.item: f.weight for f in seen.next}, abs=1e-3
            )
    assert [f.title for f in part.next if f.item == "milk"] == ["Milk"]
    store.close()
    titles.close()


def test_few_requests_for_a_past_time_are_answered_in_a_poll():
    past = [Asked("", n, want="item", item=f"i{n}", at=T) for n in range(100)]
    chosen = choose({0: [*past, *(Asked(f"u{n}", n) for n in range(10))]}, 500)
    assert len(chosen[0]) == MAX_PAST + 10
    assert chosen[0] >= set(range(100, 110))
