"""The items that can be ranked: those of a version, and fresh ones that no version knows yet.

A fresh item gets a column when it first appears in a user's history or beside an item of it in the live graph. Its
provisional row is the mean of its known neighbours' rows; the next version learns it like any other item.
"""

from collections.abc import Callable

import numpy as np
import torch

from model.encoders.vocabulary import Indices, Vocabulary
from state.events import Ids
from state.graph import Rows

RowsOf = Callable[[Ids], Rows]
"""Rows of the live graph."""
ColumnsOf = Callable[[Ids], Indices]
"""Columns of items; 0 for an item without one."""


def mean_neighbour_rows(
    items: Ids, rows: Rows, vocabulary: Vocabulary, table: torch.Tensor
) -> tuple[torch.Tensor, np.ndarray]:
    """A row for each unknown item: the mean of its known neighbours' rows, weighted by co-occurrence.

    Returns rows [m, d] and which of them have a known neighbour, [m] bool. The other rows are 0.
    """
    index = vocabulary.lookup(rows.nodes)
    weight = np.where(index > 0, rows.after + rows.before, 0.0).astype(np.float32)
    total = weight.sum(1, keepdims=True)
    share = torch.from_numpy(weight / np.maximum(total, 1e-9))
    made = (table[torch.from_numpy(index)] * share[:, :, None]).sum(1)
    return made, total[:, 0] > 0


class Catalogue:
    """Columns of the score matrix: 0 is padding, then the version's items by index, then fresh items as they appear.

    At most `fresh_items` fresh items get a column, each above `len(vocabulary)` of the version. `as_scored` brings rows
    to the form in which they are scored.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        table: torch.Tensor,
        fresh_items: int,
        as_scored: Callable[[torch.Tensor], torch.Tensor] = lambda rows: rows,
    ) -> None:
        self.vocabulary = vocabulary
        """The version's items, and the fresh ones behind them."""
        self.table = self._rows = table
        """[columns, d]."""
        self._version = vocabulary
        self._known = len(vocabulary)
        self._mean = table[1:].mean(0) if self._known and fresh_items else torch.zeros(table.shape[1])
        self._room = fresh_items
        self._as_scored = as_scored
        self.hashes = np.concatenate([np.zeros(1, np.uint64), vocabulary.hashes])
        """[columns] item of each."""
        self.empty = torch.from_numpy(np.concatenate([[0], vocabulary.free]))
        """Columns without an item: padding, and free indices."""

    def columns(self, items: Ids, rows_of: RowsOf) -> Indices:
        """Columns of the items, any shape. An item met for the first time gets one; 0 if there is no room left."""
        columns = self.vocabulary.lookup(items)
        if self._room <= 0:
            return columns
        missing = np.unique(items[(columns == 0) & (items != 0)])[: self._room]
        if not len(missing):
            return columns
        made = self._provisional(missing, rows_of)
        before, after = len(self.table), len(self.table) + len(missing)
        if after > len(self._rows):  # once: the version's own rows have no room behind them
            self._rows = torch.empty(before + self._room, self.table.shape[1])
            self._rows[:before] = self.table
        self._rows[before:after] = made
        self._room -= len(missing)
        self.vocabulary = self.vocabulary.grow(missing, [""] * len(missing))
        self.table = self._rows[:after]
        self.hashes = np.concatenate([self.hashes, missing])
        return self.vocabulary.lookup(items)

    def update(self, items: Ids, rows_of: RowsOf) -> Indices:
        """Columns of items just clicked. Fresh ones among them get new rows, from the neighbours they have by now."""
        first_new = len(self.table)
        columns = self.columns(items, rows_of)
        again = np.unique(columns[(columns > self._known) & (columns < first_new)])
        if len(again):
            self._rows[torch.from_numpy(again)] = self._provisional(self.hashes[again], rows_of)
        return columns

    def _provisional(self, items: Ids, rows_of: RowsOf) -> torch.Tensor:
        """Rows of fresh items. One without a known neighbour gets the mean of all rows: a neutral one."""
        made, has_neighbour = mean_neighbour_rows(items, rows_of(items), self._version, self.table[: self._known + 1])
        made[torch.from_numpy(~has_neighbour)] = self._mean
        return self._as_scored(made)
