"""Candidate items: what the sources propose, each once."""

from typing import NamedTuple

import numpy as np

from model.encoders.vocabulary import Indices
from model.ranking.context import Context
from model.ranking.sources import SOURCES
from state.sorting import begins


class Links(NamedTuple):
    """L links: an item of a user's history, and a neighbour of it that is a candidate item of that user.

    Links from the users' newest items come first. Neighbours of one item are distinct.
    """

    at: Indices
    """[L] place of the candidate item."""
    age: Indices
    """[L] steps back of the item of the history; 0 = the newest."""
    entry: Indices
    """[L] flat index into `Context.neighbours`, [S, K]."""
    until: Indices
    """[H] where the links of each age end."""


class Candidates(NamedTuple):
    """M candidate items of B users: users ascend, and columns ascend within a user."""

    keys: Indices
    """[M] user · width + column."""
    user: Indices
    """[M] row of the user."""
    column: Indices
    """[M]."""
    starts: Indices
    """[B'] first place of each user that has any."""
    lengths: Indices
    """[B'] candidate items of each of them."""
    width: int
    """Columns of the catalogue."""
    links: Links

    def places(self, users: Indices, columns: Indices) -> tuple[Indices, np.ndarray]:
        """Where these pairs [N] are among the candidate items, and [N] bool: whether they are."""
        return _places(self.keys, users * self.width + columns)


def lengths_of(starts: Indices, count: int) -> Indices:
    """Lengths of the parts of `count` places that begin at `starts`."""
    lengths = np.empty_like(starts)
    np.subtract(starts[1:], starts[:-1], out=lengths[:-1])
    lengths[-1:] = count - starts[-1:]
    return lengths


def candidate_items(context: Context, k: int) -> Candidates:
    """The candidate items of all sources."""
    width = len(context.catalogue.table)
    found = [source(context, k) for source in SOURCES]
    keys = np.concatenate([users * width + columns for users, columns in found])
    keys.sort()
    keys = keys[begins(keys)]
    users = keys // width
    columns = keys - users * width
    if not columns.all():
        keys, users, columns = (part[columns > 0] for part in (keys, users, columns))
    starts = np.flatnonzero(begins(users))
    links = _links(context, keys, width)
    return Candidates(keys, users, columns, starts, lengths_of(starts, len(keys)), width, links)


def _links(context: Context, keys: Indices, width: int) -> Links:
    slots = context.neighbours.columns.shape[1]
    age, user = np.nonzero(context.history_row.T >= 0)
    entry = (context.history_row[user, age][:, None] * slots + np.arange(slots)).ravel()
    column = context.neighbours.columns.ravel()[entry]
    real = np.flatnonzero(column)
    source = real // slots
    at, known = _places(keys, user[source] * width + column[real])
    age = age[source[known]]
    until = np.searchsorted(age, np.arange(context.history.shape[1]), "right")
    return Links(at[known], age, entry[real[known]], until)


def _places(keys: Indices, wanted: Indices) -> tuple[Indices, np.ndarray]:
    if not len(keys):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    at = np.searchsorted(keys, wanted)
    np.minimum(at, len(keys) - 1, out=at)
    return at, keys[at] == wanted
