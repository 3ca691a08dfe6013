"""Distillation keeps the champion's knowledge while a candidate learns other sequences."""

import math

import numpy as np
import pytest
import torch

from benchmarks.ablations.distillation import Distillation, adaptive
from model.encoders.create import Create
from model.encoders.histories import Histories
from model.learning.experiment import NO_EXPERIMENT, Experiment
from model.learning.training import Schedule, train
from model.metrics import ranks_of
from model.settings import TrainingSettings
from tests.model.examples import SMALL

ITEMS = 20
PLAIN = TrainingSettings(w_transfer=0.0, negatives=ITEMS)


def walk_around(step: int, users: int = 60, length: int = 8) -> Histories:
    """Every user walks around the circle of items, `step` items at a time."""
    items = (np.arange(users)[:, None] + step * np.arange(length)[None, :]) % ITEMS + 1
    return Histories(np.arange(0, users * length + 1, length), items.ravel())


def train_on(model: Create, histories: Histories, distillation: Distillation | None = None, epochs: int = 40) -> Create:
    train(
        model, histories, PLAIN, Schedule(epochs=epochs, learning_rate=0.01, seed=1),
        experiment=Experiment(extra_loss=distillation.loss) if distillation else NO_EXPERIMENT,
    )  # fmt: skip
    return model


def without_last(histories: Histories) -> Histories:
    """The histories without the newest item of each user."""
    kept = np.delete(np.arange(len(histories.items)), histories.indptr[1:] - 1)
    return Histories(histories.indptr - np.arange(len(histories) + 1), histories.items[kept])


def hits(model: Create, step: int) -> float:
    """Share of these users whose next item is ranked first."""
    histories = walk_around(step)
    scores = model.encode(without_last(histories)) @ model.items.weight.detach().T
    scores[:, 0] = -torch.inf
    return float((ranks_of(scores, torch.from_numpy(histories.items[histories.indptr[1:] - 1])) == 0).mean())


@pytest.fixture(scope="module")
def champion() -> Create:
    """A model that has learned walks of step 1."""
    torch.manual_seed(0)
    return train_on(Create(ITEMS, SMALL), walk_around(1))


def all_items() -> np.ndarray:
    return np.arange(1, ITEMS + 1)


def test_old_sequences_are_remembered_with_distillation_and_forgotten_without_it(champion):
    assert hits(champion, 1) == 1.0
    without_distillation = train_on(champion.grown(torch.zeros(0, SMALL.dim)), walk_around(3))
    # The old sequences without their last items: only the champion can supply those.
    distillation = Distillation(champion, without_last(walk_around(1)), all_items(), 1.0, len(walk_around(3)))
    with_distillation = train_on(champion.grown(torch.zeros(0, SMALL.dim)), walk_around(3), distillation)
    assert hits(without_distillation, 3) == 1.0
    assert hits(with_distillation, 3) > 0.8
    assert hits(without_distillation, 1) < 0.3
    assert hits(with_distillation, 1) > 0.8


def test_the_weight_follows_equation_4():
    assert adaptive(0.8, 90, 100, 1000, 4000) == pytest.approx(0.8 * math.sqrt(90 / 100 * 1000 / 4000))
    assert adaptive(0.8, 0, 0, 0, 0) == 0.0
    assert adaptive(1.0, 50, 100, 1000, 4000) < adaptive(1.0, 90, 100, 1000, 4000) < adaptive(1.0, 90, 100, 1000, 2000)


def test_the_gradient_reaches_only_the_candidate(champion):
    candidate = champion.grown(torch.randn(5, SMALL.dim))
    before = [p.clone() for p in champion.parameters()]
    distillation = Distillation(champion, walk_around(1), all_items(), 1.0, 60)
    champion.zero_grad()
    distillation.loss(candidate, 16, torch.arange(1, 26), np.random.default_rng(0)).backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in (candidate.items.weight, candidate.sequence.norm.weight)
    )
    assert all(p.grad is None for p in champion.parameters())
    train_on(candidate, walk_around(3), distillation, epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(before, champion.parameters(), strict=True))


def test_the_loss_is_smallest_for_a_model_that_answers_as_the_champion_does(champion):
    distillation, drawn = Distillation(champion, walk_around(1), all_items(), 1.0, 60), torch.arange(1, ITEMS + 1)
    same = champion.grown(torch.zeros(0, SMALL.dim))
    other = Create(ITEMS, SMALL).eval()
    loss = [distillation.loss(model, 60, drawn, np.random.default_rng(0)).item() for model in (same, other)]
    assert loss[0] < loss[1]
    half = Distillation(champion, walk_around(1), all_items(), 0.5, 60)
    assert half.loss(same, 60, drawn, np.random.default_rng(0)).item() == pytest.approx(loss[0] / 2)


def test_without_exemplars_or_weight_or_shared_items_the_loss_is_0(champion):
    no_exemplars = Histories(np.zeros(1, np.int64), np.empty(0, np.int64))
    drawn = torch.arange(1, ITEMS + 1)
    for distillation in (
        Distillation(champion, no_exemplars, all_items(), 1.0, 60),
        Distillation(champion, walk_around(1), all_items(), 0.0, 60),
        Distillation(champion, no_exemplars, np.empty(0, np.int64), 1.0, 60),
    ):
        assert distillation.loss(champion, 16, drawn, np.random.default_rng(0)) == 0.0
