"""Recommendations of a trained model: without the graph, with it, and with filters."""

import numpy as np
import pytest

from model.encoders.histories import Histories
from model.ranking.fusion import MODEL_ONLY, Fusion, with_set_weights
from model.ranking.stages import Stages
from model.settings import RankingSettings
from state.events import make_events
from state.graph import MemoryGraph
from state.sequences import Sequences, from_events
from tests.model.examples import STATE, cycling, learned


def one_user(*items: int) -> Sequences:
    n = np.arange(len(items))
    events = make_events(np.ones(len(items)), items, ts=1_000_000_000_000 + n, offset=n)
    return from_events(events)


@pytest.mark.parametrize("because", [False, True])
def test_with_all_graph_weights_0_the_graph_changes_nothing(because):
    trained = learned(cycling())
    graph = MemoryGraph(STATE)
    graph.apply(cycling())
    stages = Stages(trained.model, trained.vocabulary, MODEL_ONLY, RankingSettings(because=because))
    user = one_user(100, 101, 102)
    with_graph, without = stages.rank(user, graph, 5), stages.rank(user, MemoryGraph(STATE), 5)
    assert with_graph.items.tobytes() == without.items.tobytes()
    assert with_graph.scores.tobytes() == without.scores.tobytes()


def test_an_item_that_no_version_knows_is_recommended_for_its_evidence_and_has_a_reason():
    trained = learned(cycling())
    graph = MemoryGraph(STATE)
    graph.apply(cycling())
    graph.apply(make_events([50, 50], [102, 999], ts=[2_000_000_000_000, 2_000_000_000_001], offset=[0, 1]))
    ranked = Stages(trained.model, trained.vocabulary, Fusion(evidence=16.0), RankingSettings()).rank(
        one_user(100, 102), graph, 8
    )
    assert 999 in ranked.items[0]
    assert ranked.because[0][ranked.items[0].tolist().index(999)][0] == 102


def test_seen_items_can_be_filtered_and_a_user_without_events_gets_no_items():
    trained = learned(cycling())
    graph = MemoryGraph(STATE)
    graph.apply(cycling())
    stages = Stages(trained.model, trained.vocabulary, trained.fusion, RankingSettings(filter_seen=True))
    assert not {100, 101} & set(stages.rank(one_user(100, 101), graph, 7).items[0].tolist())
    without_events = Sequences(np.array([9], np.uint64), np.array([0, 0]), one_user(100).steps[:0])
    assert not stages.rank(without_events, graph, 5).items.any()


def test_a_hidden_item_is_not_recommended_to_the_user_who_hid_it():
    trained = learned(cycling())
    graph = MemoryGraph(STATE)
    graph.apply(cycling())
    stages = Stages(trained.model, trained.vocabulary, trained.fusion, RankingSettings())
    [best, second] = stages.rank(one_user(100, 101), graph, 2).items[0].tolist()
    hidden = [np.array([best], np.uint64)]
    found = stages.rank(one_user(100, 101), graph, 7, hidden).items[0].tolist()
    assert best not in found
    assert found[0] == second


def test_an_item_whose_clicks_have_all_expired_is_not_recommended():
    class ExpiringGraph(MemoryGraph):
        expires = True

    trained = learned(cycling())
    graph = ExpiringGraph(STATE)
    graph.apply(cycling()[cycling()["item"] != 102])
    stages = Stages(trained.model, trained.vocabulary, trained.fusion, RankingSettings())
    assert 102 not in stages.rank(one_user(100, 101), graph, 7).items[0]
    graph.apply(cycling())
    stages.update(cycling())
    assert 102 in stages.rank(one_user(100, 101), graph, 7).items[0]
    stages.remove(steps := one_user(*[102] * len(cycling())).steps)
    assert len(steps)
    assert 102 not in stages.rank(one_user(100, 101), graph, 7).items[0]


@pytest.mark.parametrize("because", [False, True])
def test_with_all_graph_weights_set_to_0_items_that_no_version_knows_change_nothing(because):
    trained = learned(cycling())
    graph = MemoryGraph(STATE)
    graph.apply(cycling())
    graph.apply(make_events([50, 50], [102, 999], ts=[2_000_000_000_000, 2_000_000_000_001], offset=[0, 1]))
    settings = RankingSettings(because=because, evidence_weight=0.0, repeat_weight=0.0, popularity_weight=0.0)
    user = one_user(100, 999, 102)
    found = [
        Stages(trained.model, trained.vocabulary, with_set_weights(trained.fusion, settings), settings).rank(
            user, known, 8
        )
        for known in (graph, MemoryGraph(STATE))
    ]
    assert found[0].items.tobytes() == found[1].items.tobytes()
    assert found[0].scores.tobytes() == found[1].scores.tobytes()
    h = trained.model.encode(Histories(np.array([0, 2]), trained.vocabulary.lookup(np.array([100, 102], np.uint64))))
    best = (h @ trained.model.items.weight[1:].T).topk(7).indices[0].numpy()
    assert found[0].items[0].tolist() == [*trained.vocabulary.hashes[best].tolist(), 0]
