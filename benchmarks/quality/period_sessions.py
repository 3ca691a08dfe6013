"""Sessions of ADER's periods, and tests on them (benchmarks/quality/periods.py)."""

import csv
import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np

from model.encoders.histories import Histories


class Periods(NamedTuple):
    """Sessions of each period. Items are numbered from 1, in the order in which they first occur."""

    sessions: list[Histories]
    known: list[int]
    """The number of items known at the end of each period."""


def read_periods(file: Path, periods: int, share: float, seed: int) -> Periods:
    """The first `periods` + 1 periods, with this share of the sessions, drawn by the seed."""
    by_period: list[dict[str, list[int]]] = [{} for _ in range(periods + 1)]
    with gzip.open(file, "rt") as text:
        for user, item, _, period in list(csv.reader(text))[1:]:
            if int(period) <= periods:
                by_period[int(period)].setdefault(user, []).append(int(item))
    draw, index, sessions, known = np.random.default_rng(seed), dict[int, int](), [], []
    for found in by_period:
        drawn = [s for s in found.values() if len(s) > 1 and draw.random() < share]
        numbered = [[index.setdefault(item, len(index) + 1) for item in session] for session in drawn]
        sessions.append(from_lists(numbered))
        known.append(len(index))
    return Periods(sessions, known)


def from_lists(sessions: list[list[int]]) -> Histories:
    """Histories of these lists of items."""
    lengths = np.array([len(s) for s in sessions], np.int64)
    return Histories(
        np.concatenate([[0], np.cumsum(lengths)]), np.array([item for s in sessions for item in s], np.int64)
    )


def concatenate(parts: list[Histories]) -> Histories:
    """The sessions of several periods, one after the other."""
    lengths = np.concatenate([p.lengths for p in parts])
    return Histories(np.concatenate([[0], np.cumsum(lengths)]), np.concatenate([p.items for p in parts]))


def sessions_to_test(sessions: Histories, known: int, limit: int, seed: int) -> Histories:
    """Up to `limit` random sessions without unknown items. Sessions with fewer than two known items are dropped."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(sessions))[:limit])
    drawn = sessions.take(rows)
    is_known = drawn.items <= known
    shortened = Histories(np.concatenate([[0], np.cumsum(is_known)])[drawn.indptr], drawn.items[is_known])
    return shortened.take(np.flatnonzero(shortened.lengths > 1))


class SessionTests(NamedTuple):
    """Tests of sessions: each step after the first is a target, with the history before it."""

    before: Histories
    targets: np.ndarray

    @classmethod
    def of(cls, sessions: Histories) -> "SessionTests":
        """The tests of these sessions, session after session."""
        rows = [sessions.items[a:b].tolist() for a, b in zip(sessions.indptr[:-1], sessions.indptr[1:], strict=True)]
        before = from_lists([row[:end] for row in rows for end in range(1, len(row))])
        return cls(before, np.array([item for row in rows for item in row[1:]], np.int64))
