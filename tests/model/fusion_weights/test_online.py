"""Fusion weights that go on between versions: where they go, and how far."""

import msgspec
import numpy as np
import pytest
import torch

from model.encoders.create import Create
from model.encoders.vocabulary import Vocabulary
from model.evaluation.global_temporal import as_events
from model.evaluation.recorded_stream import RecordedStream
from model.fusion_weights.conditional_logit import ChoiceSets, fit
from model.fusion_weights.holdout import fit_fusion
from model.fusion_weights.online import OnlineFusion
from model.ranking.fusion import Fusion, Learned
from model.ranking.ranker import Ranker
from model.settings import ModelSettings, RankingSettings
from state.settings import StateSettings
from tests.model.fusion_weights.test_ndcg_search import people

SETTINGS = RankingSettings(online_clicks=50, because=False)
CHOSEN = Fusion(1.0, 1.0, 0.0, 1.0, 0.0)
ITEMS = "abcdefghijkl"


def served(fusion: Fusion = CHOSEN, users: int = 40) -> tuple[Ranker, RecordedStream]:
    """Everybody clicks a to l over and over; the model knows nothing."""
    names = [f"user-{n % users}" for n in range(users * 24)]
    items = [ITEMS[(n // users) % 12] for n in range(users * 24)]
    past = RecordedStream(StateSettings())
    past.append(as_events(names, items, 1_500_000_000_000 + np.arange(len(names)) * 1000)[0])
    known = np.unique(past.events()["item"])
    torch.manual_seed(0)
    return Ranker(Create(12, ModelSettings(dim=8)), Vocabulary(known, list(ITEMS)), fusion, SETTINGS), past


def clicked(past: RecordedStream, item: str, users: int = 16):
    names = [f"user-{n}" for n in range(users)]
    events = as_events(names, [item] * users, np.full(users, 1_600_000_000_000))[0]
    tests = past.tests(events)
    return tests.before, tests.targets


def test_the_word_that_foretells_the_clicks_gains():
    ranking, past = served()
    online = OnlineFusion(CHOSEN, SETTINGS)
    for _ in range(5):
        online.update(ranking, *clicked(past, "a"), past.graph)  # a comes after l
    assert online.fusion.evidence > CHOSEN.evidence
    assert online.clicks == 80
    assert online.fusion.before == CHOSEN.before


def test_words_are_those_the_ranking_adds_up():
    ranking, past = served(Fusion(0.7, 2.0, -0.4, 0.3, 0.5))
    asked = past.sequences(past.users[:6])
    weights = torch.tensor([0.7, -0.4, 0.3, 2.0])
    summed = torch.einsum("f,fbn->bn", weights, ranking.signals(asked, past.graph))
    assert torch.allclose(summed[:, 1:], ranking.scores(asked, past.graph)[:, 1:], atol=1e-5)


def drawn(clicks: int, seed: int = 0, candidates: int = 20) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Clicks on what the second and the fourth word speak for; the first says the contrary."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(clicks):
        words = torch.randn(candidates, 4, generator=generator)
        words[0] += torch.tensor([-0.5, 1.0, 0.0, 1.0])
        made.append((words, torch.zeros(candidates)))
    return made


def test_weights_are_those_a_version_would_get_from_the_same_clicks():
    """The words of a holdout have three forms of the evidence, of which one is free."""
    chosen = Fusion(0.8, 1.5, 0.5, 0.4, 0.5)
    online = OnlineFusion(chosen, SETTINGS)
    clicks = drawn(50)
    online._take(clicks)
    nothing = torch.zeros(20, 1)
    wider = [torch.cat([words[:, :3], nothing, words[:, 3:], nothing], 1) for words, _ in clicks]
    known = ChoiceSets(torch.stack(wider), torch.zeros(50, 20))
    expected = fit_fusion(known, (0.5,), SETTINGS, chosen)
    assert msgspec.structs.astuple(online.fusion) == pytest.approx(msgspec.structs.astuple(expected), abs=1e-3)
    assert online.fusion.repeat > chosen.repeat
    assert online.fusion.evidence > chosen.evidence
    assert online.fusion.model < chosen.model


def test_own_items_are_placed_as_a_versions_are():
    chosen, found = Fusion(0.3, 0.0, 0.1, 0.0, 0.0), people(200, come_back=0.33)
    words = torch.zeros(200, 200, 6)
    words[:, :, :2] = found.signals
    online = OnlineFusion(chosen, msgspec.structs.replace(SETTINGS, online_clicks=200))
    online._take(list(zip(words[:, :, :4], found.correction, strict=True)))
    placed = fit_fusion(
        ChoiceSets(words, found.correction), (0.0,), SETTINGS, chosen, without=["evidence", "popularity"]
    )
    assert online.fusion.repeat == pytest.approx(placed.repeat, rel=1e-3)
    likeliest, _ = fit(ChoiceSets(words, found.correction), torch.arange(6) < 2, torch.tensor([0.3, 0.1, 0, 0, 0, 0]))
    assert abs(online.fusion.repeat - likeliest[1]) > 0.1


def test_weights_learned_of_another_version_are_not_gone_on_with():
    other, online = (
        OnlineFusion(msgspec.structs.replace(CHOSEN, evidence=2.0), SETTINGS),
        OnlineFusion(CHOSEN, SETTINGS),
    )
    other._take(drawn(50))
    online.resume(other.learned)
    assert (online.fusion, online.clicks) == (CHOSEN, 0)


def test_what_is_carried_on_takes_no_word_but_repeats_below_nothing():
    high, low = Fusion(2.0, 2.0, 0.5, 2.0, 0.0), Fusion(0.1, 0.1, -1.0, 0.1, 0.0)
    online = OnlineFusion(Fusion(1.0, 1.0, 0.5, 1.0, 0.0), SETTINGS)
    online.carry_over(Learned(high, low, 100))
    assert online.fusion == Fusion(0.0, 0.0, -1.0, 0.0, 0.0)


def test_only_the_newest_clicks_count():
    one, other = OnlineFusion(CHOSEN, SETTINGS), OnlineFusion(CHOSEN, SETTINGS)
    one._take(drawn(40, seed=1))
    one._take(drawn(50, seed=2))
    other._take(drawn(50, seed=2))
    assert one.fusion == other.fusion != CHOSEN


def test_weights_are_chosen_anew_when_a_fifth_of_the_clicks_are_new():
    online = OnlineFusion(CHOSEN, SETTINGS)
    online._take(drawn(50))
    before = online.fusion
    online._take(drawn(9, seed=1))
    assert online.fusion == before
    online._take(drawn(1, seed=2))
    assert online.fusion != before


def test_what_an_operator_has_set_stays_and_the_others_are_chosen_beside_it():
    chosen = Fusion(1.0, 3.0, 0.0, 1.0, 0.0)
    online = OnlineFusion(chosen, msgspec.structs.replace(SETTINGS, evidence_weight=3.0))
    without = OnlineFusion(msgspec.structs.replace(chosen, evidence=0.0), SETTINGS)
    for each in (online, without):
        each._take(drawn(50))
    assert online.fusion.evidence == 3.0
    assert online.fusion.model != pytest.approx(without.fusion.model, abs=0.01)


def test_after_a_restart_weights_stay_until_as_many_clicks_are_there_as_they_were_chosen_on():
    settings = msgspec.structs.replace(SETTINGS, online_clicks=100)
    online = OnlineFusion(CHOSEN, settings)
    online._take(drawn(120))
    again = OnlineFusion(CHOSEN, settings)
    again.resume(online.learned)
    again._take(drawn(99, seed=1))
    assert again.fusion == online.fusion != CHOSEN
    again._take(drawn(1, seed=2))
    assert again.fusion != online.fusion


def test_the_next_version_begins_as_far_from_its_own_weights_and_counts_the_clicks_there_were():
    first = OnlineFusion(CHOSEN, SETTINGS)
    first._take(drawn(50))
    following = OnlineFusion(msgspec.structs.replace(CHOSEN, evidence=2.0), SETTINGS)
    following.carry_over(first.learned)
    following.keep_clicks_of(first)
    assert following.fusion.evidence == pytest.approx(first.fusion.evidence + 1.0)
    following._take(drawn(10, seed=1))
    assert following.fusion.evidence != pytest.approx(first.fusion.evidence + 1.0), "ten new ones and forty of before"


def test_a_word_the_version_gives_no_weight_gets_none():
    online = OnlineFusion(CHOSEN, SETTINGS)
    online._take(drawn(50))
    assert online.fusion.repeat == 0.0


def test_clicks_on_items_the_version_does_not_know_teach_nothing():
    ranking, past = served()
    online = OnlineFusion(CHOSEN, SETTINGS)
    online.update(ranking, *clicked(past, "unknown"), past.graph)
    assert (online.clicks, online.fusion) == (0, CHOSEN)
