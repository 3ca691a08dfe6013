"""Fusion weights that go on between versions: where they go, and how far."""

import numpy as np
import pytest
import torch

from model.conditional_logit import Choices
from model.create import Create
from model.evaluation import as_events
from model.fusion import Fusion
from model.online import OnlineFusion
from model.past import Past
from model.ranking import Ranking
from model.settings import ModelSettings, RankingSettings
from model.vocabulary import Vocabulary
from state.settings import StateSettings

SETTINGS = RankingSettings(online_rate=0.05, online_bound=0.3, because=False)
CHOSEN = Fusion(1.0, 1.0, 0.0, 1.0, 0.0)
ITEMS = "abcdefghijkl"


def served(fusion: Fusion = CHOSEN, users: int = 40) -> tuple[Ranking, Past]:
    """Everybody clicks a to l over and over; the model knows nothing."""
    names = [f"user-{n % users}" for n in range(users * 24)]
    items = [ITEMS[(n // users) % 12] for n in range(users * 24)]
    past = Past(StateSettings())
    past.arrive(as_events(names, items, 1_500_000_000_000 + np.arange(len(names)) * 1000)[0])
    known = np.unique(past.events()["item"])
    torch.manual_seed(0)
    return Ranking(Create(12, ModelSettings(dim=8)), Vocabulary(known, list(ITEMS)), fusion, SETTINGS), past


def clicked(past: Past, item: str, users: int = 16):
    names = [f"user-{n}" for n in range(users)]
    events = as_events(names, [item] * users, np.full(users, 1_600_000_000_000))[0]
    tests = past.tests(events)
    return tests.before, tests.targets


def test_the_word_that_foretells_the_clicks_gains():
    ranking, past = served()
    online = OnlineFusion(CHOSEN, SETTINGS)
    for _ in range(5):
        online.learn(ranking, *clicked(past, "a"), past.graph)  # a comes after l
    assert online.fusion.evidence > CHOSEN.evidence
    assert online.clicks == 80
    assert online.fusion.before == CHOSEN.before


def test_words_are_those_the_ranking_adds_up():
    ranking, past = served(Fusion(0.7, 2.0, -0.4, 0.3, 0.5))
    asked = past.sequences(past.users[:6])
    weights = torch.tensor([0.7, -0.4, 0.3, 2.0])
    summed = torch.einsum("f,fbn->bn", weights, ranking.words(asked, past.graph))
    assert torch.allclose(summed[:, 1:], ranking.scores(asked, past.graph)[:, 1:], atol=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_however_long_one_thing_goes_on_the_weights_stay_near_the_versions(sign):
    online = OnlineFusion(CHOSEN, RankingSettings(online_rate=0.5, online_bound=0.3))
    words = torch.randn(16, 20, 4, generator=torch.Generator().manual_seed(0))
    words[:, 0] += sign * 0.7
    for _ in range(100):
        online._step(Choices(words, torch.zeros(16, 20)))
    spread = words.reshape(-1, 4).std(0)
    said = torch.tensor([online.fusion.model, online.fusion.popularity, online.fusion.evidence])
    moved = (said - 1.0) * spread[[0, 2, 3]]
    assert moved.abs().tolist() == pytest.approx([SETTINGS.online_bound] * 3, abs=0.02)
    assert said.min() >= 0.0


def test_a_word_the_version_gives_no_weight_gets_none():
    ranking, past = served()
    online = OnlineFusion(CHOSEN, SETTINGS)
    online.learn(ranking, *clicked(past, "a"), past.graph)
    assert online.fusion.repeat == 0.0


def test_clicks_on_items_the_version_does_not_know_teach_nothing():
    ranking, past = served()
    online = OnlineFusion(CHOSEN, SETTINGS)
    online.learn(ranking, *clicked(past, "unknown"), past.graph)
    assert (online.clicks, online.fusion) == (0, CHOSEN)
