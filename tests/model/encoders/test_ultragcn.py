"""UltraGCN follows the equations of its paper, edge by edge."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model.encoders.histories import Histories
from model.encoders.ultragcn import UltraGCN, co_occurring
from model.settings import TrainingSettings

CLICKS = [[1, 2, 3], [2, 3], [3, 4, 1], [5], [4, 5]]
ITEMS = 5


def histories() -> Histories:
    return Histories(np.cumsum([0, *map(len, CLICKS)]), np.concatenate(CLICKS), np.arange(11) ** 2 * 1000)


def omegas() -> dict[tuple[int, int], float]:
    """Eq. 9: G_ij / (g_i - G_ii) · √(g_i / g_j), where G = AᵀA and g are its row sums."""
    together = np.zeros((ITEMS + 1, ITEMS + 1))
    for clicked in CLICKS:
        for i, j in itertools.product(clicked, repeat=2):
            together[i, j] += 1
    mass = together.sum(1)
    pairs = itertools.permutations(range(1, ITEMS + 1), 2)
    return {
        (i, j): together[i, j] / (mass[i] - together[i, i]) * np.sqrt(mass[i] / mass[j])
        for i, j in pairs
        if together[i, j]
    }


def test_neighbours_are_those_with_the_largest_omega():
    expected = omegas()
    nodes, weights = co_occurring(histories(), ITEMS, count=4)
    for item in range(1, ITEMS + 1):
        own = sorted(((w, j) for (i, j), w in expected.items() if i == item), reverse=True)
        assert [w for w in weights[item] if w] == pytest.approx([w for w, _ in own])
        assert set(nodes[item][weights[item] > 0]) == {j for _, j in own}
    few, fewer_weights = co_occurring(histories(), ITEMS, count=2)
    assert (fewer_weights == weights[:, :2]).all()
    assert few.shape == (ITEMS + 1, 2)
    assert not weights[0].any()


def test_the_loss_sums_edges_negatives_and_a_neighbour():
    torch.manual_seed(0)
    table = torch.nn.Embedding(ITEMS + 1, 4)
    users = torch.randn(len(CLICKS), 4)
    settings = TrainingSettings(negative_weight=3.0, item_item_weight=2.0)
    graph = UltraGCN(histories(), table, users.clone(), settings)
    batch = np.array([2, 0, 3])
    edges = graph.draw(batch, torch.Generator().manual_seed(1))
    drawn = torch.tensor([2, 5])
    loss, view = graph.loss(edges, [table(w) for w in edges.wanted], drawn, table(drawn))
    torch.testing.assert_close(view, users[batch])

    rows, omega = table.weight.detach(), omegas()
    items, neighbours = (w.tolist() for w in edges.wanted)
    assert items == [i for user in batch for i in CLICKS[user]]
    total, edge = 0.0, 0
    for user in batch:
        own = users[user]
        for _ in CLICKS[user]:
            item, neighbour = items[edge], neighbours[edge]
            beside = sum(w for (i, _), w in omega.items() if i == item)
            assert (item, neighbour) in omega
            total += -F.logsigmoid(own @ rows[item]) - 2.0 * beside * F.logsigmoid(own @ rows[neighbour])
            edge += 1
        repelled = [-F.logsigmoid(-own @ rows[j]) for j in drawn.tolist()]
        total += 3.0 * len(CLICKS[user]) * torch.stack(repelled).mean()
    torch.testing.assert_close(loss.detach(), total / edge)
