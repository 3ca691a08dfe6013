"""Cosines of a candidate item's row in the graph's table T (`model/encoders/graph_table.py`).

    graph_newest   T_j · T_i_0, i_0 = the user's newest item
    graph_mean     T_j · mean of T_i_a over the newest `ranking.history_items` items

Both are 0 for an item that the version does not know.
"""

import numpy as np

from model.ranking.candidates import Candidates
from model.ranking.context import Context
from model.ranking.families.columns import Columns
from model.ranking.fusion import Fusion
from state.sorting import begins

GRAPH = ("graph_newest", "graph_mean")


def graph(context: Context, items: Candidates, fusion: Fusion, out: Columns) -> None:
    """Write GRAPH."""
    table = context.catalogue.graph_table
    if table is None or not len(context.steps_column):
        return
    recent = context.steps_age < context.settings.history_items
    owner, column = context.steps_user[recent], context.steps_column[recent]
    known = (column > 0) & (column < len(table))
    rows = np.where(known[:, None], table[np.where(known, column, 0)], np.float32(0.0))
    starts = np.flatnonzero(begins(owner))
    profiles = np.zeros((context.users, 2, table.shape[1]), np.float32)
    users = owner[starts]
    steps = np.minimum(context.lengths[users], context.settings.history_items)
    profiles[users, 0] = rows[np.append(starts[1:], len(owner)) - 1]
    profiles[users, 1] = np.add.reduceat(rows, starts) / steps[:, None]
    column = np.where(items.column < len(table), items.column, 0)
    for start, length in zip(items.starts.tolist(), items.lengths.tolist(), strict=True):
        of = slice(start, start + length)  # user by user: the rows of all users at once do not fit into the cache
        newest, mean = profiles[items.user[start]] @ table[column[of]].T
        out["graph_newest"][of], out["graph_mean"][of] = newest, mean
