"""Items that are clicked together lie near each other in the table of the graph."""

import numpy as np
import torch

from model.encoders.graph_table import DIM, graph_table
from model.encoders.vocabulary import Vocabulary
from state.events import make_events
from state.graph import MemoryGraph
from state.settings import StateSettings


def two_shops(users: int = 60) -> MemoryGraph:
    """Users click items of their own half only: 1 to 10, or 11 to 20."""
    draw = np.random.default_rng(0)
    graph = MemoryGraph(StateSettings())
    rows = [(user, item + 10 * (user % 2)) for user in range(1, users + 1) for item in draw.integers(1, 11, 8)]
    user, item = zip(*rows, strict=True)
    graph.apply(make_events(list(user), list(item), ts=1_600_000_000_000 + 1000 * np.arange(len(rows))))
    return graph


def vocabulary_of(*items: int) -> Vocabulary:
    return Vocabulary(np.array(items, np.uint64), [str(item) for item in items])


def test_items_of_one_half_are_near_each_other_and_far_from_the_other_half():
    table = graph_table(vocabulary_of(*range(1, 21)), two_shops().rows).float()
    assert table.shape == (21, DIM)
    assert torch.allclose(table[1:].norm(dim=1), torch.ones(20), atol=1e-2)
    cosines = table[1:] @ table[1:].T
    within, across = cosines[:10, :10].mean(), cosines[:10, 10:].mean()
    assert within > across + 0.2


def test_padding_a_free_index_and_an_item_without_neighbours_have_no_row():
    vocabulary = vocabulary_of(*range(1, 21), 999).release(np.array([3], np.uint64))
    table = graph_table(vocabulary, two_shops().rows)
    assert not table[[0, 3, 21]].any()
    assert table[4].any()


def test_the_same_graph_gives_the_same_table():
    one, again = (graph_table(vocabulary_of(*range(1, 21)), two_shops().rows) for _ in range(2))
    assert torch.equal(one, again)


def test_a_graph_without_pairs_gives_a_table_of_zeros():
    graph = MemoryGraph(StateSettings())
    assert not graph_table(vocabulary_of(1, 2), graph.rows).any()
    assert graph_table(vocabulary_of(), graph.rows).shape == (1, DIM)
