"""Fusion weights are learned from events that were held back, as serving would have met them."""

import time

import numpy as np
import pytest
import torch

from model.fusion_weights.conditional_logit import ChoiceSets
from model.fusion_weights.holdout import (
    BEFORE,
    Answers,
    Holdout,
    choice_sets,
    choose_fusion,
    fit_fusion,
    sample_alternatives,
    split_holdout,
)
from model.ranking.fusion import MODEL_ONLY, Fusion
from model.settings import RankingSettings
from state.sequences import from_events
from state.settings import StateSettings
from tests.model.examples import cycling, learned

STATE = StateSettings(neighbours_per_item=8)


def test_the_cut_is_one_moment_for_all_users():
    past, held = split_holdout(from_events(cycling(users=40)), 10)
    assert len(held.steps) == 10
    users = np.flatnonzero(np.diff(held.indptr))
    assert all(past.of(user)["ts"].max() < held.steps["ts"].min() for user in users)
    assert len(past.steps) + len(held.steps) == 40 * 12


def of(events: np.ndarray, count: int) -> Holdout:
    return Holdout(*split_holdout(from_events(events), count), STATE)


def test_users_who_are_new_in_what_is_held_back_are_tested_from_their_second_event_on():
    events = cycling(users=40)
    events["user"][-6:] = [101, 102, 101, 103, 101, 102]
    holdout = of(events, 10)
    new = np.flatnonzero(holdout.sequences.users > 100)
    found = [(holdout.sequences.users[row], len(holdout.sequences.of(row)), holdout.targets[row]) for row in new]
    assert found == [(101, 1, events["item"][-4]), (101, 2, events["item"][-2]), (102, 1, events["item"][-1])]
    assert len(holdout.targets) == 4 + 3


def test_before_each_test_the_graph_knows_what_came_earlier_and_nothing_else():
    events = cycling(users=40)
    holdout = of(events, 10)
    for tests, _, graph in holdout.batches(items=1 << 25):
        assert tests.stop - tests.start == 1
        ts = held_ts(holdout, tests.start, events)
        for item in np.unique(events["item"]):
            clicks = ((events["item"] == item) & (events["ts"] < ts)).sum()
            assert graph.rows(np.array([item])).degree[0] == clicks


def held_ts(holdout: Holdout, test: int, events: np.ndarray) -> int:
    """When the held-out event came: the first of its user after those of its history."""
    own = np.sort(events["ts"][events["user"] == holdout.sequences.users[test]])
    return own[np.diff(holdout.sequences.indptr)[test]]


@pytest.mark.parametrize("filter_seen", [False, True])
def test_a_target_is_the_first_candidate_and_no_item_stands_twice(filter_seen):
    trained = learned(cycling(users=60, items=30))
    holdout = of(cycling(users=60, items=30), 60)
    settings = RankingSettings(filter_seen=filter_seen)
    known = choice_sets(holdout, trained.model, trained.vocabulary, settings)
    real = torch.isfinite(known.correction)
    assert real[:, 0].all()
    # 30 items are few enough for all of them to be candidates, but for those seen before.
    seen = [len(np.unique(holdout.sequences.of(row)["item"])) for row in range(len(real))]
    wanted = [30 - s for s in seen] if filter_seen else [30] * len(seen)
    assert real.sum(1).tolist() == wanted
    model = known.signals[:, :, 0].masked_fill(~real, -torch.inf)
    assert all(len(torch.unique(row[torch.isfinite(row)])) == n for row, n in zip(model, wanted, strict=True))


def test_candidates_stand_for_all_items_that_could_have_come():
    draw = torch.Generator().manual_seed(0)
    possible = torch.rand(5001, generator=draw) < 0.8
    possible[0], possible[7] = False, True
    evidence = torch.zeros(5001).scatter(0, torch.arange(40, 60), 1.0)
    items, correction = sample_alternatives(
        torch.tensor(7), possible, [torch.randn(5001, generator=draw), evidence], draw
    )
    assert correction.exp().sum().item() == pytest.approx(possible.sum().item(), rel=1e-4)
    assert set(items.tolist()) >= {7, *(set(range(40, 60)) & set(possible.nonzero()[:, 0].tolist()))}
    assert possible[items].all()


def test_where_what_follows_is_certain_the_graph_is_given_a_say():
    events = cycling(users=240, items=20)
    untrained = learned(events, epochs=1, warm_up_epochs=0)
    model, vocabulary = untrained.model, untrained.vocabulary
    fusion = choose_fusion(of(events, 80), model, vocabulary, RankingSettings())
    assert fusion.evidence > 0
    assert fusion.before < 1
    alone = choose_fusion(of(events, 80), model, vocabulary, RankingSettings(), without=["model"])
    assert alone.model == 0 < alone.evidence


def test_where_nobody_comes_back_a_repeat_counts_against_an_item():
    draw = np.random.default_rng(0)
    events = cycling(users=240, items=20)
    for user in np.unique(events["user"]):
        own = events["user"] == user
        events["item"][own] = draw.permutation(20)[: own.sum()] + 100
    trained = learned(events, epochs=2)
    holdout = of(events, 80)
    fusion = choose_fusion(holdout, trained.model, trained.vocabulary, RankingSettings())
    assert fusion.repeat < 0
    with_graph = holdout.scores(trained.model, trained.vocabulary, fusion, RankingSettings())
    alone = holdout.scores(trained.model, trained.vocabulary, MODEL_ONLY, RankingSettings())
    assert with_graph["ndcg@10"] > alone["ndcg@10"]


def test_where_people_come_back_their_items_are_put_forward_unless_they_are_never_shown(monkeypatch):
    words = torch.zeros(300, 40, 6)
    words[:, :, 0] = 4.0 * torch.randn(300, 40, generator=torch.Generator().manual_seed(0))  # the model knows nothing
    words[:150, 0, 1] = words[150:, 1, 1] = 1.0  # half of what came was the user's own
    known = ChoiceSets(words, torch.zeros(300, 40))
    placed = fit_fusion(known, BEFORE, RankingSettings(), MODEL_ONLY)
    assert fit_fusion(known, BEFORE, RankingSettings(filter_seen=True), MODEL_ONLY).repeat == 0.0
    assert fit_fusion(known, BEFORE, RankingSettings(), MODEL_ONLY, without=["repeat"]).repeat == 0.0
    assert found_first(known, placed) > 0.45
    assert found_first(known, MODEL_ONLY) < 0.1
    monkeypatch.setattr("model.fusion_weights.holdout.best_weight", lambda _choices, weights, *_: weights)
    likeliest = fit_fusion(known, BEFORE, RankingSettings(), MODEL_ONLY)
    assert placed.repeat >= likeliest.repeat > 4.0
    assert placed.model == likeliest.model


def found_first(known: ChoiceSets, fusion: Fusion) -> float:
    """The share of choices that these weights put before all else."""
    said = known.signals[:, :, 0] * fusion.model + known.signals[:, :, 1] * fusion.repeat
    return float((said[:, 1:] < said[:, :1]).all(1).float().mean())


def test_what_else_the_machine_does_is_no_time_of_a_version(monkeypatch):
    trained = learned(cycling(users=60, items=30))
    monkeypatch.setattr("model.ranking.ranker.Ranker.rank", lambda *_: time.sleep(0.02))
    ((one, other),) = [of(cycling(users=60, items=30), 60).seconds([trained[:2]] * 2, RankingSettings())]
    assert len(one) == len(other) > 0
    assert max(one + other) < 0.01


def test_what_is_not_among_the_answers_is_no_hit():
    found = Answers(np.array([0, 9, 10, 10]), np.zeros((4, 10), np.uint64)).scores()
    assert found == pytest.approx({"hit@10": 0.5, "ndcg@10": (1 + 1 / np.log2(11)) / 4})


def test_without_held_out_events_there_is_still_a_fusion():
    events = cycling(users=2, items=3, steps=2)
    trained = learned(events)
    holdout = of(events, 0)
    assert choose_fusion(holdout, trained.model, trained.vocabulary, RankingSettings()) == Fusion()
    assert holdout.scores(trained.model, trained.vocabulary, Fusion(), RankingSettings()) == {}
