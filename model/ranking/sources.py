"""Sources: each proposes candidate items for every user of a batch, as pairs of user row and column.

    own          the user's own items, the newest first
    followers    what followed the user's newest items
    co_occurring what was clicked near the user's newest items
    popular      the most popular items at several half-lives
    encoder      the items that the sequence encoder predicts

To add a source, write a function here and add it to SOURCES. A source is bounded: a ranking costs the same with a
million items.
"""

from collections.abc import Callable

import numpy as np
import torch

from model.encoders.vocabulary import Indices
from model.ranking.best_columns import best_columns
from model.ranking.context import Context
from state.sorting import distinct

Pairs = tuple[Indices, Indices]
"""Rows of users [M] and columns [M]; column 0 is dropped later, and so are repeats."""

NO_PAIRS: Pairs = np.zeros(0, np.int64), np.zeros(0, np.int64)

OWN_ITEMS = 100
"""Newest steps of a user whose items are proposed."""
OF_NEWEST = (30, 15, 10)
"""Neighbours that are proposed for each of the newest items: of the newest one, of the one before, ..."""
POPULAR_ITEMS = 15
"""Most popular items of each half-life."""
ENCODER_ITEMS = 50
"""Best items by the sequence encoder."""


def own(context: Context, k: int) -> Pairs:
    """The items of the user's OWN_ITEMS newest steps."""
    new = context.steps_age < OWN_ITEMS
    return context.steps_user[new], context.steps_column[new]


def followers(context: Context, k: int) -> Pairs:
    """The items that most often came right after the user's newest items."""
    near = context.neighbours
    order = np.argsort(-near.next, axis=1, kind="stable")[:, : max(OF_NEWEST)]
    following = np.take_along_axis(near.next, order, 1) > 0
    return _of_newest(context, np.where(following, np.take_along_axis(near.columns, order, 1), 0))


def co_occurring(context: Context, k: int) -> Pairs:
    """The items that were clicked most often near the user's newest items, before them or after."""
    return _of_newest(context, context.neighbours.columns)


def _of_newest(context: Context, best: Indices) -> Pairs:
    """Of each of the newest items its first columns of `best` [S, n]."""
    users, columns = [], []
    for age, count in enumerate(OF_NEWEST[: context.history.shape[1]]):
        row = context.history_row[:, age]
        has = np.flatnonzero(row >= 0)
        found = best[row[has], :count]
        users.append(np.repeat(has, found.shape[1]))
        columns.append(found.ravel())
    return np.concatenate(users), np.concatenate(columns)


def popular(context: Context, k: int) -> Pairs:
    """The most popular items of all users, for each half-life."""
    count = max(POPULAR_ITEMS, k)
    best = distinct(np.concatenate([context.counts.top(at, count) for at in range(context.counts.half_lives)]))
    users = np.flatnonzero(context.lengths)
    return np.repeat(users, len(best)), np.tile(best, len(users))


def encoder(context: Context, k: int) -> Pairs:
    """The items with the highest E h_u, among the `SCANNED_ITEMS` most popular ones of a large catalogue."""
    if context.scan is None:
        return NO_PAIRS
    known = np.flatnonzero(context.scan.known)
    scores = context.scan.scores if len(known) == context.users else context.scan.scores[torch.from_numpy(known)]
    rows, found = best_columns(scores, max(ENCODER_ITEMS, k))
    return known[rows], context.scan.scanned.columns[found]


Source = Callable[[Context, int], Pairs]
SOURCES: tuple[Source, ...] = (own, followers, co_occurring, popular, encoder)
