"""The fusion weights of a version are chosen on held-out events, with the signals that a worker would have."""

import numpy as np
import torch

from model.fusion_weights.choice_sets import BEFORE_SHARES
from model.fusion_weights.conditional_logit import ChoiceSets
from model.fusion_weights.fit_weights import choose_fusion, fit_fusion
from model.ranking.fusion import MODEL_ONLY, Fusion, Signal
from model.settings import RankingSettings
from tests.model.examples import cycling, holdout_of, learned


def test_the_evidence_gets_a_weight_when_the_next_item_is_certain():
    events = cycling(users=240, items=20)
    untrained = learned(events, epochs=1, warm_up_epochs=0)
    model, vocabulary = untrained.model, untrained.vocabulary
    fusion = choose_fusion(holdout_of(events, 80), model, vocabulary, RankingSettings())
    assert fusion.evidence > 0
    assert fusion.before < 1
    alone = choose_fusion(holdout_of(events, 80), model, vocabulary, RankingSettings(), without=[Signal.MODEL])
    assert alone.model == 0 < alone.evidence


def test_repeats_get_a_negative_weight_when_no_user_returns_to_an_item():
    draw = np.random.default_rng(0)
    events = cycling(users=240, items=20)
    for user in np.unique(events["user"]):
        own = events["user"] == user
        events["item"][own] = draw.permutation(20)[: own.sum()] + 100
    trained = learned(events, epochs=2)
    holdout = holdout_of(events, 80)
    fusion = choose_fusion(holdout, trained.model, trained.vocabulary, RankingSettings())
    assert fusion.repeat < 0
    with_graph = holdout.scores(trained.model, trained.vocabulary, fusion, RankingSettings())
    alone = holdout.scores(trained.model, trained.vocabulary, MODEL_ONLY, RankingSettings())
    assert with_graph["ndcg@10"] > alone["ndcg@10"]


def test_repeats_get_a_weight_if_users_return_to_items_and_seen_items_are_not_filtered(monkeypatch):
    signals = torch.zeros(300, 40, 6)
    signals[:, :, Signal.MODEL] = 4.0 * torch.randn(300, 40, generator=torch.Generator().manual_seed(0))  # noise
    signals[:150, 0, Signal.REPEAT] = signals[150:, 1, Signal.REPEAT] = 1.0  # half of the choices are repeats
    choices = ChoiceSets(signals, torch.zeros(300, 40))
    searched = fit_fusion(choices, BEFORE_SHARES, RankingSettings(), MODEL_ONLY)
    assert fit_fusion(choices, BEFORE_SHARES, RankingSettings(filter_seen=True), MODEL_ONLY).repeat == 0.0
    assert fit_fusion(choices, BEFORE_SHARES, RankingSettings(), MODEL_ONLY, without=[Signal.REPEAT]).repeat == 0.0
    assert found_first(choices, searched) > 0.45
    assert found_first(choices, MODEL_ONLY) < 0.1
    monkeypatch.setattr("model.fusion_weights.fit_weights.best_weight", lambda _choices, weights, *_: weights)
    likeliest = fit_fusion(choices, BEFORE_SHARES, RankingSettings(), MODEL_ONLY)
    assert searched.repeat >= likeliest.repeat > 4.0
    assert searched.model == likeliest.model


def found_first(choices: ChoiceSets, fusion: Fusion) -> float:
    """The share of choices that these weights rank first."""
    scores = choices.signals[:, :, Signal.MODEL] * fusion.model + choices.signals[:, :, Signal.REPEAT] * fusion.repeat
    return float((scores[:, 1:] < scores[:, :1]).all(1).float().mean())


def test_without_held_out_events_the_prior_weights_stay():
    events = cycling(users=2, items=3, steps=2)
    trained = learned(events)
    holdout = holdout_of(events, 0)
    assert choose_fusion(holdout, trained.model, trained.vocabulary, RankingSettings()) == Fusion()
    assert holdout.scores(trained.model, trained.vocabulary, Fusion(), RankingSettings()) == {}
