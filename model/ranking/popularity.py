"""How often each item was clicked, in all and lately: numbers of the live graph's rows, kept by column for ranking.

    n_j   clicks in all                    evidence for j counts 1 / √n_j: what goes with everything says little
    p_j   log(1 + 10 · a_j)                a_j = clicks, halved every half-life of event time

Rows hold the same numbers; reading a row for every item that could be recommended would cost more than ranking does.
"""

import threading

import numpy as np
import torch

from model.ranking.catalogue import RowsOf
from state.events import Floats, Ids, Ints

SHARPNESS = 10.0
AGED = 0.01
"""Half-lives by which event time moves on before what was not clicked is faded too."""
ROWS_AT_ONCE = 4096


class Popularity:
    """Counts for the columns of a catalogue; column 0 is padding and has none."""

    def __init__(self, half_life_s: float) -> None:
        self._half_life_ms = half_life_s * 1000.0
        self._clicks = np.zeros(1, np.float32)
        self._lately = np.zeros(1, np.float32)
        self._ts = np.zeros(1, np.int64)
        self._now = 0
        # The event loop counts clicks while a thread ranks and adds columns: neither may put back what it read before.
        self._changing = threading.Lock()
        self.word = torch.zeros(1)
        """p_j, [columns]."""
        self.damping = np.zeros(1, np.float32)
        """1 / √n_j, [columns]; 0 for padding."""

    def __len__(self) -> int:
        """Columns that are counted: what is assigned last says it, for whoever counts meanwhile."""
        return len(self.damping)

    def extend(self, items: Ids, rows_of: RowsOf) -> None:
        """Columns for further items, counted as their rows say."""
        read = [rows_of(items[start : start + ROWS_AT_ONCE]) for start in range(0, len(items), ROWS_AT_ONCE)]
        with self._changing:  # not while rows are read: that may take seconds
            self._clicks = np.concatenate([self._clicks, *(rows.degree.astype(np.float32) for rows in read)])
            self._lately = np.concatenate([self._lately, *(rows.popularity.astype(np.float32) for rows in read)])
            self._ts = np.concatenate([self._ts, *(rows.ts for rows in read)])
            self._now = max(self._now, int(self._ts.max()))
            self._say_all()

    def add(self, columns: Ints, ts: Ints, weight: Floats) -> None:
        """Count clicks at these event times, ms, each for its weight; what falls on column 0 is nobody's.

        May be called while another thread ranks: a column that is only just being added is not counted here, because
        the row that it is read from has the click.
        """
        if not len(columns):
            return
        with self._changing:
            columns = np.where(columns < len(self), columns, 0)
            touched, place = np.unique(columns, return_inverse=True)
            newest = self._ts[touched]
            np.maximum.at(newest, place, ts)
            lately = self._lately[touched] * np.exp2((self._ts[touched] - newest) / self._half_life_ms)
            lately += np.bincount(place, weight * np.exp2((ts - newest[place]) / self._half_life_ms))
            self._lately[touched], self._ts[touched] = lately, newest
            self._clicks[touched] += np.bincount(place)
            self._lately[0] = self._clicks[0] = 0.0
            if newest.max() - self._now > AGED * self._half_life_ms:
                self._now = int(newest.max())
                self._say_all()
            else:
                self._say(touched, self.word, self.damping)

    def remove(self, columns: Ints, ts: Ints, weight: Floats) -> None:
        """Count clicks no longer that were counted before: undone, expired or erased."""
        with self._changing:
            columns = np.where(columns < len(self), columns, 0)
            touched, place = np.unique(columns, return_inverse=True)
            lately = weight * np.exp2(np.minimum(ts - self._ts[columns], 0) / self._half_life_ms)
            self._clicks[touched] = np.maximum(self._clicks[touched] - np.bincount(place), 0.0)
            left = np.maximum(self._lately[touched] - np.bincount(place, lately), 0.0)
            self._lately[touched] = np.where(self._clicks[touched] > 0, left, 0.0)
            self._say(touched, self.word, self.damping)

    def unclicked(self) -> torch.Tensor:
        """Columns without a click, padding among them."""
        return torch.from_numpy(np.flatnonzero(self._clicks[: len(self)] <= 0))

    def _say_all(self) -> None:
        columns = len(self._ts)
        word, damping = torch.zeros(columns), np.zeros(columns, np.float32)
        self._say(np.arange(1, columns), word, damping)
        self.word, self.damping = word, damping

    def _say(self, columns: Ints, word: torch.Tensor, damping: Floats) -> None:
        lately = self._lately[columns] * np.exp2((self._ts[columns] - self._now) / self._half_life_ms)
        word[torch.from_numpy(columns)] = torch.from_numpy(np.log1p(SHARPNESS * lately).astype(np.float32))
        damping[columns] = np.where(columns > 0, 1.0 / np.sqrt(np.maximum(self._clicks[columns], 1.0)), 0.0)
