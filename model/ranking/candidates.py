"""Candidate items: what the sources propose, each once."""

from typing import NamedTuple

import numpy as np

from model.encoders.vocabulary import Indices
from model.ranking.context import Context
from model.ranking.sources import SOURCES
from state.sorting import begins


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

    def places(self, users: Indices, columns: Indices) -> tuple[Indices, np.ndarray]:
        """Where these pairs [N] are among the candidate items, and [N] bool: whether they are."""
        if not len(self.keys):
            return np.zeros(len(users), np.int64), np.zeros(len(users), bool)
        wanted = users * self.width + columns
        at = np.searchsorted(self.keys, wanted)
        np.minimum(at, len(self.keys) - 1, out=at)
        return at, self.keys[at] == wanted


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
    return Candidates(keys, users, columns, starts, lengths_of(starts, len(keys)), width)
