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
from model.ranking.context import Context

Pairs = tuple[Indices, Indices]
"""Rows of users [M] and columns [M]; column 0 is dropped later, and so are repeats."""

OWN_ITEMS = 100
"""Newest steps of a user whose items are proposed."""
OF_NEWEST = (30, 15, 10)
"""Neighbours that are proposed for each of the newest items: of the newest one, of the one before, ..."""
POPULAR_ITEMS = 15
"""Most popular items of each half-life."""
ENCODER_ITEMS = 50
"""Best items by the sequence encoder."""
SCANNED_ITEMS = 16_384
"""The sequence encoder scores this many items, the most popular ones, where the catalogue has more."""


def own(context: Context, k: int) -> Pairs:
    """The items of the user's OWN_ITEMS newest steps."""
    new = context.steps_age < OWN_ITEMS
    return context.steps_user[new], context.steps_column[new]


def followers(context: Context, k: int) -> Pairs:
    """The items that most often came right after the user's newest items."""
    return _neighbours(context, context.neighbours.next)


def co_occurring(context: Context, k: int) -> Pairs:
    """The items that were clicked most often near the user's newest items, before them or after."""
    return _neighbours(context, context.neighbours.after + context.neighbours.before)


def _neighbours(context: Context, strength: np.ndarray) -> Pairs:
    order = np.argsort(-strength, axis=1, kind="stable")[:, : max(OF_NEWEST)]
    best = np.take_along_axis(np.where(strength > 0, context.neighbours.columns, 0), order, 1)
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
    half_lives = range(context.counts.half_lives)
    best = np.unique(np.concatenate([context.counts.top(at, count) for at in half_lives]))
    return np.repeat(np.arange(context.users), len(best)), np.tile(best, context.users)


def encoder(context: Context, k: int) -> Pairs:
    """The items with the highest E h_u, among the SCANNED_ITEMS most popular ones of a large catalogue."""
    if context.encoded is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    columns, table = context.catalogue.scanned(SCANNED_ITEMS, context.counts)
    count = min(max(ENCODER_ITEMS, k), len(columns))
    best = torch.topk(context.encoded @ table.T, count, dim=1, sorted=False).indices.numpy()
    return np.repeat(np.arange(context.users), count), columns[best.ravel()]


Source = Callable[[Context, int], Pairs]
SOURCES: tuple[Source, ...] = (own, followers, co_occurring, popular, encoder)
