"""Candidate items: what the sources propose, each once."""

from typing import NamedTuple

import numpy as np

from model.encoders.vocabulary import Indices
from model.ranking.context import Context
from model.ranking.sources import SOURCES


class Candidates(NamedTuple):
    """Candidate items: users ascend, and columns ascend within a user."""

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
        keys = self.user * self.width + self.column
        wanted = users * self.width + columns
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return at, keys[at] == wanted


def candidate_items(context: Context, k: int) -> Candidates:
    """The candidate items of all sources."""
    found = [source(context, k) for source in SOURCES]
    width = len(context.catalogue.table)
    keys = np.unique(np.concatenate([users * width + columns for users, columns in found]))
    users, columns = np.divmod(keys, width)
    real = columns > 0
    users, columns = users[real], columns[real]
    return Candidates(users, columns, np.flatnonzero(np.diff(users, prepend=-1)), width)
