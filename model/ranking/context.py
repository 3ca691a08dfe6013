"""What a ranking reads: users' histories, the graph's rows of their newest items, and the counts of items.

Everything is read once for a batch of users. Sources and features only look at it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor

from model.encoders.histories import Histories
from model.encoders.vocabulary import Indices
from model.ranking.catalogue import Catalogue, RowsOf, Scanned
from model.ranking.graph_evidence import newest_items
from model.ranking.item_counts import ItemCounts
from model.settings import RankingSettings
from state.events import Floats, Ids, Ints
from state.graph import Rows
from state.sequences import Sequences
from state.sorting import distinct

SESSION_MS = 3_600_000
"""A pause of an hour ends a session."""
SCANNED_ITEMS = 12_000
"""The sequence encoder scores this many items, the most popular ones, where the version has more."""


class Neighbours(NamedTuple):
    """Rows of the distinct newest items of a batch, S of them, with K neighbours each, the strongest first."""

    columns: Indices
    """[S, K] columns of the neighbours; 0 = none."""
    after: Floats
    """[S, K] decayed count of the neighbour coming after the item, 1/lag each."""
    before: Floats
    next: Floats
    """[S, K] decayed count of the neighbour being the very next item."""


class Scan(NamedTuple):
    """The encoder's scores of n items of the catalogue."""

    scanned: Scanned
    scores: Tensor
    """[B, n] E h_u."""
    known: np.ndarray
    """[B] bool: whether the encoder knows an item of the user."""


class Context(NamedTuple):
    """A batch of B users at the moment of their rankings."""

    sequences: Sequences
    """The steps that count for each user."""
    moments: Ints
    """[B] event time, ms, of each ranking."""
    lengths: Indices
    """[B] steps of each user."""
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
    scan: Scan | None

    @property
    def users(self) -> int:
        """B."""
        return len(self.moments)


def read_context(
    sequences: Sequences,
    moments: Ints | None,
    rows_of: RowsOf,
    catalogue: Catalogue,
    settings: RankingSettings,
    counted: Callable[[], ItemCounts],
    encode: Callable[[Histories], Tensor] | None,
) -> Context:
    """Everything that a ranking reads. Fresh items get a column here.

    `moments` are the times of the newest steps where they are None. `counted` gives the counts once every item has its
    column. `encode` is None where the model has no weight.
    """
    steps, indptr = sequences.steps, sequences.indptr
    history = newest_items(sequences, settings.history_items)
    newest = distinct(history[history != 0])
    rows = rows_of(newest)
    neighbours = neighbours_of(rows, catalogue.columns_or_new(rows.nodes, rows_of))
    steps_column = catalogue.update(steps["item"], rows_of)
    lengths = indptr[1:] - indptr[:-1]
    user = np.repeat(np.arange(len(lengths)), lengths)
    age = np.repeat(indptr[1:], lengths) - 1 - np.arange(len(steps))
    if moments is None:
        moments = steps["ts"][np.maximum(indptr[1:] - 1, 0)] if len(steps) else np.zeros(len(lengths), np.int64)
    counts = counted()
    encoded = scan = None
    if encode is not None:
        known = (steps_column > 0) & (steps_column < catalogue.first_fresh)
        kept = np.concatenate([[0], np.cumsum(known)])[indptr]
        encoded = encode(Histories(kept, steps_column[known], steps["ts"][known]))
        scanned = catalogue.scanned(SCANNED_ITEMS, counts)
        scan = Scan(scanned, encoded @ scanned.rows.T, kept[1:] > kept[:-1])
    return Context(
        sequences=sequences,
        moments=moments,
        lengths=lengths,
        history=history,
        history_row=np.where(history != 0, np.searchsorted(newest, history), -1),
        neighbours=neighbours,
        steps_user=user,
        steps_column=steps_column,
        steps_age=age,
        steps_session=_in_session(sequences, user, moments),
        settings=settings,
        catalogue=catalogue,
        counts=counts,
        encoded=encoded,
        scan=scan,
    )


def neighbours_of(rows: Rows, columns: Indices) -> Neighbours:
    """Rows of the graph with their neighbours' columns [S, K], the strongest neighbour first."""
    order = np.argsort(-(rows.after + rows.before), axis=1, kind="stable")
    after, before, following = (np.take_along_axis(part, order, 1) for part in (rows.after, rows.before, rows.next))
    return Neighbours(np.take_along_axis(columns, order, 1), after, before, following)


def _in_session(sequences: Sequences, steps_user: Indices, moments: Ints) -> np.ndarray:
    ts = sequences.steps["ts"]
    if not len(ts):
        return np.zeros(0, bool)
    breaks = np.zeros(len(ts), np.int64)
    breaks[1:] = ts[1:] - ts[:-1] > SESSION_MS
    sessions = np.cumsum(breaks)
    last = np.maximum(sequences.indptr[1:] - 1, 0)
    newest = np.where(moments - ts[last] <= SESSION_MS, sessions[last], -1)
    found: np.ndarray = sessions == newest[steps_user]
    return found
