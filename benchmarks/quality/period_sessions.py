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

    def first_in_two(self, share: float) -> "Periods":
        """The first period in two: this share of its sessions, which began first, and the others."""
        first = self.sessions[0]
        cut = int(len(first) * share)
        earlier, later = first.take(np.arange(cut)), first.take(np.arange(cut, len(first)))
        return Periods([earlier, later], [int(earlier.items.max(initial=0)), self.known[0]])


def read_periods(file: Path, periods: int, share: float, seed: int) -> Periods:
    """The first `periods` + 1 periods, with this share of the sessions, drawn by the seed."""
    by_period: list[dict[str, list[tuple[int, int]]]] = [{} for _ in range(periods + 1)]
    with gzip.open(file, "rt") as text:
        for user, item, ts, period in list(csv.reader(text))[1:]:
            if int(period) <= periods:
                by_period[int(period)].setdefault(user, []).append((int(item), int(ts)))
    draw, index, sessions, known = np.random.default_rng(seed), dict[int, int](), [], []
    for found in by_period:
        drawn = [s for s in found.values() if len(s) > 1 and draw.random() < share]
        numbered = [[index.setdefault(item, len(index) + 1) for item, _ in session] for session in drawn]
        ts_ms = 1000 * np.array([ts for session in drawn for _, ts in session], np.int64)
        of_period = from_lists(numbered)
        sessions.append(Histories(of_period.indptr, of_period.items, ts_ms))
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
    ts = None if drawn.ts is None else drawn.ts[is_known]
    shortened = Histories(np.concatenate([[0], np.cumsum(is_known)])[drawn.indptr], drawn.items[is_known], ts)
    return shortened.take(np.flatnonzero(shortened.lengths > 1))


class SessionTests(NamedTuple):
    """Tests of sessions: each step after the first is a target, with the history before it."""

    before: Histories
    targets: np.ndarray
    ts: np.ndarray | None = None
    """Time of each target, ms, or None if not known."""

    @classmethod
    def of(cls, sessions: Histories) -> "SessionTests":
        """The tests of these sessions, session after session."""
        first = np.repeat(sessions.indptr[:-1], sessions.lengths)
        target = np.flatnonzero(np.arange(len(first)) > first)
        lengths = target - first[target]
        places = np.arange(lengths.sum()) + np.repeat(first[target] - np.cumsum(lengths) + lengths, lengths)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        if sessions.ts is None:
            return cls(Histories(indptr, sessions.items[places]), sessions.items[target])
        before = Histories(indptr, sessions.items[places], sessions.ts[places])
        return cls(before, sessions.items[target], sessions.ts[target])

    def in_time(self) -> "SessionTests":
        """The same tests in order of time."""
        assert self.ts is not None
        order = np.argsort(self.ts, kind="stable")
        return SessionTests(self.before.take(order), self.targets[order], self.ts[order])
