"""Looks up pairs of user and column among the few that are recommended."""

import numpy as np

from model.encoders.vocabulary import Indices


def recommended_cells(
    users: Indices, columns: Indices, recommended: Indices, width: int
) -> tuple[Indices, Indices, Indices]:
    """Which of the pairs of user and column [M] are recommended [B, k]: their indices, and their rows and places.

    `width` is the number of columns of the catalogue.
    """
    keys = (np.arange(len(recommended))[:, None] * width + recommended).ravel()
    order = np.argsort(keys)
    wanted = users * width + columns
    place = order[np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)]
    hit = np.flatnonzero((keys[place] == wanted) & (columns > 0))
    return hit, *np.divmod(place[hit], recommended.shape[1])
