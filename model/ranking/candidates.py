"""Candidate items: what the sources propose, each once."""

from typing import NamedTuple

import numpy as np

from model.encoders.vocabulary import Indices
from model.ranking.context import Context
from model.ranking.sources import SOURCES


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

    @property
    def lengths(self) -> Indices:
        """[B'] candidate items of each user that has any."""
        return np.diff(self.starts, append=len(self.keys))


def candidate_items(context: Context, k: int) -> Candidates:
    """The candidate items of all sources."""
    width = len(context.catalogue.table)
    found = [source(context, k) for source in SOURCES]
    keys = np.concatenate([users * width + columns for users, columns in found])
    keys.sort()
    keys = keys[np.flatnonzero(np.diff(keys, prepend=-1))]
    users = keys // width
    columns = keys - users * width
    if not columns.all():
        keys, users, columns = (part[columns > 0] for part in (keys, users, columns))
    return Candidates(keys, users, columns, np.flatnonzero(np.diff(users, prepend=-1)), width)
