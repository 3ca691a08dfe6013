"""A ranking by candidate items has the same filters as one of all items, fills its list and gives reasons."""

import numpy as np
import pytest
import torch

from model.encoders.create import Create
from model.encoders.vocabulary import Vocabulary
from model.ranker.network import Ranker
from model.ranking.features import AT, NAMES, START
from model.ranking.fusion import Fusion
from model.ranking.reason_kinds import TEXTS
from model.ranking.stages import Ranked, Stages
from model.settings import ModelSettings, RankingSettings
from state.events import make_events
from state.graph import MemoryGraph
from state.sequences import Sequences, from_events
from state.settings import StateSettings

START_MS, MINUTE, DAY = 1_600_000_000_000, 60_000, 86_400_000
STATE = StateSettings(neighbours_per_item=8, user_item_cap=0)
ITEMS, USERS = 40, 12
FUSION = Fusion(model=0.0, evidence=3.0, repeat=1.0, popularity=1.0, before=0.5)
"""Without the encoder only counters propose candidate items."""


def shop(items: int = ITEMS) -> np.ndarray:
    """Every user clicks ten items in a row, each a minute after the one before; item 100 is the most popular."""
    n = np.arange(USERS * 10)
    item = 100 + (n // 10 * 7 + n % 10) % items
    item[::10] = 100
    return make_events(n // 10 + 1, item, ts=START_MS + n * MINUTE, offset=n)


class ExpiringGraph(MemoryGraph):
    expires = True


def graph_of(events: np.ndarray, graph: type[MemoryGraph] = MemoryGraph) -> MemoryGraph:
    found = graph(STATE)
    found.apply(events)
    return found


def version(items: int = ITEMS) -> tuple[Create, Vocabulary]:
    torch.manual_seed(0)
    known = np.arange(100, 100 + items, dtype=np.uint64)
    return Create(items, ModelSettings(dim=8)).eval(), Vocabulary(known, [str(item) for item in known])


def stages(*, ranked: bool = True, fusion: Fusion = FUSION, items: int = ITEMS, **settings) -> Stages:
    ranker = Ranker(len(NAMES), START) if ranked else None
    return Stages(*version(items), fusion, RankingSettings(**settings), ranker)


def user(events: np.ndarray, number: int) -> Sequences:
    return from_events(events[events["user"] == number])


def why(ranked: Ranked) -> dict[int, str]:
    kinds = [TEXTS[kind] for kind in ranked.why[0].tolist()]
    return dict(zip(ranked.items[0].tolist(), kinds, strict=True))


def ids(*items: int) -> np.ndarray:
    return np.array(items, np.uint64)


def test_an_untrained_ranker_orders_candidate_items_as_the_fusion_does():
    events = shop()
    graph, fusion = graph_of(events), Fusion(model=0.3)
    by_ranker, by_fusion = (stages(ranked=ranked, fusion=fusion) for ranked in (True, False))
    found = by_ranker.rank(from_events(events), graph, 10).items
    assert found.tolist() == by_fusion.rank(from_events(events), graph, 10).items.tolist()


@pytest.mark.parametrize("ranked", [True, False])
@pytest.mark.parametrize("filtered", ["hidden", "withdrawn", "seen", "expired"])
def test_a_filtered_item_is_in_no_list(ranked, filtered):
    events = shop()
    own = user(events, 2)
    at_first = stages(ranked=ranked).rank(own, graph_of(events), 10).items[0].tolist()
    for item in (at_first[0], int(own.steps["item"][-1])):
        graph, settings, arguments = graph_of(events), {}, {}
        if filtered == "hidden":
            arguments = {"hidden": [ids(item, 999)]}
        elif filtered == "withdrawn":
            arguments = {"withdrawn": ids(item)}
        elif filtered == "seen":
            settings = {"filter_seen": True}
        else:
            graph = graph_of(events[events["item"] != item], ExpiringGraph)
        found = stages(ranked=ranked, **settings).rank(own, graph, ITEMS, **arguments)
        shown = set(found.items[0].tolist())
        assert 0 < len(shown - {0}) < ITEMS
        assert not shown & ({item} if filtered != "seen" else set(own.steps["item"].tolist()))
        if filtered == "withdrawn":
            assert item not in found.because


def test_a_hidden_item_is_shown_to_others():
    events = shop()
    both = from_events(events[np.isin(events["user"], [2, 3])])
    found = stages().rank(both, graph_of(events), ITEMS, [ids(100), ids()]).items
    assert 100 not in found[0]
    assert 100 in found[1]


def test_a_fresh_item_is_a_candidate_item_as_soon_as_somebody_clicked_it():
    events = shop()
    graph, ranking = graph_of(events), stages()
    assert 999 not in ranking.rank(user(events, 2), graph, ITEMS).items
    newest = int(user(events, 2).steps["item"][-1])
    n = np.arange(20)
    new = make_events(50 + n // 2, np.where(n % 2, 999, newest), ts=START_MS + DAY + n, offset=200 + n)
    graph.apply(new)
    ranking.update(new)
    found = ranking.rank(user(events, 2), graph, 10, moments=np.array([START_MS + DAY + MINUTE]))
    assert 999 in found.items[0]
    assert found.because[0][found.items[0].tolist().index(999)][0] == newest
    assert why(found)[999] == "followed"


@pytest.mark.parametrize("k", [10, 35, 1000])
def test_a_list_is_filled_with_popular_items_that_pass_the_filters(k):
    events = shop(items=300)
    graph = graph_of(events)
    most = 2 + len(np.unique(events["item"]))
    hidden = ids(*user(events, 1).steps["item"][:5], 399)
    found = stages(items=300, filter_seen=True).rank(user(events, 2), graph, k, [hidden])
    items = [item for item in found.items[0].tolist() if item]
    assert len(items) == len(set(items))
    left_out = set(hidden.tolist()) | set(user(events, 2).steps["item"].tolist())
    assert not left_out & set(items)
    everything = set(events["item"].tolist()) - left_out
    assert len(items) == min(k, len(everything)) < most
    assert set(items) <= everything
    scores = found.scores[0, : len(items)]
    assert (np.diff(scores) <= 0).all()
    if k > len(everything):
        assert why(found)[items[-1]] == "popular"


def test_a_user_without_a_history_has_no_list_and_one_in_a_batch_changes_nothing_for_the_others():
    events = shop()
    one = user(events, 2)
    both = Sequences(np.array([1, 2], np.uint64), np.array([0, 0, len(one.steps)]), one.steps)
    found = stages().rank(both, graph_of(events), 50)
    assert not found.items[0].any()
    assert not found.why[0].any()
    assert found.items[1].tolist() == stages().rank(one, graph_of(events), 50).items[0].tolist()


def test_without_reasons_the_list_is_the_same():
    events = shop()
    with_reasons, without = (
        stages(because=because).rank(from_events(events), graph_of(events), 10) for because in (True, False)
    )
    assert with_reasons.items.tolist() == without.items.tolist()
    assert with_reasons.because.any()
    assert with_reasons.why.any()
    assert not without.because.any()
    assert not without.why.any()


def reading(**weights: float) -> Ranker:
    """A ranker whose score is a weighted sum of features."""
    ranker = Ranker(len(NAMES))
    ranker.spread.fill_(10.0)  # no value is clipped
    with torch.no_grad():
        for name, weight in weights.items():
            ranker.linear.weight[0, AT[name]] = weight
    return ranker


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"own_since": -1.0}, "again"),
        ({"next_1": 1.0}, "followed"),
        ({"co_5": 1.0}, "similar"),
        ({"trend_day": 1.0}, "rising"),
        ({"pop_month": 1.0}, "popular"),
        ({"item_age": -1.0}, "new"),
        ({"fused": 1.0}, "followed"),
    ],
)
def test_the_reason_is_what_the_ranker_read_most(weights, expected):
    events = shop()
    other = np.arange(100, 106)
    now = make_events(np.arange(40, 46), other, ts=START_MS + 9 * DAY + other, offset=500 + other)
    fresh = make_events(np.arange(60, 62), [990, 991], ts=START_MS + 9 * DAY + np.arange(2), offset=[700, 701])
    graph = graph_of(np.concatenate([events, now, fresh]))
    ranking = Stages(*version(), Fusion(evidence=9.0, popularity=0.1), RankingSettings(), reading(**weights))
    found = ranking.rank(user(events, 2), graph, 3, moments=np.array([START_MS + 9 * DAY + MINUTE]))
    assert why(found)[int(found.items[0, 0])] == expected
    assert found.because[0, 0, 0] in user(events, 2).steps["item"]


def test_an_old_item_is_never_called_new_nor_one_that_nobody_clicks_popular():
    events = shop()
    graph = graph_of(events)
    for weights, wrong in (({"item_age": 5.0}, "new"), ({"pop_month": -5.0}, "popular"), ({"own_since": 1.0}, "again")):
        ranking = Stages(*version(), FUSION, RankingSettings(), reading(**weights))
        found = ranking.rank(user(events, 2), graph, 3, moments=np.array([START_MS + DAY]))
        assert why(found)[int(found.items[0, 0])] != wrong


def test_the_reason_of_the_fusion_is_its_largest_signal():
    events = shop()
    graph, own = graph_of(events), user(events, 2)
    for fusion, expected in (
        (Fusion(0.0, 0.0, 5.0, 0.0), "again"),
        (Fusion(0.0, 5.0, 0.0, 0.0), "followed"),
        (Fusion(5.0, 0.0, 0.0, 0.0), "similar"),
        (Fusion(0.0, 0.0, 0.0, 5.0), "popular"),
    ):
        found = stages(ranked=False, fusion=fusion).rank(own, graph, 3)
        assert why(found)[int(found.items[0, 0])] == expected
    popular = stages(ranked=False, fusion=Fusion(0.0, 0.0, 0.0, 5.0)).rank(own, graph, ITEMS)
    assert why(popular)[int(popular.items[0, -1])] == ""


@pytest.mark.parametrize("ranked", [True, False])
def test_what_is_shown_for_examples_has_no_item_that_a_filter_takes_out(ranked):
    events = shop()
    graph, sequences, hidden = graph_of(events), user(events, 2), ids(101)
    own = set(sequences.steps["item"].tolist())
    everything = stages(ranked=ranked).rank(sequences, graph, 10, shown=True).shown[0]
    filtered = (
        stages(ranked=ranked, filter_seen=True).rank(sequences, graph, 10, [hidden], ids(102), shown=True).shown[0]
    )
    assert {101, 102} | own <= set(everything.items.tolist())
    assert set(filtered.items.tolist()) == set(everything.items.tolist()) - own - {101, 102}
    rest = np.isin(everything.items, filtered.items)
    assert np.array_equal(filtered.features, everything.features[rest])
