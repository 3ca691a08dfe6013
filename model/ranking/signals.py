"""The four signals for a batch of users and every item that can be ranked.

    MODEL       E h_u   predictions of the encoder             model/encoders/create.py
    REPEAT      r       the user's own items                   model/ranking/graph_evidence.py
    POPULARITY  p       clicks of all users, recent ones more  model/ranking/item_counts.py
    EVIDENCE    t       neighbours of the user's newest items  model/ranking/graph_evidence.py

Columns are those of `model.ranking.catalogue`. Evidence and repeats are 0 in almost all of the B · C cells, so only the
other cells are stored and added to the score. The model and popularity cost one matrix product.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.encoders.vocabulary import Indices
from model.ranking.fusion import Fusion, Signal
from model.ranking.graph_evidence import Entries, Repeats
from state.events import Floats


class Cells(NamedTuple):
    """A signal that is 0 in most cells of [B, C]."""

    at: Tensor
    """[M] flat index of the cell, user · C + column. A cell may occur more than once."""
    value: Tensor
    """[M] the signal of the cell, the same each time the cell occurs."""

    def write(self, dense: Tensor) -> None:
        """Write the cells into `dense`, zeros of [B, C]; padding stays 0."""
        dense.view(-1)[self.at] = self.value
        dense[:, 0] = 0.0


NO_CELLS = Cells(torch.zeros(0, dtype=torch.int64), torch.zeros(0))


class CellSums:
    """log(1 + sharpness · Σ weights) by cell of [B, C].

    The buffer of sums is used again. After each use the cells that were written are set back to 0. Not thread-safe.
    """

    def __init__(self) -> None:
        self._sums = torch.zeros(0)

    def add_log1p(
        self, users: Indices, columns: Indices, weights: Floats, sharpness: float, shape: torch.Size
    ) -> Cells:
        """The cells of users [M] and columns [M] in [B, C] = `shape`. Weights [M] of the same cell are summed."""
        if self._sums.numel() < shape.numel():
            self._sums = torch.zeros(shape.numel())
        cells = torch.from_numpy(users * shape[1] + columns)
        self._sums.index_add_(0, cells, torch.from_numpy(weights))
        value = torch.log1p(sharpness * self._sums[cells])
        self._sums[cells] = 0.0
        return Cells(cells, value)


class Signals(NamedTuple):
    """The signals of B users for C columns. A signal without a weight is None or has no cells."""

    shape: torch.Size
    """(B, C)."""
    encoded: Tensor | None
    """[B, d] h_u. The signal MODEL is `encoded` · `table`ᵀ; `fuse` computes the product."""
    table: Tensor
    """[C, d] item rows."""
    popularity: Tensor | None
    """[C] the popularity signal."""
    repeat: Cells
    evidence: Cells
    own: Repeats
    """The users' own items behind `repeat`."""
    entries: Entries
    """The entries behind `evidence`."""

    def fuse(self, fusion: Fusion) -> Tensor:
        """Scores [B, C]: the weighted sum of the signals."""
        popularity = None if self.popularity is None else fusion.popularity * self.popularity
        if self.encoded is None:
            scores = (torch.zeros(self.shape[1]) if popularity is None else popularity).repeat(self.shape[0], 1)
        elif popularity is None:
            scores = (self.encoded * fusion.model) @ self.table.T
        else:
            scores = torch.addmm(popularity, self.encoded * fusion.model, self.table.T)
        flat = scores.view(-1)
        for cells, weight in ((self.evidence, fusion.evidence), (self.repeat, fusion.repeat)):
            if weight and len(cells.at):
                # A cell that occurs twice is set twice to the same value.
                flat[cells.at] = flat[cells.at] + weight * cells.value
        return scores

    def write(self, dense: Tensor) -> None:
        """Write the signals into `dense`, zeros of [4, B, C], in the order of `Signal`. Padding stays 0."""
        if self.encoded is not None:
            dense[Signal.MODEL] = self.encoded @ self.table.T
        if self.popularity is not None:
            dense[Signal.POPULARITY] = self.popularity
        dense[[Signal.MODEL, Signal.POPULARITY], :, 0] = 0.0
        self.repeat.write(dense[Signal.REPEAT])
        self.evidence.write(dense[Signal.EVIDENCE])
