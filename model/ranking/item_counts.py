"""Clicks of each item, in total and recently: numbers from the live graph's rows, stored by column for ranking.

    n_j   clicks in total                  the evidence for j is divided by √n_j: popular items are neighbours of all
    a_j   clicks, halved every half-life of event time, for each of `StateSettings.half_lives_s`
    p_j   log(1 + 10 · a_j)                the popularity signal, with the first half-life

The graph's rows hold the same numbers. Reading a row for every item that can be recommended would cost more than the
rest of a ranking.
"""

import threading
from typing import NamedTuple

import numpy as np
import torch

from model.encoders.vocabulary import Indices
from model.ranking.catalogue import RowsOf
from state.events import Floats, Ids, Ints

POPULARITY_SHARPNESS = 10.0
REFRESH_ALL_HALF_LIVES = 0.01
"""The signal of items that were not clicked is refreshed each time event time advances by this many half-lives."""
ROWS_PER_READ = 4096
TOP_ITEMS = 50
"""Length of the list of most popular items, for each half-life."""


class CountsAt(NamedTuple):
    """Counts of some columns at some moments, [M] each."""

    recent: Floats
    """[M, H] clicks, decayed with each half-life."""
    clicks: Floats
    age_ms: Floats
    """Event time since the first click."""
    since_ms: Floats
    """Event time since the newest click."""


class ItemCounts:
    """Counts for the columns of a catalogue; column 0 is padding and has none."""

    def __init__(self, half_lives_s: tuple[float, ...]) -> None:
        self._half_lives_ms = 1000.0 * np.array(half_lives_s)
        self._clicks = np.zeros(1, np.float32)
        self._recent = np.zeros((1, len(half_lives_s)), np.float32)
        self._ts = np.zeros(1, np.int64)
        """Event time to which `_recent` is decayed: a row's is later than its item's newest click where pairs are."""
        self._first, self._last = np.zeros(1, np.int64), np.zeros(1, np.int64)
        self._now = 0
        self.counted = 0
        """Clicks that were counted since the start."""
        self._top: list[Indices] = [np.zeros(0, np.int64) for _ in half_lives_s]
        # The event loop counts clicks while a thread ranks and adds columns: neither may overwrite the other's change.
        self._changing = threading.Lock()
        self.signal = torch.zeros(1)
        """p_j, [columns]."""
        self.damping = np.zeros(1, np.float32)
        """1 / √n_j, [columns]; 0 for padding."""

    def __len__(self) -> int:
        """Number of columns. `damping` is assigned last, so a thread that reads it finds all other arrays complete."""
        return len(self.damping)

    @property
    def half_lives(self) -> int:
        """Number of half-lives."""
        return len(self._half_lives_ms)

    def clicks_of(self, columns: Indices) -> Floats:
        """Clicks of these columns in total, [M]."""
        return self._clicks[columns]

    def most_popular(self, count: int, before: int) -> Indices:
        """Columns of the most popular items with the longest half-life, in no order, among those before a column."""
        columns = min(before, len(self))
        if columns - 1 <= count:
            return np.arange(1, columns)
        return 1 + np.argpartition(-self._popularity(slice(1, columns)), count)[:count]

    def most_popular_first(self, count: int, before: int) -> Indices:
        """As `most_popular`, the most popular one first. Items without a click are left out."""
        columns = self.most_popular(count, before)
        score = self._popularity(columns)
        order = np.argsort(-score, kind="stable")
        found: Indices = columns[order][np.isfinite(score[order])]
        return found

    def _popularity(self, columns: Indices | slice) -> Floats:
        """The logarithm of popularity with the longest half-life, less a constant."""
        at = int(self._half_lives_ms.argmax())
        ts = self._ts[columns]
        age = (ts - ts.max(initial=0)).astype(np.float32) / np.float32(self._half_lives_ms[at])
        with np.errstate(divide="ignore"):
            score: Floats = np.log2(self._recent[columns, at]) + age
        return score

    def extend(self, items: Ids, rows_of: RowsOf) -> None:
        """Add columns for these items, with the counts from their rows in the graph."""
        read = [rows_of(items[start : start + ROWS_PER_READ]) for start in range(0, len(items), ROWS_PER_READ)]
        with self._changing:  # rows are read before: that may take seconds
            first_new = len(self._ts)
            self._clicks = np.concatenate([self._clicks, *(rows.degree.astype(np.float32) for rows in read)])
            self._recent = np.concatenate([self._recent, *(rows.recent.astype(np.float32) for rows in read)])
            self._first = np.concatenate([self._first, *(rows.first_ts for rows in read)])
            self._last = np.concatenate([self._last, *(rows.last_ts for rows in read)])
            self._ts = np.concatenate([self._ts, *(rows.ts for rows in read)])
            self._now = max(self._now, int(self._ts.max()))
            self._refresh_all()
            self._rank_top(np.arange(first_new, len(self._ts)))

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
            before = self._ts[touched]
            newest = before.copy()
            np.maximum.at(newest, place, ts)
            recent = self._recent[touched] * np.exp2((before - newest)[:, None] / self._half_lives_ms)
            arrived = weight[:, None] * np.exp2((ts - newest[place])[:, None] / self._half_lives_ms)
            np.add.at(recent, place, arrived)
            first = np.where(self._first[touched] > 0, self._first[touched], np.iinfo(np.int64).max)
            np.minimum.at(first, place, ts)
            self._recent[touched], self._ts[touched], self._first[touched] = recent, newest, first
            np.maximum.at(self._last, columns, ts)
            self._clicks[touched] += np.bincount(place)
            self._recent[0] = self._clicks[0] = self._first[0] = self._last[0] = 0
            self.counted += len(columns)
            if newest.max() - self._now > REFRESH_ALL_HALF_LIVES * self._half_lives_ms[0]:
                self._now = int(newest.max())
                self._refresh_all()
            else:
                self._refresh(touched, self.signal, self.damping)
            self._rank_top(touched)

    def remove(self, columns: Ints, ts: Ints, weight: Floats) -> None:
        """Subtract clicks that were counted before and are now undone, expired or erased."""
        with self._changing:
            columns = np.where(columns < len(self), columns, 0)
            touched, place = np.unique(columns, return_inverse=True)
            removed = np.zeros((len(touched), len(self._half_lives_ms)))
            age_ms = np.minimum(ts - self._ts[columns], 0)[:, None]
            np.add.at(removed, place, weight[:, None] * np.exp2(age_ms / self._half_lives_ms))
            self._clicks[touched] = np.maximum(self._clicks[touched] - np.bincount(place), 0.0)
            left = np.maximum(self._recent[touched] - removed, 0.0)
            self._recent[touched] = np.where(self._clicks[touched, None] > 0, left, 0.0)
            self._refresh(touched, self.signal, self.damping)
            self._rank_top(touched)

    def at(self, columns: Indices, moments: Ints) -> CountsAt:
        """The counts of these columns [M] at these event times [M], ms."""
        decayed = np.maximum(moments - self._ts[columns], 0).astype(np.float32)
        since = np.maximum(moments - self._last[columns], 0).astype(np.float32)
        first = self._first[columns]
        age = np.where(first > 0, np.maximum(moments - first, 0), 0).astype(np.float32)
        recent = np.multiply.outer((-1.0 / self._half_lives_ms).astype(np.float32), decayed)
        np.exp2(recent, out=recent)
        recent *= self._recent[columns].T
        return CountsAt(recent.T, self._clicks[columns], age, since)

    def top(self, half_life: int, count: int) -> Indices:
        """Columns of the most popular items with this half-life, best first; at most TOP_ITEMS."""
        return self._top[half_life][:count]

    def has_clicks(self, columns: Indices) -> np.ndarray:
        """[M] bool: whether a click of the item is left."""
        return self._clicks[columns] > 0

    def _rank_top(self, touched: Indices) -> None:
        """Rank touched columns into the lists. All counts of a half-life decay alike, so no other item can rise."""
        for at, half_life_ms in enumerate(self._half_lives_ms.tolist()):
            columns = np.union1d(self._top[at], touched)
            columns = columns[(columns > 0) & (self._recent[columns, at] > 0)]
            score = np.log2(self._recent[columns, at]) + self._ts[columns] / half_life_ms
            self._top[at] = columns[np.argsort(-score, kind="stable")[:TOP_ITEMS]]

    def _refresh_all(self) -> None:
        columns = len(self._ts)
        signal, damping = torch.zeros(columns), np.zeros(columns, np.float32)
        self._refresh(np.arange(1, columns), signal, damping)
        self.signal, self.damping = signal, damping

    def _refresh(self, columns: Ints, signal: torch.Tensor, damping: Floats) -> None:
        recent = self._recent[columns, 0] * np.exp2((self._ts[columns] - self._now) / self._half_lives_ms[0])
        signal[torch.from_numpy(columns)] = torch.from_numpy(np.log1p(POPULARITY_SHARPNESS * recent).astype(np.float32))
        damping[columns] = np.where(columns > 0, 1.0 / np.sqrt(np.maximum(self._clicks[columns], 1.0)), 0.0)
