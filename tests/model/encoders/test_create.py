"""CREATE packs histories without loss, sees no future, and ranks as it says."""

import numpy as np
import pytest
import torch

from model.encoders.create import Create
from model.encoders.histories import Histories, pack
from model.ranking.fusion import MODEL_ONLY, Fusion, with_set_weights
from model.ranking.ranker import Ranker
from model.settings import RankingSettings
from state.events import EVENT
from state.graph import MemoryGraph
from state.sequences import Sequences, from_events
from tests.model.examples import SMALL, STATE, cycling, learned


def one_user(*items: int) -> Sequences:
    events = np.array([(1, item, 1_000_000_000_000 + n, n, 0) for n, item in enumerate(items)], EVENT)
    return from_events(events)


@pytest.mark.parametrize("because", [False, True])
def test_with_all_weights_0_the_graph_changes_nothing(because):
    trained = learned(cycling())
    graph = MemoryGraph(STATE)
    graph.apply(cycling())
    ranking = Ranker(trained.model, trained.vocabulary, MODEL_ONLY, RankingSettings(because=because))
    user = one_user(100, 101, 102)
    with_graph, without = ranking.rank(user, graph, 5), ranking.rank(user, MemoryGraph(STATE), 5)
    assert with_graph.items.tobytes() == without.items.tobytes()
    assert with_graph.scores.tobytes() == without.scores.tobytes()


def test_the_graph_makes_an_unknown_item_recommendable_and_says_why():
    trained = learned(cycling())
    graph = MemoryGraph(STATE)
    graph.apply(cycling())
    graph.apply(np.array([(50, 102, 2_000_000_000_000, 0, 0), (50, 999, 2_000_000_000_001, 1, 0)], EVENT))
    ranked = Ranker(trained.model, trained.vocabulary, Fusion(evidence=16.0), RankingSettings()).rank(
        one_user(100, 102), graph, 8
    )
    assert 999 in ranked.items[0]
    assert ranked.because[0][ranked.items[0].tolist().index(999)][0] == 102


def test_seen_items_can_be_filtered_and_a_user_without_events_gets_none():
    trained = learned(cycling())
    graph = MemoryGraph(STATE)
    graph.apply(cycling())
    ranking = Ranker(trained.model, trained.vocabulary, trained.fusion, RankingSettings(filter_seen=True))
    assert not {100, 101} & set(ranking.rank(one_user(100, 101), graph, 7).items[0].tolist())
    nobody = Sequences(np.array([9], np.uint64), np.array([0, 0]), one_user(100).steps[:0])
    assert not ranking.rank(nobody, graph, 5).items.any()


def test_a_hidden_item_is_not_recommended_to_who_hid_it():
    trained = learned(cycling())
    graph = MemoryGraph(STATE)
    graph.apply(cycling())
    ranking = Ranker(trained.model, trained.vocabulary, trained.fusion, RankingSettings())
    [best, second] = ranking.rank(one_user(100, 101), graph, 2).items[0].tolist()
    hidden = [np.array([best], np.uint64)]
    found = ranking.rank(one_user(100, 101), graph, 7, hidden).items[0].tolist()
    assert best not in found
    assert found[0] == second


def test_what_has_expired_is_not_recommended():
    class Forgetful(MemoryGraph):
        forgets = True

    trained = learned(cycling())
    graph = Forgetful(STATE)
    graph.apply(cycling()[cycling()["item"] != 102])
    ranking = Ranker(trained.model, trained.vocabulary, trained.fusion, RankingSettings())
    assert 102 not in ranking.rank(one_user(100, 101), graph, 7).items[0]
    graph.apply(cycling())
    ranking.update(cycling())
    assert 102 in ranking.rank(one_user(100, 101), graph, 7).items[0]
    ranking.remove(steps := one_user(*[102] * len(cycling())).steps)
    assert len(steps)
    assert 102 not in ranking.rank(one_user(100, 101), graph, 7).items[0]


def test_packing_loses_nothing_and_the_encoder_sees_no_future():
    histories = Histories(np.array([0, 3, 4]), np.array([1, 2, 3, 4]))
    packed = pack(histories)
    assert packed.items[packed.tokens].tolist() == [1, 2, 3, 4]
    assert packed.items[packed.last].tolist() == [3, 4]
    model = Create(5, SMALL).eval()
    torch.nn.init.normal_(model.sequence.blocks[0].out.weight)  # a new block is the identity and sees nothing
    changed = Histories(histories.indptr, np.array([1, 2, 5, 4]))
    first, second = (model.sequence(model.items(p.items), p) for p in (packed, pack(changed)))
    before_last, last = packed.tokens[1], packed.tokens[2]
    assert torch.equal(first[before_last], second[before_last])
    assert not torch.equal(first[last], second[last])


@pytest.mark.parametrize("because", [False, True])
def test_with_all_weights_set_to_0_items_no_version_knows_change_nothing_either(because):
    trained = learned(cycling())
    graph = MemoryGraph(STATE)
    graph.apply(cycling())
    graph.apply(np.array([(50, 102, 2_000_000_000_000, 0, 0), (50, 999, 2_000_000_000_001, 1, 0)], EVENT))
    settings = RankingSettings(because=because, evidence_weight=0.0, repeat_weight=0.0, popularity_weight=0.0)
    user = one_user(100, 999, 102)
    found = [
        Ranker(trained.model, trained.vocabulary, with_set_weights(trained.fusion, settings), settings).rank(
            user, known, 8
        )
        for known in (graph, MemoryGraph(STATE))
    ]
    assert found[0].items.tobytes() == found[1].items.tobytes()
    assert found[0].scores.tobytes() == found[1].scores.tobytes()
    h = trained.model.encode(Histories(np.array([0, 2]), trained.vocabulary.lookup(np.array([100, 102], np.uint64))))
    best = (h @ trained.model.items.weight[1:].T).topk(7).indices[0].numpy()
    assert found[0].items[0].tolist() == [*trained.vocabulary.hashes[best].tolist(), 0]
