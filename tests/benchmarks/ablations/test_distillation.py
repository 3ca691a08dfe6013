"""Distillation: the champion's knowledge stays while a candidate learns something else."""

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


def walks(step: int, users: int = 60, length: int = 8) -> Histories:
    """Everybody goes round the items, always so many at a time."""
    items = (np.arange(users)[:, None] + step * np.arange(length)[None, :]) % ITEMS + 1
    return Histories(np.arange(0, users * length + 1, length), items.ravel())


def taught(model: Create, histories: Histories, distillation: Distillation | None = None, epochs: int = 40) -> Create:
    train(
        model, histories, PLAIN, Schedule(epochs=epochs, learning_rate=0.01, seed=1),
        experiment=Experiment(extra_loss=distillation.loss) if distillation else NO_EXPERIMENT,
    )  # fmt: skip
    return model


def but_last(histories: Histories) -> Histories:
    """Without everybody's newest item."""
    kept = np.delete(np.arange(len(histories.items)), histories.indptr[1:] - 1)
    return Histories(histories.indptr - np.arange(len(histories) + 1), histories.items[kept])


def hits(model: Create, step: int) -> float:
    """Share of these walkers whose next item comes first."""
    walked = walks(step)
    scores = model.encode(but_last(walked)) @ model.items.weight.detach().T
    scores[:, 0] = -torch.inf
    return float((ranks_of(scores, torch.from_numpy(walked.items[walked.indptr[1:] - 1])) == 0).mean())


@pytest.fixture(scope="module")
def champion() -> Create:
    """A model that knows one way to go round."""
    torch.manual_seed(0)
    return taught(Create(ITEMS, SMALL), walks(1))


def everything() -> np.ndarray:
    return np.arange(1, ITEMS + 1)


def test_an_old_taste_is_kept_with_distillation_and_lost_without_it(champion):
    assert hits(champion, 1) == 1.0
    forgetful = taught(champion.grown(torch.zeros(0, SMALL.dim)), walks(3))
    # What the old walkers had, without what they had next: only the champion can say that.
    distillation = Distillation(champion, but_last(walks(1)), everything(), 1.0, len(walks(3)))
    mindful = taught(champion.grown(torch.zeros(0, SMALL.dim)), walks(3), distillation)
    assert hits(forgetful, 3) == 1.0
    assert hits(mindful, 3) > 0.8
    assert hits(forgetful, 1) < 0.3
    assert hits(mindful, 1) > 0.8


def test_the_weight_is_equation_4():
    assert adaptive(0.8, 90, 100, 1000, 4000) == pytest.approx(0.8 * math.sqrt(90 / 100 * 1000 / 4000))
    assert adaptive(0.8, 0, 0, 0, 0) == 0.0
    assert adaptive(1.0, 50, 100, 1000, 4000) < adaptive(1.0, 90, 100, 1000, 4000) < adaptive(1.0, 90, 100, 1000, 2000)


def test_the_gradient_reaches_the_candidate_alone(champion):
    candidate = champion.grown(torch.randn(5, SMALL.dim))
    before = [p.clone() for p in champion.parameters()]
    distillation = Distillation(champion, walks(1), everything(), 1.0, 60)
    champion.zero_grad()
    distillation.loss(candidate, 16, torch.arange(1, 26), np.random.default_rng(0)).backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in (candidate.items.weight, candidate.sequence.norm.weight)
    )
    assert all(p.grad is None for p in champion.parameters())
    taught(candidate, walks(3), distillation, epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(before, champion.parameters(), strict=True))


def test_who_says_what_the_champion_said_pays_least(champion):
    distillation, drawn = Distillation(champion, walks(1), everything(), 1.0, 60), torch.arange(1, ITEMS + 1)
    same = champion.grown(torch.zeros(0, SMALL.dim))
    other = Create(ITEMS, SMALL).eval()
    loss = [distillation.loss(model, 60, drawn, np.random.default_rng(0)).item() for model in (same, other)]
    assert loss[0] < loss[1]
    half = Distillation(champion, walks(1), everything(), 0.5, 60)
    assert half.loss(same, 60, drawn, np.random.default_rng(0)).item() == pytest.approx(loss[0] / 2)


def test_nothing_to_keep_costs_nothing(champion):
    nobody = Histories(np.zeros(1, np.int64), np.empty(0, np.int64))
    drawn = torch.arange(1, ITEMS + 1)
    for distillation in (
        Distillation(champion, nobody, everything(), 1.0, 60),
        Distillation(champion, walks(1), everything(), 0.0, 60),
        Distillation(champion, nobody, np.empty(0, np.int64), 1.0, 60),
    ):
        assert distillation.loss(champion, 16, drawn, np.random.default_rng(0)) == 0.0
