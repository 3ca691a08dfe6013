"""Fusion weights are chosen on events that were held back, by the ranks that serving would give them."""

import msgspec
import numpy as np
import pytest
import torch

from model.fusion import MODEL_ALONE, Fusion
from model.holdout import Candidates, Holdout, choose_fusion, cut
from model.metrics import ranks_of
from model.ranking import Ranking
from model.settings import RankingSettings
from state.sequences import from_events
from state.settings import StateSettings
from tests.model.test_create import cycling, learned

STATE = StateSettings(neighbours_per_item=8)


def test_the_cut_is_one_moment_for_all_users():
    past, held = cut(from_events(cycling(users=40)), 10)
    assert len(held.steps) == 10
    users = np.flatnonzero(np.diff(held.indptr))
    assert all(past.of(user)["ts"].max() < held.steps["ts"].min() for user in users)
    assert (held.users[users] % 4 == 0).all()
    assert len(past.steps) + len(held.steps) == 40 * 12


@pytest.mark.parametrize("filter_seen", [False, True])
@pytest.mark.parametrize("fusion", [MODEL_ALONE, Fusion(2.0, 1.0, 0.5, 0.5), Fusion(16.0, 0.0, 0.0, 1.0)], ids=repr)
def test_ranks_among_the_candidates_are_those_of_the_whole_catalogue(fusion, filter_seen):
    trained = learned(cycling(users=12, items=30))
    past, held = cut(from_events(cycling(users=12, items=30)), 10)
    holdout = Holdout(past, held, STATE)
    settings = RankingSettings(filter_seen=filter_seen)
    found = Candidates(holdout, trained.model, trained.vocabulary, settings).ranks(fusion)

    whole = Ranking(trained.model, trained.vocabulary, fusion, msgspec.structs.replace(settings, fresh_items=0))
    scores = whole.scores(holdout.sequences, holdout.graph)
    targets = torch.from_numpy(trained.vocabulary.lookup(holdout.targets))
    if filter_seen:
        for row in range(len(targets)):
            seen = trained.vocabulary.lookup(holdout.sequences.of(row)["item"])
            scores[row, torch.from_numpy(seen[seen != targets[row].item()])] = -torch.inf
    assert found.tolist() == ranks_of(scores, targets).tolist()


def test_where_what_follows_is_certain_the_graph_is_given_a_say():
    events = cycling(users=30, items=20)
    untrained = learned(events, epochs=1, warm_up_epochs=0)
    past, held = cut(from_events(events), 30)
    fusion = choose_fusion(
        Candidates(Holdout(past, held, STATE), untrained.model, untrained.vocabulary, RankingSettings())
    )
    assert fusion.evidence > 0
    assert fusion.before < 1


def test_without_held_out_events_there_is_still_a_fusion():
    events = cycling(users=2, items=3, steps=2)
    past, held = cut(from_events(events), 0)
    trained = learned(events)
    candidates = Candidates(Holdout(past, held, STATE), trained.model, trained.vocabulary, RankingSettings())
    assert choose_fusion(candidates) == Fusion(1.0, 1.0, 0.0, 0.0)
    assert np.array_equal(candidates.ranks(MODEL_ALONE), np.empty(0))
