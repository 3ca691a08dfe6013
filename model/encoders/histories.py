"""Users' histories as encoders read them: ragged item indices, packed with little padding."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.encoders.vocabulary import Indices, Vocabulary
from model.settings import MAX_HISTORY_EVENTS
from state.events import Ints
from state.sequences import Sequences

PADDED_LENGTHS = np.array([1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 19, 25, 35, 50, 70, 100, 140, MAX_HISTORY_EVENTS])
"""Lengths to which histories are padded. Each length takes one attention call. About 7% of the tokens are padding."""


class Histories(NamedTuple):
    """Ragged item indices: user `r` owns `items[indptr[r]:indptr[r + 1]]`, oldest first, no index 0."""

    indptr: Indices
    items: Indices
    ts: Ints | None = None
    """[items] time of each click, ms, or None if not known."""

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def lengths(self) -> Indices:
        """[users] number of items of each user."""
        return np.diff(self.indptr)

    @property
    def users(self) -> Indices:
        """[items] row of the user of each item."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def ages(self) -> Indices:
        """[items] age of each item in steps; the newest item of a user has age 0."""
        return np.repeat(self.indptr[1:], self.lengths) - 1 - np.arange(len(self.items))

    def positions_of(self, rows: Indices) -> Indices:
        """Positions in `items` of these users' items, user after user."""
        lengths = self._lengths_of(rows)
        return np.arange(lengths.sum()) + np.repeat(self.indptr[rows] - np.cumsum(lengths) + lengths, lengths)

    def take(self, rows: Indices) -> "Histories":
        """Only these users, in this order."""
        return self._at(self._lengths_of(rows), self.positions_of(rows))

    def newest(self, limit: int) -> "Histories":
        """The newest `limit` items of each history."""
        lengths = self.lengths
        if lengths.max(initial=0) <= limit:
            return self
        lengths = np.minimum(lengths, limit)
        return self._at(lengths, np.arange(lengths.sum()) + np.repeat(self.indptr[1:] - np.cumsum(lengths), lengths))

    def _lengths_of(self, rows: Indices) -> Indices:
        return self.indptr[rows + 1] - self.indptr[rows]  # not of all users: called for every batch

    def _at(self, lengths: Indices, places: Indices) -> "Histories":
        ts = None if self.ts is None else self.ts[places]
        return Histories(np.concatenate([[0], np.cumsum(lengths)]), self.items[places], ts)


def to_histories(sequences: Sequences, vocabulary: Vocabulary) -> Histories:
    """Sequences as item indices. Items that the vocabulary does not know are left out."""
    items = vocabulary.lookup(sequences.steps["item"])
    known = items > 0
    kept = np.concatenate([[0], np.cumsum(known)])
    return Histories(kept[sequences.indptr], items[known], sequences.steps["ts"][known])


class Examples(NamedTuple):
    """Training data of a sequence encoder: inputs, and the items to predict."""

    inputs: Histories
    predicted: Indices
    """[N] positions in `inputs.items` whose encodings predict an item."""
    targets: Indices
    """[N] the items to predict."""


class Packed(NamedTuple):
    """A batch of B users on one token axis, users of equal padded length side by side."""

    items: Tensor
    """[T] item index, 0 = padding or a masked item."""
    positions: Tensor
    """[T] position counted from the oldest token, which has 0."""
    ages: Tensor
    """[T] position counted back from the newest token, which has 0."""
    groups: list[tuple[int, int]]
    """(users, padded length) in the order of the token axis."""
    real: Tensor
    """[T] bool: False for padding, True for tokens of a history, masked ones too."""
    tokens: Tensor
    """[E] position on the token axis of each item of the histories, in the order of the histories."""
    last: Tensor
    """[B] position on the token axis of each user's last token."""
    order: Tensor
    """[B] the users in the order of the token axis."""


def pack(histories: Histories) -> Packed:
    """Pack a batch; every history has 1 to MAX_HISTORY_EVENTS items."""
    lengths = histories.lengths
    padded = PADDED_LENGTHS[np.searchsorted(PADDED_LENGTHS, lengths)]
    order = np.argsort(padded, kind="stable")
    start = np.zeros(len(lengths), np.int64)
    start[order] = np.cumsum(padded[order]) - padded[order]
    within = np.arange(lengths.sum()) - np.repeat(histories.indptr[:-1], lengths)
    tokens = np.repeat(start, lengths) + within
    items = np.zeros(padded.sum(), np.int64)
    positions = np.zeros_like(items)
    items[tokens] = histories.items
    positions[tokens] = within
    ages = np.zeros_like(items)
    ages[tokens] = np.repeat(lengths, lengths) - 1 - within
    real = np.zeros(len(items), bool)
    real[tokens] = True
    groups = [(int(n), int(length)) for length, n in zip(*np.unique(padded, return_counts=True), strict=True)]
    return Packed(
        torch.from_numpy(items),
        torch.from_numpy(positions),
        torch.from_numpy(ages),
        groups,
        torch.from_numpy(real),
        torch.from_numpy(tokens),
        torch.from_numpy(start + lengths - 1),
        torch.from_numpy(order),
    )
