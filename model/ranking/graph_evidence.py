"""Evidence and repeats: what a user's newest items and the live graph add to a score.

Serving and evaluation run the same code.

Evidence for item j of a user whose item of age a is i_a (0 = newest):

    v_j = log(1 + 50 · Σ_a age_decay^a · c(i_a, j) / √n_j)        c(i, j) = g_ij / √(Σ_j g_ij)
                                                                  g_ij = after_ij + β · before_ij,  n_j = clicks of j

Direction matters in some streams and not in others, so β is chosen with the weights
(`model.fusion_weights.fit_weights`). `model.ranking.item_counts` counts n_j and gives 1 / √n_j.

Repeats of the user's own item j, summed over the ages a of its clicks:

    r_j = log(1 + Σ_a repeat_decay^a)
"""

from typing import NamedTuple

import numpy as np

from model.encoders.vocabulary import Indices
from model.ranking.catalogue import ColumnsOf, RowsOf
from state.events import Floats, Ids
from state.sequences import Sequences

EVIDENCE_SHARPNESS = 50.0
REPEAT_SHARPNESS = 1.0
MIN_WEIGHT = 1e-6
"""Entries of a smaller weight are left out."""


class Entries(NamedTuple):
    """Evidence before the sum: one entry for a user, an item of the user and a neighbour of that item."""

    user: Indices
    """[M] row of the user."""
    source: Ids
    """[M] the item of the user."""
    column: Indices
    """[M] column of the neighbour; 0 if it has none."""
    weight: Floats
    """[M] age_decay^a · c(i_a, j), not yet divided by √n_j."""


class Repeats(NamedTuple):
    """Repeats before the sum: one entry for a step of a user's sequence."""

    user: Indices
    """[M] row of the user."""
    column: Indices
    """[M] column of the item; 0 if it has none."""
    weight: Floats
    """[M] repeat_decay^a."""


NO_ENTRIES = Entries(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.float32))


def newest_items(sequences: Sequences, count: int) -> Ids:
    """Each user's newest items, newest first, [B, count]; 0 where a user has fewer."""
    back = np.arange(count)
    at = sequences.indptr[1:, None] - 1 - back[None, :]
    real = at >= sequences.indptr[:-1, None]
    items = np.zeros(at.shape, np.uint64)
    items[real] = sequences.steps["item"][at[real]]
    return items


def evidence_of(history: Ids, rows_of: RowsOf, columns_of: ColumnsOf, age_decay: float, before: float) -> Entries:
    """Entries of the users' newest items [B, H], newest first. Reads the graph once, a row for each item."""
    sources = np.unique(history)
    sources = sources[sources != 0]
    if not len(sources):
        return NO_ENTRIES
    rows = rows_of(sources)
    scaled = directed_counts(rows.after, rows.before, before)
    user, age = np.nonzero(history)
    row = np.searchsorted(sources, history[user, age])
    weight = scaled[row] * (age_decay**age).astype(np.float32)[:, None]
    entry, slot = np.nonzero(weight > MIN_WEIGHT)
    neighbours = rows.nodes[row][entry, slot]
    return Entries(user[entry], history[user, age][entry], columns_of(neighbours), weight[entry, slot])


def directed_counts(after: Floats, before: Floats, share: float) -> Floats:
    """c(i, j) of rows [S, K], with the share β of neighbours before an item."""
    counts = after + np.float32(share) * before if share else after
    found: Floats = counts / np.sqrt(np.maximum(counts.sum(1, keepdims=True), 1e-9))
    return found


def repeats_of(sequences: Sequences, columns_of: ColumnsOf, decay: float) -> Repeats:
    """Entries of all steps of the users' sequences."""
    lengths = np.diff(sequences.indptr)
    user = np.repeat(np.arange(len(lengths)), lengths)
    age = np.repeat(sequences.indptr[1:], lengths) - 1 - np.arange(len(sequences.steps))
    return Repeats(user, columns_of(sequences.steps["item"]), (decay**age).astype(np.float32))
