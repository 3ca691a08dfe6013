"""The reasons of a recommended item: one or two of the user's newest items that count most for it.

The strength of an own item is its evidence for the recommended item. For a recommended item without evidence the
cosine of the two item rows is used, scaled so that it is below any evidence.
"""

import numpy as np
import torch
from torch import Tensor

from model.encoders.vocabulary import Indices, Vocabulary
from model.ranking.candidates import Candidates
from model.ranking.context import Context
from model.ranking.graph_evidence import Entries, directed_counts
from model.ranking.reason_kinds import KindsOfReasons
from model.ranking.recommended_cells import recommended_cells
from state.events import Floats, Ids

COSINE_SCALE = 1e-3
SECOND_REASON_SHARE = 0.5
"""A second reason is given if it has at least this share of the first reason's strength."""


def no_reasons(recommended: Indices) -> tuple[Ids, KindsOfReasons]:
    """Where reasons are not wanted, for recommended columns [B, k]."""
    return np.zeros((*recommended.shape, 2), np.uint64), np.zeros(recommended.shape, np.int8)


def reasons(
    history: Ids,
    strengths: Floats,
    recommended: Indices,
    table: Tensor,
    vocabulary: Vocabulary,
    withdrawn: Ids,
) -> Ids:
    """Own items [B, k, 2] for the recommended columns [B, k], the stronger first; 0 = none. None is `withdrawn`.

    `history` [B, H] are the users' newest items, `strengths` [B, k, H] the evidence of each for each recommended
    column, `table` [C, d] the item rows.
    """
    unexplained = np.flatnonzero(~np.all(np.any(strengths, 2), 1))
    if len(unexplained):
        own = vocabulary.lookup(history[unexplained])
        strengths[unexplained] += COSINE_SCALE * cosines(table, recommended[unexplained], own)
    exclude_repeated(strengths, history)
    because = two_strongest(strengths, history)
    because[recommended == 0] = 0
    if len(withdrawn):  # a reason names an item too
        because[np.isin(because, withdrawn)] = 0
    return because


def link_strengths(context: Context, items: Candidates, at: Indices, before: float) -> Floats:
    """`evidence_strengths` of recommended candidate items, given by their places [B, k], -1 = none."""
    users, width = at.shape
    strengths = np.zeros((users * width, context.history.shape[1]), np.float32)
    cell_of = np.full(len(items.keys) + 1, -1)
    cell_of[at.ravel()] = np.arange(users * width)  # the last one takes all the -1
    cell_of[-1] = -1
    cell = cell_of[items.links.at]
    hit = np.flatnonzero(cell >= 0)
    age = items.links.age[hit]
    near = context.neighbours
    weight = directed_counts(near.after, near.before, before).ravel()[items.links.entry[hit]]
    damping = context.counts.damping[items.column[items.links.at[hit]]]
    strengths[cell[hit], age] = weight * damping * (context.settings.age_decay**age).astype(np.float32)
    return strengths.reshape(users, width, -1)


def evidence_strengths(history: Ids, entries: Entries, recommended: Indices, columns: int) -> Floats:
    """[B, k, H]: the weight of the entries between each recommended column and each item of the history."""
    users, width = recommended.shape
    strengths = np.zeros((users, width, history.shape[1]), np.float32)
    if not len(entries.user):
        return strengths
    hit, user, slot = recommended_cells(entries.user, entries.column, recommended, columns)
    step = (history[user] == entries.source[hit][:, None]).argmax(1)
    np.add.at(strengths, (user, slot, step), entries.weight[hit])
    return strengths


def cosines(table: Tensor, recommended: Indices, own: Indices) -> Floats:
    """[B, k, H]: cosines of the rows of recommended columns [B, k] and own ones [B, H]; 0 for padding."""
    rows = (torch.nn.functional.normalize(table[torch.from_numpy(columns)], dim=-1) for columns in (recommended, own))
    found: Floats = torch.einsum("bkd,bhd->bkh", *rows).numpy()
    return found


def exclude_repeated(strengths: Floats, history: Ids) -> None:
    """Set strengths [B, k, H] to -1 where the history has no item, and where it has a newer click on the same item."""
    strengths[np.broadcast_to(history[:, None, :] == 0, strengths.shape)] = -1.0
    for later in range(1, history.shape[1]):
        repeated = (history[:, :later] == history[:, later : later + 1]).any(1)
        strengths[repeated, :, later] = -1.0


def two_strongest(strengths: Floats, history: Ids) -> Ids:
    """[B, k, 2] items of the history with the largest strengths [B, k, H]. A second one that is too weak is 0."""
    steps = history.shape[1]
    order = np.argsort(-strengths, axis=2)[:, :, :2]
    if steps < 2:
        order = np.concatenate([order, order], 2)[:, :, :2]
    found = np.take_along_axis(strengths, order, 2)
    chosen = np.take_along_axis(np.broadcast_to(history[:, None, :], strengths.shape), order, 2).copy()
    first, second = found[:, :, 0], found[:, :, 1]
    chosen[:, :, 0][first < 0] = 0
    chosen[:, :, 1][(second < SECOND_REASON_SHARE * first) | (second <= 0) | (steps < 2)] = 0
    return chosen
