"""Ablated forms of training: each follows the equations of its paper, and each learns."""

import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.ablations import transfer_views
from benchmarks.ablations.graph_forms import (
    PAPER_WEIGHTS,
    UNIFORM,
    DegreeWeights,
    FadingLightGCN,
    WeightedUltraGCN,
    degree_weights,
    half_life,
    item_view,
)
from benchmarks.ablations.scalable_cross_entropy import scalable, scalable_cross_entropy
from model.encoders.create import Create
from model.encoders.graph_encoder import graph_encoder
from model.encoders.histories import Histories, pack
from model.encoders.ultragcn import UltraGCN
from model.learning.experiment import Experiment, TransferInput
from model.learning.training import Schedule, train, transfer_loss
from model.settings import ModelSettings, TrainingSettings
from tests.model.encoders.test_encoders import ITEMS, SMALL, circles, next_of
from tests.model.encoders.test_ultragcn import CLICKS, histories, omegas

SETTINGS = TrainingSettings()


@pytest.mark.parametrize(
    ("changed", "experiment"),
    [
        ({}, Experiment(item_loss=scalable())),
        ({"transfer": "infonce"}, Experiment(transfer_views=transfer_views.random_position)),
        ({}, Experiment(transfer_views=transfer_views.next_item)),
        ({"graph_encoder": "lightgcn"}, Experiment(transfer_views=transfer_views.next_item)),
        ({}, Experiment(transfer_views=transfer_views.graph_not_moved, graph_encoder=half_life(4.0))),
        ({"graph_encoder": "lightgcn"}, Experiment(graph_encoder=half_life(4.0))),
        ({}, Experiment(transfer_views=transfer_views.sequence_not_moved)),
        ({"w_global": 0.3}, Experiment(graph_encoder=degree_weights(PAPER_WEIGHTS))),
    ],
)
def test_every_form_learns_a_stream_whose_next_item_is_certain(changed, experiment):
    model = Create(ITEMS, SMALL)
    training = msgspec.structs.replace(SETTINGS, **changed)
    schedule = Schedule(epochs=60, learning_rate=5e-3, seed=1, warm_up_epochs=5, from_scratch=True)
    train(model, circles(), training, schedule, experiment=experiment)
    inputs = circles().newest(7)
    scores = model.encode(inputs) @ model.items.weight.T
    scores[:, 0] = -torch.inf
    found = scores.argmax(1).tolist()
    assert sum(a == b for a, b in zip(found, next_of(inputs), strict=True)) >= 22


def test_uniform_weights_without_fading_give_the_loss_of_ultragcn():
    torch.manual_seed(0)
    table, users, drawn = torch.nn.Embedding(6, 4), torch.randn(len(CLICKS), 4), torch.tensor([2, 5])
    losses = []
    for graph in (
        UltraGCN(histories(), table, users.clone(), SETTINGS),
        WeightedUltraGCN(histories(), table, users.clone(), SETTINGS, UNIFORM),
    ):
        edges = graph.draw(np.array([2, 0, 3]), torch.Generator().manual_seed(1))
        losses.append(graph.loss(edges, [table(w) for w in edges.wanted], drawn, table(drawn))[0])
    assert torch.equal(*losses)


def test_ultragcns_loss_has_all_four_weights_and_edges_that_fade():
    torch.manual_seed(0)
    table = torch.nn.Embedding(6, 4)
    users = torch.randn(len(CLICKS), 4)
    settings = TrainingSettings(negative_weight=3.0, item_item_weight=2.0)
    graph = WeightedUltraGCN(histories(), table, users.clone(), settings, DegreeWeights(0.3, 0.7, 0.2, 0.9), 30.0)
    batch = np.array([2, 0, 3])
    edges = graph.draw(batch, torch.Generator().manual_seed(1))
    drawn = torch.tensor([2, 5])
    loss, view = graph.loss(edges, [table(w) for w in edges.wanted], drawn, table(drawn))
    torch.testing.assert_close(view, users[batch])

    rows, omega = table.weight.detach(), omegas()
    degree = {i: sum(i in clicked for clicked in CLICKS) for i in range(1, 6)}

    def beta(user: int, item: int) -> float:
        own = len(CLICKS[user])
        return np.sqrt((own + 1) / (degree[item] + 1)) / own

    items, neighbours = (w.tolist() for w in edges.wanted)
    fading = 0.5 ** ((10**2 - np.arange(11) ** 2) / 30)
    fading /= fading.mean()
    total, edge = 0.0, 0
    for user in batch:
        own = users[user]
        for at in range(*histories().indptr[[user, user + 1]]):
            item, neighbour = items[edge], neighbours[edge]
            beside = sum(w for (i, _), w in omega.items() if i == item)
            total += fading[at] * (0.3 + 0.7 * beta(user, item)) * -F.logsigmoid(own @ rows[item])
            total += 2.0 * fading[at] * beside * -F.logsigmoid(own @ rows[neighbour])
            edge += 1
        repelled = [(0.2 + 0.9 * beta(user, j)) * -F.logsigmoid(-own @ rows[j]) for j in drawn.tolist()]
        total += 3.0 * len(CLICKS[user]) * torch.stack(repelled).mean()
    torch.testing.assert_close(loss.detach(), total / edge)


def test_degree_weights_follow_the_paper():
    settings = TrainingSettings(item_item_weight=0.0)
    table = torch.nn.Embedding(3, 4)
    torch.nn.init.zeros_(table.weight)
    clicked = Histories(np.array([0, 2, 3]), np.array([1, 2, 1]))  # d_u = 2 and 1; d_i = 2 and 1
    graph = WeightedUltraGCN(clicked, table, torch.zeros(2, 4), settings, DegreeWeights(0.0, 1.0, 0.0, 0.0))
    edges = graph.draw(np.arange(2), torch.Generator().manual_seed(0))
    rows = [table(w) for w in edges.wanted]
    found = graph.loss(edges, rows, torch.tensor([1]), table(torch.tensor([1])))[0].item()
    betas = [(3 / 3) ** 0.5 / 2, (3 / 2) ** 0.5 / 2, (2 / 3) ** 0.5 / 1]
    assert found == pytest.approx(np.mean(betas) * np.log(2), rel=1e-5)  # softplus(0) = log 2


def test_lightgcns_messages_fade_with_the_age_of_the_edge():
    table, clicked, users = torch.nn.Embedding(ITEMS + 1, 16), circles(users=5, steps=3), torch.randn(5, 16)
    graph = FadingLightGCN(clicked, table, users, TrainingSettings(graph_encoder="lightgcn"), half_life_s=2.0)
    adjacency = torch.zeros(5 + ITEMS + 1, 5 + ITEMS + 1)
    for user in range(5):
        items = 5 + torch.from_numpy(clicked.items[3 * user : 3 * user + 3])
        adjacency[user, items] = adjacency[items, user] = torch.tensor([0.25, 0.5, 1.0]).sqrt()  # a second apart
    scale = adjacency.sum(1).clamp(min=1e-9).rsqrt()
    normal = scale[:, None] * adjacency * scale
    first = torch.cat([users, table.weight.detach()])
    x = (first + normal @ first + normal @ normal @ first) / 3
    torch.testing.assert_close(graph.item_rows(), x[5:])


def test_an_item_without_neighbours_is_its_own_graph_view():
    table = torch.nn.Embedding(4, 4)
    graph = graph_encoder(Histories(np.array([0, 2, 3]), np.array([1, 2, 3])), table, torch.zeros(2, 4), SETTINGS)
    view = item_view(graph, torch.tensor([3, 1]), torch.Generator().manual_seed(0))
    assert torch.equal(view, table.weight[[3, 2]])


@pytest.mark.parametrize(
    ("views", "still"),
    [
        (transfer_views.newest_position, None),
        (transfer_views.sequence_not_moved, 0),
        (transfer_views.graph_not_moved, 1),
    ],
)
@pytest.mark.parametrize("name", ["barlow_twins", "infonce"])
def test_the_transfer_loss_does_not_move_the_side_that_is_detached(views, still, name):
    leaves = [torch.randn(6, 3, requires_grad=True) for _ in range(2)]
    packed = pack(Histories(np.arange(7), np.ones(6, np.int64)))
    batch = TransferInput(leaves[0], packed, None, None, None, None, leaves[1], None, None)
    transfer_loss(*views(batch), TrainingSettings(transfer=name)).backward()
    assert [n for n, leaf in enumerate(leaves) if leaf.grad is None] == ([] if still is None else [still])


def test_a_random_position_is_in_the_users_own_history():
    inputs = Histories(np.array([0, 3, 4, 9]), np.arange(1, 10))
    packed = pack(inputs)

    def items(seed: int) -> list[int]:
        tokens = packed.items.float()[:, None]
        draw = np.random.default_rng(seed)
        batch = TransferInput(tokens, packed, inputs, None, None, None, torch.zeros(3, 1), draw, None)
        return transfer_views.random_position(batch)[0][:, 0].long().tolist()

    assert [set(drawn) for drawn in zip(*(items(seed) for seed in range(50)), strict=True)] == [
        {1, 2, 3},
        {4},
        {5, 6, 7, 8, 9},
    ]


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_scalable_cross_entropy_with_all_items_in_every_bucket_is_the_softmax():
    torch.manual_seed(0)
    hidden, model, targets = torch.randn(20, 8), Create(30, ModelSettings(dim=8)), torch.randint(30, (20,)) + 1
    full = torch.nn.functional.cross_entropy(hidden @ model.items.weight[1:].T, targets - 1)
    assert scalable_cross_entropy(hidden, model, targets, 4, 64).item() == pytest.approx(full.item(), rel=1e-5)


def in_buckets(hidden: torch.Tensor, table: torch.Tensor, targets: list[int], own: list, near: list) -> torch.Tensor:
    """Scalable cross-entropy, computed directly for given buckets."""
    losses: dict[int, list[torch.Tensor]] = {}
    for outputs, items in zip(own, near, strict=True):
        for output in outputs:
            at = [targets[output], *(item for item in items if item != targets[output])]
            losses.setdefault(output, []).append(-torch.log_softmax(table[at] @ hidden[output], 0)[0])
    assert max(map(len, losses.values())) > 1, "some output must be in two buckets"
    assert len(losses) < len(hidden), "some output must be in no bucket"
    return torch.stack([max(found) for found in losses.values()]).mean()


def test_scalable_cross_entropy_and_its_gradient_equal_the_softmaxes_within_the_buckets():
    torch.manual_seed(0)
    model, hidden = Create(20, ModelSettings(dim=8, init_std=1.0)).double(), rows(12, 8)
    targets = torch.randint(20, (12,)) + 1

    def loss(hidden: torch.Tensor, _table: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)  # the same directions each time
        return scalable_cross_entropy(hidden, model, targets, 3, 5)

    torch.manual_seed(1)
    directions = torch.randn(3, 12, dtype=torch.float64) @ hidden.detach()
    own = (directions @ hidden.T).topk(5, dim=1).indices.tolist()
    near = ((directions @ model.items.weight[1:].T).topk(5, dim=1).indices + 1).tolist()
    expected = in_buckets(hidden, model.items.weight, targets.tolist(), own, near)
    found = loss(hidden, model.items.weight)
    torch.testing.assert_close(found, expected)
    both = [hidden, model.items.weight]
    for one, other in zip(torch.autograd.grad(found, both), torch.autograd.grad(expected, both), strict=True):
        torch.testing.assert_close(one, other)
    assert torch.autograd.gradcheck(loss, both)
