"""Clicks of each item, in total and recently: numbers from the live graph's rows, stored by column for ranking.

    n_j   clicks in total                  the evidence for j is divided by √n_j: popular items are neighbours of all
    p_j   log(1 + 10 · a_j)                a_j = clicks, halved every half-life of event time

The graph's rows hold the same numbers. Reading a row for every item that can be recommended would cost more than the
rest of a ranking.
"""

import threading

import numpy as np
import torch

from model.ranking.catalogue import RowsOf
from state.events import Floats, Ids, Ints

POPULARITY_SHARPNESS = 10.0
REFRESH_ALL_HALF_LIVES = 0.01
"""The signal of items that were not clicked is refreshed each time event time advances by this many half-lives."""
ROWS_PER_READ = 4096


class Popularity:
    """Counts for the columns of a catalogue; column 0 is padding and has none."""

    def __init__(self, half_life_s: float) -> None:
        self._half_life_ms = half_life_s * 1000.0
        self._clicks = np.zeros(1, np.float32)
        self._recent = np.zeros(1, np.float32)
        self._ts = np.zeros(1, np.int64)
        self._now = 0
        # The event loop counts clicks while a thread ranks and adds columns: neither may overwrite the other's change.
        self._changing = threading.Lock()
        self.signal = torch.zeros(1)
        """p_j, [columns]."""
        self.damping = np.zeros(1, np.float32)
        """1 / √n_j, [columns]; 0 for padding."""

    def __len__(self) -> int:
        """Number of columns. `damping` is assigned last, so a thread that reads it finds all other arrays complete."""
        return len(self.damping)

    def extend(self, items: Ids, rows_of: RowsOf) -> None:
        """Add columns for these items, with the counts from their rows in the graph."""
        read = [rows_of(items[start : start + ROWS_PER_READ]) for start in range(0, len(items), ROWS_PER_READ)]
        with self._changing:  # rows are read before: that may take seconds
            self._clicks = np.concatenate([self._clicks, *(rows.degree.astype(np.float32) for rows in read)])
            self._recent = np.concatenate([self._recent, *(rows.popularity.astype(np.float32) for rows in read)])
            self._ts = np.concatenate([self._ts, *(rows.ts for rows in read)])
            self._now = max(self._now, int(self._ts.max()))
            self._refresh_all()

    def update(self, columns: Ints, ts: Ints, weight: Floats) -> None:
        """Count clicks at these event times, ms, each with its weight. Column 0 counts nothing.

        May be called while another thread ranks. A column that is just being added is skipped: its row in the
        graph already has the click.
        """
        if not len(columns):
            return
        with self._changing:
            columns = np.where(columns < len(self), columns, 0)
            touched, place = np.unique(columns, return_inverse=True)
            newest = self._ts[touched]
            np.maximum.at(newest, place, ts)
            recent = self._recent[touched] * np.exp2((self._ts[touched] - newest) / self._half_life_ms)
            recent += np.bincount(place, weight * np.exp2((ts - newest[place]) / self._half_life_ms))
            self._recent[touched], self._ts[touched] = recent, newest
            self._clicks[touched] += np.bincount(place)
            self._recent[0] = self._clicks[0] = 0.0
            if newest.max() - self._now > REFRESH_ALL_HALF_LIVES * self._half_life_ms:
                self._now = int(newest.max())
                self._refresh_all()
            else:
                self._refresh(touched, self.signal, self.damping)

    def remove(self, columns: Ints, ts: Ints, weight: Floats) -> None:
        """Subtract clicks that were counted before and are now undone, expired or erased."""
        with self._changing:
            columns = np.where(columns < len(self), columns, 0)
            touched, place = np.unique(columns, return_inverse=True)
            recent = weight * np.exp2(np.minimum(ts - self._ts[columns], 0) / self._half_life_ms)
            self._clicks[touched] = np.maximum(self._clicks[touched] - np.bincount(place), 0.0)
            left = np.maximum(self._recent[touched] - np.bincount(place, recent), 0.0)
            self._recent[touched] = np.where(self._clicks[touched] > 0, left, 0.0)
            self._refresh(touched, self.signal, self.damping)

    def unclicked(self) -> torch.Tensor:
        """Columns without a click left, padding included."""
        return torch.from_numpy(np.flatnonzero(self._clicks[: len(self)] <= 0))

    def _refresh_all(self) -> None:
        columns = len(self._ts)
        signal, damping = torch.zeros(columns), np.zeros(columns, np.float32)
        self._refresh(np.arange(1, columns), signal, damping)
        self.signal, self.damping = signal, damping

    def _refresh(self, columns: Ints, signal: torch.Tensor, damping: Floats) -> None:
        recent = self._recent[columns] * np.exp2((self._ts[columns] - self._now) / self._half_life_ms)
        signal[torch.from_numpy(columns)] = torch.from_numpy(np.log1p(POPULARITY_SHARPNESS * recent).astype(np.float32))
        damping[columns] = np.where(columns > 0, 1.0 / np.sqrt(np.maximum(self._clicks[columns], 1.0)), 0.0)
