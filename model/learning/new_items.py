"""Rows of the item table for items that the champion does not know."""

import numpy as np
import torch

from model.encoders.create import Create
from model.encoders.vocabulary import Vocabulary
from model.ranking.catalogue import mean_neighbour_rows
from state.events import Ids
from state.graph import Rows


def add_items(net: Create, vocabulary: Vocabulary, names: dict[int, str]) -> tuple[Vocabulary, Create]:
    """Add items (id by hash) with random rows. Free indices are used first, the rest is appended."""
    new = np.fromiter(names, np.uint64, len(names))
    random_rows = torch.randn(len(new), net.settings.dim) * net.settings.init_std
    settled = vocabulary.settle(new, list(names.values()))
    grown = net.grown(torch.zeros(len(settled) - len(vocabulary), net.settings.dim))
    with torch.no_grad():
        grown.items.weight[torch.from_numpy(vocabulary.free)] = 0.0
        grown.items.weight[torch.from_numpy(settled.lookup(new))] = random_rows
    return settled, grown


def init_new_item_rows(net: Create, vocabulary: Vocabulary, items: Ids, graph_rows: Rows, known: Vocabulary) -> None:
    """Set the row of each item from its neighbours in the graph. An item without a `known` neighbour keeps its row."""
    rows, has_neighbours = mean_neighbour_rows(items, graph_rows, known, net.items.weight.detach())
    with torch.no_grad():
        at = torch.from_numpy(vocabulary.lookup(items[has_neighbours]))
        net.items.weight[at] = rows[torch.from_numpy(has_neighbours)]
