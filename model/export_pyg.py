"""A window of the temporal graph as a graph of PyTorch Geometric, for training or analysis outside Anabranch.

`View.window(start, end)` reads the events. Users and items are numbered in the order of their hashes.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from state.events import Ids, Ints, Records

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData, TemporalData


class Window(NamedTuple):
    """Events as columns, ordered by time."""

    users: Ids
    """Hashes of the users, ascending: user number n is `users[n]`."""
    items: Ids
    user: Ints
    """[N] number of each event's user."""
    item: Ints
    ts: Ints
    kind: Ints
    """[N] code of the kind (`state/kinds.py`)."""


def columns(events: Records) -> Window:
    """EVENT records as columns, with users and items numbered."""
    users, user = np.unique(events["user"], return_inverse=True)
    items, item = np.unique(events["item"], return_inverse=True)
    return Window(users, items, user, item, events["ts"].astype(np.int64), events["kind"].astype(np.int64))


def temporal_data(events: Records) -> "TemporalData":
    """One edge for each event, ordered by time.

    `src` are users, `dst` items numbered after the users, `t` times in ms, `msg` [N, 1] kinds.
    """
    from torch_geometric.data import TemporalData

    window = columns(events)
    return TemporalData(
        src=torch.from_numpy(window.user),
        dst=torch.from_numpy(window.item + len(window.users)),
        t=torch.from_numpy(window.ts),
        msg=torch.from_numpy(window.kind)[:, None],
    )


def hetero_data(events: Records) -> "HeteroData":
    """Nodes `user` and `item` with their hashes as int64 in `id`; edges `(user, to, item)` with `time` and `kind`."""
    from torch_geometric.data import HeteroData

    window, data = columns(events), HeteroData()
    for name, hashes in (("user", window.users), ("item", window.items)):
        data[name].num_nodes = len(hashes)
        data[name].id = torch.from_numpy(hashes.view(np.int64).copy())
    edges = data["user", "to", "item"]
    edges.edge_index = torch.from_numpy(np.stack([window.user, window.item]))
    edges.time, edges.kind = torch.from_numpy(window.ts), torch.from_numpy(window.kind)
    return data
