"""Users of each epoch, terms of the loss, learning rates, and item rows of one length."""

import msgspec
import numpy as np
import pytest
import torch

from model.encoders.create import Create
from model.encoders.graph_encoder import graph_encoder
from model.encoders.histories import Histories
from model.encoders.sasrec import SASRec
from model.learning import training
from model.learning.experiment import NO_EXPERIMENT, Experiment
from model.learning.training import Schedule, init_item_table, train
from model.settings import ModelSettings, TrainingSettings

SHAPE = ModelSettings(dim=16, dropout=0.0)
PLAIN = TrainingSettings(w_transfer=0.0, batch_users=4)


def pairs(users: int, items: int) -> Histories:
    """User r clicked item r + 1 and the item after it."""
    first = np.arange(users) % (items - 1) + 1
    return Histories(np.arange(0, 2 * users + 1, 2), np.stack([first, first + 1], 1).ravel())


def train_on_pairs(epochs: int, model: Create, experiment: Experiment = NO_EXPERIMENT) -> None:
    train(model, pairs(20, 21), PLAIN, Schedule(epochs=epochs, learning_rate=3e-3, seed=1), experiment=experiment)


def test_item_and_user_rows_are_scaled_alike_after_the_warm_up():
    model, users = Create(21, SHAPE), torch.randn(20, 16)
    torch.nn.init.normal_(model.items.weight)
    before = model.items.weight.detach().clone()
    graph = graph_encoder(pairs(20, 21), model.items, users.clone(), PLAIN)
    init_item_table(model, graph, 0.15, torch.Generator())
    factor = 0.15 / before[1:].std()
    torch.testing.assert_close(model.items.weight[1:].detach(), before[1:] * factor)
    torch.testing.assert_close(graph.users.rows, users * factor)
    assert not model.items.weight[0].any()


@pytest.mark.parametrize("term", ["w_global", "w_transfer"])
@pytest.mark.parametrize("graph", ["ultragcn", "lightgcn"])
def test_every_term_of_the_joint_loss_changes_the_weights(term, graph):
    tables = []
    for weight in (1e-9, 1e-9, 0.5):  # not 0: without draws of the graph the negatives would differ
        torch.manual_seed(0)
        model = Create(21, SHAPE)
        settings = msgspec.structs.replace(PLAIN, graph_encoder=graph, **{term: weight})
        train(
            model,
            pairs(20, 21),
            settings,
            Schedule(epochs=2, learning_rate=3e-3, seed=1, warm_up_epochs=1, from_scratch=True),
        )
        tables.append(model.items.weight.detach())
    assert torch.equal(tables[0], tables[1])
    assert not torch.allclose(tables[0], tables[2], atol=1e-3)


def test_user_rows_have_their_own_learning_rate_in_the_joint_epochs():
    tables = []
    for rate in (1e-9, 0.1):
        torch.manual_seed(0)
        model, settings = Create(21, SHAPE), msgspec.structs.replace(PLAIN, w_transfer=0.5)
        schedule = Schedule(epochs=3, learning_rate=3e-3, seed=1, warm_up_epochs=1, from_scratch=True)
        train(model, pairs(20, 21), settings, schedule, experiment=Experiment(user_learning_rate=rate))
        tables.append(model.items.weight.detach())
    assert not torch.allclose(*tables, atol=1e-3)


def test_a_user_of_once_is_learned_in_one_epoch_and_every_other_user_in_all(monkeypatch):
    seen = list[np.ndarray]()
    examples = SASRec.examples

    def watched(self: SASRec, histories: Histories, limit: int, draw: np.random.Generator) -> object:
        seen.append(histories.items[::2])
        return examples(self, histories, limit, draw)

    monkeypatch.setattr(SASRec, "examples", watched)
    train_on_pairs(4, Create(21, SHAPE), Experiment(once=np.arange(8, 20)))
    times = np.bincount(np.concatenate(seen), minlength=21)[1:]
    assert times.tolist() == [4] * 8 + [1] * 12
    assert [len(batch) for batch in seen] == [4, 4, 3] * 4


def test_learning_some_users_once_is_deterministic_too():
    one, two = Create(21, SHAPE), Create(21, SHAPE)
    two.load_state_dict(one.state_dict())
    for model in (one, two):
        train_on_pairs(3, model, Experiment(once=np.arange(8, 20)))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("loss", ["full", "sampled"])
def test_rows_of_a_fixed_length_have_that_length_and_learn(loss):
    model = Create(21, ModelSettings(dim=16, dropout=0.0, row_length=0.7))
    users = pairs(20, 21)
    settings = TrainingSettings(loss=loss, batch_users=4)
    train(model, users, settings, Schedule(epochs=60, learning_rate=1e-2, seed=1, warm_up_epochs=2, from_scratch=True))
    lengths = model.items.weight.detach().norm(dim=1)
    torch.testing.assert_close(lengths[1:], torch.full((21,), 0.7))
    assert lengths[0] == 0
    # Published rows already have the length, so scoring does not change them.
    torch.testing.assert_close(model.table(), model.items.weight)
    scores = model.encode(Histories(np.arange(21), np.arange(1, 21))) @ model.items.weight.T
    scores[:, 0] = -torch.inf
    assert (scores.argmax(1).numpy() == np.arange(2, 22)).mean() > 0.9


def test_rows_have_different_lengths_by_default():
    model = Create(21, SHAPE)
    train_on_pairs(3, model)
    assert model.items.weight.detach().norm(dim=1)[1:].std() > 0.01


def test_item_rows_have_a_fixed_scale_after_the_warm_up():
    model = Create(21, SHAPE)
    warmed = Schedule(epochs=0, learning_rate=1.0, seed=1, warm_up_epochs=3, from_scratch=True)
    train(model, pairs(20, 21), PLAIN, warmed)
    assert model.items.weight[1:].std().item() == pytest.approx(0.15)
    train(model, pairs(20, 21), PLAIN, warmed, experiment=Experiment(table_std=0.4))
    assert model.items.weight[1:].std().item() == pytest.approx(0.4)
    assert not model.items.weight[0].any()
    train(model, pairs(20, 21), PLAIN, warmed._replace(warm_up_epochs=0))
    assert model.items.weight[1:].std().item() == pytest.approx(SHAPE.init_std, rel=0.1)


def test_an_epoch_without_users_still_counts():
    settings, everyone = TrainingSettings(), np.arange(2)
    schedule = Schedule(epochs=4, learning_rate=1e-3, seed=1, from_scratch=True)
    spent = train(Create(21, SHAPE), pairs(2, 21), settings, schedule, experiment=Experiment(once=everyone))
    assert spent.epochs == 4
    assert np.isfinite(spent.loss)


def test_the_learning_rate_falls_along_half_a_cosine(monkeypatch):
    rates = list[float]()
    real = training.step

    def step(loss: torch.Tensor, model: Create, optimizers: list[torch.optim.Optimizer], graph: object) -> None:
        rates.append(optimizers[0].param_groups[0]["lr"])
        real(loss, model, optimizers, graph)

    monkeypatch.setattr(training, "step", step)
    train_on_pairs(4, Create(21, SHAPE))
    per_epoch = [3e-3 * (1 + np.cos(np.pi * epoch / 4.4)) / 2 for epoch in range(4)]
    assert rates[::5] == pytest.approx(per_epoch)
    assert rates == pytest.approx(np.repeat(per_epoch, 5))
