"""Fusion weights change between versions: in which direction, and how far."""

import msgspec
import numpy as np
import pytest
import torch

from model.encoders.create import Create
from model.encoders.vocabulary import Vocabulary
from model.evaluation.global_temporal import as_events
from model.evaluation.recorded_stream import RecordedStream
from model.fusion_weights.conditional_logit import Choice, ChoiceSets, fit
from model.fusion_weights.fit_weights import evidence_index, fit_fusion
from model.fusion_weights.online import OnlineFusion
from model.ranking.fusion import Fusion, Learned, Signal
from model.ranking.stages import Stages
from model.settings import ModelSettings, RankingSettings
from state.settings import StateSettings
from tests.model.fusion_weights.test_ndcg_search import returning_users

SETTINGS = RankingSettings(online_clicks=50, because=False)
CHOSEN = Fusion(1.0, 1.0, 0.0, 1.0, 0.0)
ITEMS = "abcdefghijkl"


def served(fusion: Fusion = CHOSEN, users: int = 40) -> tuple[Stages, RecordedStream]:
    """Every user clicks a to l twice. The model is untrained."""
    names = [f"user-{n % users}" for n in range(users * 24)]
    items = [ITEMS[(n // users) % 12] for n in range(users * 24)]
    past = RecordedStream(StateSettings(user_item_cap=0))
    past.append(as_events(names, items, 1_500_000_000_000 + np.arange(len(names)) * 1000)[0])
    known = np.unique(past.events()["item"])
    torch.manual_seed(0)
    return Stages(Create(12, ModelSettings(dim=8)), Vocabulary(known, list(ITEMS)), fusion, SETTINGS), past


def clicked(past: RecordedStream, item: str, users: int = 16):
    names = [f"user-{n}" for n in range(users)]
    events = as_events(names, [item] * users, np.full(users, 1_600_000_000_000))[0]
    tests = past.tests(events)
    return tests.before, tests.targets


def test_the_signal_that_predicts_the_clicks_gains_weight():
    stages, past = served()
    online = OnlineFusion(CHOSEN, SETTINGS)
    for _ in range(5):
        online.update(stages, *clicked(past, "a"), past.graph)  # a follows l
    assert online.fusion.evidence > CHOSEN.evidence
    assert online.clicks == 80
    assert online.fusion.before == CHOSEN.before


def test_the_weighted_sum_of_the_signals_is_the_score_of_ranking():
    stages, past = served(Fusion(0.7, 2.0, -0.4, 0.3, 0.5))
    sequences = past.sequences(past.users[:6])
    summed = torch.einsum("f,fbn->bn", stages.fusion.as_tensor(), stages.signals(sequences, past.graph))
    assert torch.allclose(summed[:, 1:], stages.scores(sequences, past.graph)[:, 1:], atol=1e-5)


def draw_choices(clicks: int, seed: int = 0, alternatives: int = 20) -> list[Choice]:
    """Choices of items with high repeats and evidence and a low score of the model."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.zeros(4)
    target[Signal.MODEL], target[Signal.REPEAT], target[Signal.EVIDENCE] = -0.5, 1.0, 1.0
    made = []
    for _ in range(clicks):
        signals = torch.randn(alternatives, 4, generator=generator)
        signals[0] += target
        made.append(Choice(signals, torch.zeros(alternatives)))
    return made


def as_holdout(signals: torch.Tensor, before: float) -> torch.Tensor:
    """Signals [T, C, 4] in the form of a holdout, [T, C, 6], with three forms of evidence. Two of them are 0."""
    wider = torch.zeros(*signals.shape[:2], 6)
    wider[:, :, : Signal.EVIDENCE] = signals[:, :, : Signal.EVIDENCE]
    wider[:, :, evidence_index(before)] = signals[:, :, Signal.EVIDENCE]
    return wider


def test_the_weights_equal_those_of_a_version_fitted_to_the_same_clicks():
    chosen = Fusion(0.8, 1.5, 0.5, 0.4, 0.5)
    online = OnlineFusion(chosen, SETTINGS)
    clicks = draw_choices(50)
    online.update_with(clicks)
    signals, correction = ChoiceSets.pad(clicks)
    expected = fit_fusion(ChoiceSets(as_holdout(signals, 0.5), correction), (0.5,), SETTINGS, chosen)
    assert msgspec.structs.astuple(online.fusion) == pytest.approx(msgspec.structs.astuple(expected), abs=1e-3)
    assert online.fusion.repeat > chosen.repeat
    assert online.fusion.evidence > chosen.evidence
    assert online.fusion.model < chosen.model


def test_the_weight_of_repeats_is_searched_as_for_a_version():
    chosen, found = Fusion(0.3, 0.0, 0.1, 0.0, 0.0), returning_users(200, come_back=0.33)
    signals = torch.zeros(200, 200, 4)
    signals[:, :, [Signal.MODEL, Signal.REPEAT]] = found.signals
    online = OnlineFusion(chosen, msgspec.structs.replace(SETTINGS, online_clicks=200))
    online.update_with([Choice(*choice) for choice in zip(signals, found.correction, strict=True)])
    choices = ChoiceSets(as_holdout(signals, 0.0), found.correction)
    searched = fit_fusion(choices, (0.0,), SETTINGS, chosen, without=[Signal.EVIDENCE, Signal.POPULARITY])
    assert online.fusion.repeat == pytest.approx(searched.repeat, rel=1e-3)
    free = torch.tensor([signal in (Signal.MODEL, Signal.REPEAT) for signal in Signal])
    likeliest, _ = fit(ChoiceSets(signals, found.correction), free, chosen.as_tensor())
    assert abs(online.fusion.repeat - likeliest[Signal.REPEAT]) > 0.1


def test_weights_learned_for_another_version_are_ignored():
    other, online = (
        OnlineFusion(msgspec.structs.replace(CHOSEN, evidence=2.0), SETTINGS),
        OnlineFusion(CHOSEN, SETTINGS),
    )
    other.update_with(draw_choices(50))
    online.resume(other.learned)
    assert (online.fusion, online.clicks) == (CHOSEN, 0)


def test_only_the_weight_of_repeats_may_be_carried_over_below_0():
    high, low = Fusion(2.0, 2.0, 0.5, 2.0, 0.0), Fusion(0.1, 0.1, -1.0, 0.1, 0.0)
    online = OnlineFusion(Fusion(1.0, 1.0, 0.5, 1.0, 0.0), SETTINGS)
    online.carry_over(Learned(high, low, 100))
    assert online.fusion == Fusion(0.0, 0.0, -1.0, 0.0, 0.0)


def test_only_the_newest_clicks_count():
    one, other = OnlineFusion(CHOSEN, SETTINGS), OnlineFusion(CHOSEN, SETTINGS)
    one.update_with(draw_choices(40, seed=1))
    one.update_with(draw_choices(50, seed=2))
    other.update_with(draw_choices(50, seed=2))
    assert one.fusion == other.fusion != CHOSEN


def test_weights_are_fitted_again_when_a_fifth_of_the_clicks_are_new():
    online = OnlineFusion(CHOSEN, SETTINGS)
    online.update_with(draw_choices(50))
    before = online.fusion
    online.update_with(draw_choices(9, seed=1))
    assert online.fusion == before
    online.update_with(draw_choices(1, seed=2))
    assert online.fusion != before


def test_a_weight_that_an_operator_has_set_stays_and_the_others_are_fitted_to_it():
    chosen = Fusion(1.0, 3.0, 0.0, 1.0, 0.0)
    online = OnlineFusion(chosen, msgspec.structs.replace(SETTINGS, evidence_weight=3.0))
    without = OnlineFusion(msgspec.structs.replace(chosen, evidence=0.0), SETTINGS)
    for each in (online, without):
        each.update_with(draw_choices(50))
    assert online.fusion.evidence == 3.0
    assert online.fusion.model != pytest.approx(without.fusion.model, abs=0.01)


def test_after_a_restart_weights_stay_until_there_are_as_many_new_clicks_as_they_were_fitted_to():
    settings = msgspec.structs.replace(SETTINGS, online_clicks=100)
    online = OnlineFusion(CHOSEN, settings)
    online.update_with(draw_choices(120))
    again = OnlineFusion(CHOSEN, settings)
    again.resume(online.learned)
    again.update_with(draw_choices(99, seed=1))
    assert again.fusion == online.fusion != CHOSEN
    again.update_with(draw_choices(1, seed=2))
    assert again.fusion != online.fusion


def test_the_next_version_starts_with_the_same_difference_of_weights_and_the_same_clicks():
    first = OnlineFusion(CHOSEN, SETTINGS)
    first.update_with(draw_choices(50))
    following = OnlineFusion(msgspec.structs.replace(CHOSEN, evidence=2.0), SETTINGS)
    following.carry_over(first.learned)
    following.keep_clicks_of(first)
    assert following.fusion.evidence == pytest.approx(first.fusion.evidence + 1.0)
    following.update_with(draw_choices(10, seed=1))
    assert following.fusion.evidence != pytest.approx(first.fusion.evidence + 1.0), (
        "fitted to ten new clicks and forty old ones"
    )


def test_a_signal_without_a_weight_in_the_version_gets_none():
    online = OnlineFusion(CHOSEN, SETTINGS)
    online.update_with(draw_choices(50))
    assert online.fusion.repeat == 0.0


def test_clicks_on_items_that_the_version_does_not_know_are_left_out():
    stages, past = served()
    online = OnlineFusion(CHOSEN, SETTINGS)
    online.update(stages, *clicked(past, "unknown"), past.graph)
    assert (online.clicks, online.fusion) == (0, CHOSEN)
