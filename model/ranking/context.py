"""What a ranking reads: users' histories, the graph's rows of their newest items, and the counts of items.

Everything is read once for a batch of users. Sources and features only look at it.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from model.encoders.vocabulary import Indices
from model.ranking.catalogue import Catalogue
from model.ranking.item_counts import ItemCounts
from model.settings import RankingSettings
from state.events import Floats, Ids, Ints
from state.graph import Rows
from state.sequences import Sequences

SESSION_MS = 3_600_000
"""A pause of an hour ends a session."""


class Neighbours(NamedTuple):
    """Rows of the distinct newest items of a batch, S of them, with K neighbours each."""

    columns: Indices
    """[S, K] columns of the neighbours, the strongest first; 0 = none."""
    nodes: Ids
    after: Floats
    """[S, K] decayed count of the neighbour coming after the item, 1/lag each."""
    before: Floats
    next: Floats
    """[S, K] decayed count of the neighbour being the very next item."""


class Context(NamedTuple):
    """A batch of B users at the moment of their rankings."""

    sequences: Sequences
    """The steps that count for each user."""
    moments: Ints
    """[B] event time, ms, of each ranking."""
    history: Ids
    """[B, H] newest items, newest first; 0 where a user has fewer."""
    history_row: Indices
    """[B, H] row in `neighbours` of each of them; -1 = none."""
    neighbours: Neighbours
    steps_user: Indices
    """[N] row of the user of each step of `sequences`."""
    steps_column: Indices
    """[N] column of each step; 0 = none."""
    steps_age: Indices
    """[N] steps back; 0 = the newest."""
    steps_session: np.ndarray
    """[N] bool: whether a step belongs to the session that is still going on at the moment of the ranking."""
    settings: RankingSettings
    catalogue: Catalogue
    counts: ItemCounts
    encoded: Tensor | None
    """[B, d] what the sequence encoder makes of each history; None where the model has no weight."""

    @property
    def users(self) -> int:
        """B."""
        return len(self.moments)

    @property
    def lengths(self) -> Indices:
        """[B] steps of each user."""
        return np.diff(self.sequences.indptr)


def neighbours_of(rows: Rows, columns: Indices) -> Neighbours:
    """Rows of the graph with their neighbours' columns [S, K], the strongest neighbour first."""
    order = np.argsort(-(rows.after + rows.before), axis=1, kind="stable")
    after, before, following = (np.take_along_axis(part, order, 1) for part in (rows.after, rows.before, rows.next))
    nodes = np.take_along_axis(rows.nodes, order, 1)
    return Neighbours(np.take_along_axis(columns, order, 1), nodes, after, before, following)


def in_session(sequences: Sequences, steps_user: Indices, moments: Ints) -> np.ndarray:
    """[N] bool: whether a step belongs to the session that is still going on at the moment of the ranking."""
    ts = sequences.steps["ts"]
    breaks = np.zeros(len(ts), np.int64)
    breaks[1:] = (steps_user[1:] == steps_user[:-1]) & (ts[1:] - ts[:-1] > SESSION_MS)
    total = np.cumsum(breaks)
    last = sequences.indptr[1:] - 1
    going_on = moments - ts[last] <= SESSION_MS
    found: np.ndarray = (total == total[last][steps_user]) & going_on[steps_user]
    return found
