"""The protocols: what is learned from, what is tested, and that nothing leaks from the one into the other."""

import numpy as np
import pytest
import torch

from model import evaluation
from model.evaluation import OfCounts, as_events, breadth, global_temporal, ranked_tests, rivals, split
from model.increment import Trained
from model.settings import ModelSettings, RankingSettings, TrainingSettings
from state.settings import StateSettings

SETTINGS = {
    "model": ModelSettings(dim=8),
    "training": TrainingSettings(warm_up_epochs=1, epochs=2, negatives=8),
    "ranking": RankingSettings(),
    "state": StateSettings(),
    "seed": 0,
}


def stream(events: int = 400, seed: int = 0) -> tuple[list[str], list[str], np.ndarray]:
    draw = np.random.default_rng(seed)
    users = [f"user-{u}" for u in draw.integers(0, 20, events)]
    items = [f"item-{i}" for i in draw.integers(0, 30, events)]
    return users, items, 1_500_000_000_000 + np.arange(events) * 1000


def test_events_of_one_moment_lie_on_the_same_side_of_the_cut():
    users, items, _ = stream(100)
    ts = np.repeat(np.arange(10), 10) * 1000 + 1_500_000_000_000
    cut = split(*as_events(users, items, ts), 0.85, StateSettings())
    assert len(cut.past.steps) == 90
    assert cut.past.steps["ts"].max() == ts[89]


def test_successive_tests_have_all_their_users_events_before_and_last_is_the_newest():
    users = ["ann"] * 10
    items = [f"item-{n % 4}" for n in range(10)]
    cut = split(*as_events(users, items, 1_500_000_000_000 + np.arange(10) * 1000), 0.65, StateSettings())
    assert np.diff(cut.tests.indptr).tolist() == [6, 7, 8, 9]
    assert cut.last.tolist() == [False, False, False, True]


def test_items_the_past_does_not_know_are_counted_as_cold():
    users, items, ts = stream()
    items[-3:] = ["new-1", "new-2", "new-3"]
    assert split(*as_events(users, items, ts), 0.9, StateSettings()).cold == 3


def test_a_seen_item_is_filtered_but_not_where_it_is_what_came():
    users, items, ts = ["ann"] * 6, ["a", "a", "b", "c", "a", "b"], 1_500_000_000_000 + np.arange(6) * 1000
    cut = split(*as_events(users, items, ts), 0.7, StateSettings())
    scores = torch.tensor([[9.0, 3.0, 2.0, 1.0]])
    order = [cut.vocabulary.ids.index(i) + 1 for i in "abc"]
    placed = torch.zeros(1, 4)
    placed[0, order] = scores[0, 1:]
    ranks = ranked_tests(cut, OfCounts(cut, lambda histories: placed.expand(len(histories), -1)))
    assert ranks["unfiltered"].ranks.tolist() == [0, 1]
    assert ranks["filtered"].ranks.tolist() == [0, 0]


def changed_after(moment: int, items: list[str]) -> list[str]:
    return items[:moment] + [f"item-{n % 30}" for n in range(len(items) - moment)]


@pytest.fixture
def learned(monkeypatch):
    """Everything the protocols learn, in order."""
    found: list[Trained] = []
    real = evaluation.learn
    monkeypatch.setattr(evaluation, "learn", lambda *a, **k: found.append(real(*a, **k)) or found[-1])
    return found


def same(one: Trained, other: Trained) -> bool:
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return one.fusion == other.fusion and all(torch.equal(a, b) for a, b in pairs)


def test_nothing_after_the_cut_reaches_what_is_learned(learned):
    users, items, ts = stream()
    for version in (items, changed_after(361, items)):
        global_temporal(users, version, ts, **SETTINGS)
    assert all(same(one, other) for one, other in zip(learned[:2], learned[2:], strict=True))


def test_the_document_has_all_names_and_both_targets():
    found = global_temporal(*stream(), **SETTINGS)
    assert {"create", "create+graph", "sasrec", "sasrec+graph", "popularity", "item-kNN"} <= set(found["models"])
    for scores in found["models"].values():
        assert set(scores) == {"last", "successive"}
        assert set(scores["last"]) == {"ndcg@10", "recall@10", "recall@20", "mrr"}
        assert 0 < scores["successive"]["coverage@10"] <= 1


def test_popularity_shows_everybody_the_same_and_more_popular_items_than_people_choose():
    cut = split(*as_events(*stream()), 0.9, StateSettings())
    shown = ranked_tests(cut, OfCounts(cut, rivals(cut)["popularity"]))["unfiltered"].shown
    found = breadth(cut, shown)
    assert found["coverage@10"] == round(10 / len(cut.vocabulary), 4)
    assert found["popularity_bias"] > 1


@pytest.mark.parametrize("name", ["popularity", "transitions", "item-kNN"])
def test_a_rival_scores_what_it_counted(name):
    users = ["ann", "ann", "ann", "bob", "bob", "bob", "cid", "cid"]
    items = ["a", "b", "c", "a", "b", "a", "a", "b"]
    cut = split(*as_events(users, items, 1_500_000_000_000 + np.arange(8) * 1000), 0.8, StateSettings())
    scores = OfCounts(cut, rivals(cut)[name]).scores(cut.tests)
    after_a = cut.vocabulary.ids.index("b") + 1
    assert scores[-1].argmax().item() in (after_a, cut.vocabulary.ids.index("a") + 1)
