"""A window of the temporal graph becomes a graph of PyTorch Geometric."""

import numpy as np
import torch

from model.export_pyg import hetero_data, temporal_data
from state.events import make_events

EVENTS = make_events([7, 9, 7], [100, 100, 2**63 + 5], ts=[10, 20, 30], offset=[0, 1, 2], kind=[0, 3, 6])


def test_every_event_is_an_edge_with_its_time():
    data = temporal_data(EVENTS)
    assert data.src.tolist() == [0, 1, 0]
    assert data.dst.tolist() == [2, 2, 3], "items are numbered after the users"
    assert data.t.tolist() == [10, 20, 30]
    assert data.msg.tolist() == [[0], [3], [6]]


def test_nodes_have_their_hashes():
    data = hetero_data(EVENTS)
    assert data["user"].id.tolist() == [7, 9]
    assert data["item"].id.numpy().view(np.uint64).tolist() == [100, 2**63 + 5]
    edges = data["user", "to", "item"]
    assert torch.equal(edges.edge_index, torch.tensor([[0, 1, 0], [0, 0, 1]]))
    assert (edges.time.tolist(), edges.kind.tolist()) == ([10, 20, 30], [0, 3, 6])
    assert data.validate()
