"""The items that can be ranked now: a version's, and fresh ones that no version knows yet."""

from collections.abc import Callable

import numpy as np
import torch

from model.encoders.vocabulary import Indices, Vocabulary
from state.events import Ids
from state.graph import Rows

RowsOf = Callable[[Ids], Rows]


def neighbourhood(
    items: Ids, rows: Rows, vocabulary: Vocabulary, table: torch.Tensor
) -> tuple[torch.Tensor, np.ndarray]:
    """A row for each unknown item: the mean of its known neighbours' rows, weighted by co-occurrence.

    Returns rows [m, d] and which of them have a known neighbour at all; the others are 0.
    """
    index = vocabulary.lookup(rows.nodes)
    weight = np.where(index > 0, rows.after + rows.before, 0.0).astype(np.float32)
    total = weight.sum(1, keepdims=True)
    share = torch.from_numpy(weight / np.maximum(total, 1e-9))
    made = (table[torch.from_numpy(index)] * share[:, :, None]).sum(1)
    return made, total[:, 0] > 0


class Catalogue:
    """Columns of the score matrix: column 0 is padding, then the vocabulary, then fresh items as they are met."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        table: torch.Tensor,
        fresh_items: int,
        as_scored: Callable[[torch.Tensor], torch.Tensor] = lambda rows: rows,
    ) -> None:
        self.vocabulary = vocabulary
        self.table = self._rows = table
        self._known = len(vocabulary)
        self._base = vocabulary
        self._mean = table[1:].mean(0) if self._known else torch.zeros(table.shape[1])
        self._room = fresh_items
        self._as_scored = as_scored
        self.hashes = np.concatenate([np.zeros(1, np.uint64), vocabulary.hashes])
        self.empty = torch.from_numpy(np.concatenate([[0], vocabulary.free]))
        """Columns of nothing: padding, and indices that are free."""

    def columns(self, items: Ids, rows_of: RowsOf) -> Indices:
        """Columns of the items, any shape; an item met for the first time gets one, if there is room, else 0."""
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

    def touched(self, items: Ids, rows_of: RowsOf) -> Indices:
        """Columns of items just clicked; fresh ones among them get rows of the neighbours they have by now."""
        met = len(self.table)
        columns = self.columns(items, rows_of)
        again = np.unique(columns[(columns > self._known) & (columns < met)])
        if len(again):
            self._rows[torch.from_numpy(again)] = self._provisional(self.hashes[again], rows_of)
        return columns

    def _provisional(self, items: Ids, rows_of: RowsOf) -> torch.Tensor:
        """Rows of fresh items; that of one without a known neighbour is the mean of all: neither liked nor disliked."""
        made, placed = neighbourhood(items, rows_of(items), self._base, self.table[: self._known + 1])
        made[torch.from_numpy(~placed)] = self._mean
        return self._as_scored(made)
