"""What the live graph says of every item, given a user's newest items; the same code online and offline.

Item-item evidence of item j for a user whose item of age a (0 = newest) is i_a:

    t_j = log(1 + 50 · Σ_a age_decay^a · c(i_a, j))        c(i, j) = g_ij / sqrt(n_j · Σ_j g_ij)
                                                           g_ij = after_ij + β · before_ij,  n_j = clicks of j

Whether direction matters differs between streams: β is chosen with the weights (`model.fusion_weights.holdout`). 1 /
√n_j is the
ranking's to add (`model.ranking.popularity`): it knows n_j of every column. Repeat evidence is the user's own:
r_j = log(1 + Σ repeat_decay^a) over the ages a at which the user had j.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from state.events import Floats, Ids
from state.graph import Rows
from state.sequences import Sequences

SHARPNESS = 50.0


class Spoken(NamedTuple):
    """The slots that speak for a batch of users: one entry a (user, item of the user, neighbour of that item)."""

    user: npt.NDArray[np.int64]
    """[M] row of the user."""
    source: Ids
    """[M] the user's item that speaks."""
    item: Ids
    """[M] the item it speaks for."""
    weight: Floats
    """[M] age_decay^a · c(i_a, j), without n_j at first."""


def newest_items(sequences: Sequences, count: int) -> Ids:
    """Each user's newest items, newest first, [B, count], 0 where there are fewer."""
    back = np.arange(count)
    at = sequences.indptr[1:, None] - 1 - back[None, :]
    real = at >= sequences.indptr[:-1, None]
    items = np.zeros(at.shape, np.uint64)
    items[real] = sequences.steps["item"][at[real]]
    return items


def speak(history: Ids, known: Ids, rows: Rows, age_decay: float, before: float) -> Spoken:
    """Item-item evidence of users' newest items [B, H], newest first; `rows` are the rows of `known`, sorted."""
    counts = rows.after + np.float32(before) * rows.before if before else rows.after
    scaled = counts / np.sqrt(np.maximum(counts.sum(1), 1e-9))[:, None]
    user, age = np.nonzero(history)
    row = np.searchsorted(known, history[user, age])
    weight = scaled[row] * (age_decay**age).astype(np.float32)[:, None]
    nodes = rows.nodes[row]
    entry, slot = np.nonzero(weight > 1e-6)
    return Spoken(user[entry], history[user, age][entry], nodes[entry, slot], weight[entry, slot])


def repeats(sequences: Sequences, decay: float) -> tuple[npt.NDArray[np.int64], Ids, Floats]:
    """Repeat evidence before the logarithm, one entry a step: user row, item, weight."""
    lengths = np.diff(sequences.indptr)
    user = np.repeat(np.arange(len(lengths)), lengths)
    age = np.repeat(sequences.indptr[1:], lengths) - 1 - np.arange(len(sequences.steps))
    return user, sequences.steps["item"], (decay**age).astype(np.float32)
