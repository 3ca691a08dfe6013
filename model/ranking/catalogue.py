"""The items that can be ranked: the items of a version, and fresh items that no version knows yet.

A fresh item gets a column when it first appears in a user's history, or as a neighbour of an item of a history in the
live graph. Its provisional row is the mean of its known neighbours' rows. The next version learns it like any item.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from model.encoders.vocabulary import Indices, Vocabulary
from state.events import Ids
from state.graph import Rows

RowsOf = Callable[[Ids], Rows]
"""Reads the rows of items in the live graph."""
RESCAN_CLICKS = 20_000
"""Clicks after which the items that are scanned in a large catalogue are chosen again."""
ColumnsOf = Callable[[Ids], Indices]
"""Columns of items; 0 for an item without a column."""


class Scanned(NamedTuple):
    """Items that the sequence encoder scores, n of them."""

    columns: Indices
    """[n] ascending."""
    rows: torch.Tensor
    """[n, d]."""
    places: npt.NDArray[np.integer]
    """Place of each column among them; -1 = not scanned. Columns beyond its end are not."""


class Counted(Protocol):
    """Counts of items by column."""

    @property
    def counted(self) -> int:
        """Clicks that were counted since the start."""

    def most_popular(self, count: int, before: int) -> Indices:
        """Columns of the most popular items, among those before a column."""


def mean_neighbour_rows(
    items: Ids, rows: Rows, vocabulary: Vocabulary, table: torch.Tensor
) -> tuple[torch.Tensor, np.ndarray]:
    """A row for each unknown item: the mean of its known neighbours' rows, weighted by co-occurrence.

    Returns rows [m, d], and [m] bool: whether the item has a known neighbour. The row is 0 if it has none.
    """
    index = vocabulary.lookup(rows.nodes)
    weight = np.where(index > 0, rows.after + rows.before, 0.0).astype(np.float32)
    total = weight.sum(1, keepdims=True)
    share = torch.from_numpy(weight / np.maximum(total, 1e-9))
    mean_rows = (table[torch.from_numpy(index)] * share[:, :, None]).sum(1)
    return mean_rows, total[:, 0] > 0


class Catalogue:
    """Columns of the score matrix: 0 is padding, then the version's items by index, then fresh items as they appear.

    At most `fresh_items` fresh items get a column, each after the columns of the version. `as_scored` maps rows to the
    form in which they are scored.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        table: torch.Tensor,
        fresh_items: int,
        as_scored: Callable[[torch.Tensor], torch.Tensor] = lambda rows: rows,
        graph_table: torch.Tensor | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        """The version's items, followed by fresh items."""
        self.table = self._rows = table
        """[columns, d] item rows."""
        self.graph_table = None if graph_table is None else graph_table.float().numpy()
        """Rows of `model.encoders.graph_table` for the version's items, padding first; None where it has none."""
        self._version = vocabulary
        self.first_fresh = len(vocabulary) + 1
        """Columns from here on are of fresh items."""
        self.mean_row = table[1:].mean(0) if len(vocabulary) else torch.zeros(table.shape[1])
        """The mean of the version's rows."""
        self._free_columns = fresh_items
        self._columns = np.arange(len(table))
        self._scanned: Scanned | None = None
        self._scanned_at = 0
        self._as_scored = as_scored
        self.hashes = np.concatenate([np.zeros(1, np.uint64), vocabulary.hashes])
        """[columns] item of each column."""
        self.empty = torch.from_numpy(np.concatenate([[0], vocabulary.free]))
        """Columns without an item: padding and free indices."""

    def scanned(self, count: int, counts: "Counted") -> Scanned:
        """The items that an encoder scores: all, or the `count` most popular ones of the version where there are more.

        That choice is made again every RESCAN_CLICKS clicks, because it looks at every item. Between two choices fresh
        items are not scanned.
        """
        if len(self.table) - 1 <= count:
            return Scanned(self._columns[1:], self.table[1:], self._columns - 1)
        if self._scanned is None or not 0 <= counts.counted - self._scanned_at < RESCAN_CLICKS:
            columns = np.sort(counts.most_popular(count, self.first_fresh))
            places = np.full(self.first_fresh, -1, np.int32)
            places[columns] = np.arange(len(columns))
            self._scanned_at = counts.counted
            self._scanned = Scanned(columns, self.table[torch.from_numpy(columns)], places)
        return self._scanned

    def columns_or_new(self, items: Ids, rows_of: RowsOf) -> Indices:
        """Columns of the items, in any shape. A fresh item gets a new column, or 0 if `fresh_items` are in use."""
        columns = self.vocabulary.lookup(items)
        if self._free_columns <= 0:
            return columns
        missing = np.unique(items[(columns == 0) & (items != 0)])[: self._free_columns]
        if not len(missing):
            return columns
        new_rows = self._provisional(missing, rows_of)
        before, after = len(self.table), len(self.table) + len(missing)
        if after > len(self._rows):  # happens once: the version's table has no space for more rows
            self._rows = torch.empty(before + self._free_columns, self.table.shape[1])
            self._rows[:before] = self.table
        self._rows[before:after] = new_rows
        self._free_columns -= len(missing)
        self.vocabulary = self.vocabulary.grow(missing, [""] * len(missing))
        self.table = self._rows[:after]
        self.hashes = np.concatenate([self.hashes, missing])
        self._columns = np.arange(after)
        return self.vocabulary.lookup(items)

    def update(self, items: Ids, rows_of: RowsOf) -> Indices:
        """Columns of items just clicked. Fresh items among them get new rows, from their present neighbours."""
        first_new = len(self.table)
        columns = self.columns_or_new(items, rows_of)
        again = np.unique(columns[(columns >= self.first_fresh) & (columns < first_new)])
        if len(again):
            self._rows[torch.from_numpy(again)] = self._provisional(self.hashes[again], rows_of)
        return columns

    def _provisional(self, items: Ids, rows_of: RowsOf) -> torch.Tensor:
        """Rows of fresh items. An item without a known neighbour gets the mean of all rows, which is neutral."""
        rows, has_neighbour = mean_neighbour_rows(items, rows_of(items), self._version, self.table[: self.first_fresh])
        rows[torch.from_numpy(~has_neighbour)] = self.mean_row
        return self._as_scored(rows)
