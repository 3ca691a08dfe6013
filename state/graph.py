"""The live item-item graph: one row for each item, with a fixed number of decayed neighbour slots.

Every event pairs its item with the user's `pair_window_events` items before it, with weight 1 / lag. Row `i` holds, for
a neighbour `j`, how often `j` came after `i` and before it. Both counts halve every `pair_half_life_s` of event time. A
full row gives its weakest slot to a new neighbour, so an item is in its neighbours' rows from the first co-occurrence
on. This is the "space saving" idea of Metwally et al., 2005, without inheriting the count.

A row's `first_ts` and `last_ts` are the times of the oldest and the newest event of any kind that the state holds of
the item: also of one that was undone, is beyond a cap (`state/caps.py`) or has weight 0. So they need no pairing, and
a stream of clicks has the same ones in memory and in a store. They move back only when events leave the store.

`state/pairs.py` changes rows. The same code serves the rows in RocksDB (`state/store.py`) and in memory (`MemoryGraph`,
for offline evaluation).
"""

from collections import ChainMap
from collections.abc import MutableMapping
from typing import NamedTuple

import numpy as np

from state.caps import CapsInArrival
from state.events import Floats, Ids, Ints, Records
from state.kinds import Kinds, Mask, kinds_of
from state.pairs import fold, pairs_in
from state.settings import FURTHER_HALF_LIVES_S, StateSettings
from state.sorting import begins, distinct

HALF_LIVES = 1 + len(FURTHER_HALF_LIVES_S)
NEVER = np.iinfo(np.int64).max
FOLD_EVENTS = 50_000
"""Events that a graph in memory folds at once. Each takes about 500 bytes until it is folded."""


def row_dtype(neighbours: int) -> np.dtype[np.void]:
    """The record of one item with this many slots; `ts` is the time to which all counts are decayed."""
    return np.dtype(
        [
            ("ts", "<i8"),
            ("first_ts", "<i8"),
            ("last_ts", "<i8"),
            ("degree", "<u4"),
            ("recent", "<f4", (HALF_LIVES,)),
            ("nodes", "<u8", (neighbours,)),
            ("after", "<f4", (neighbours,)),
            ("before", "<f4", (neighbours,)),
            ("next", "<f4", (neighbours,)),
        ]
    )


class Rows(NamedTuple):
    """Rows of the graph for R items, K slots each, in the order of the requested items.

    An unknown item has degree 0 and empty slots.
    """

    nodes: Ids
    """[R, K] neighbour hashes, 0 = empty."""
    after: Floats
    """[R, K] decayed count of the neighbour coming after the item."""
    before: Floats
    """[R, K] decayed count of the neighbour coming before it."""
    degree: Floats
    """[R] events of the item, undecayed."""
    recent: Floats
    """[R, H] events of the item, decayed with each half-life of `StateSettings.half_lives_s`."""
    ts: Ints
    """[R] event time, ms, to which a row's counts are decayed; 0 where unknown."""
    next: Floats
    """[R, K] decayed count of the neighbour being the very next item."""
    first_ts: Ints
    """[R] event time, ms, of the oldest event of any kind that the state holds of the item; 0 where there is none."""
    last_ts: Ints
    """[R] event time, ms, of the newest one."""

    @property
    def popularity(self) -> Floats:
        """[R] events of the item, decayed with `popularity_half_life_s`."""
        found: Floats = self.recent[:, 0]
        return found


def as_rows(records: Records) -> Rows:
    """Packed row records as the arrays that the model reads."""
    return Rows(
        records["nodes"],
        records["after"],
        records["before"],
        records["degree"].astype(np.float32),
        records["recent"],
        records["ts"],
        records["next"],
        records["first_ts"],
        records["last_ts"],
    )


def note_times(rows: Records, at: Ints | slice, oldest: Ints, newest: Ints) -> None:
    """Move `first_ts` and `last_ts` of the rows at distinct places, in place: they have new events at these times."""
    before = rows["first_ts"][at]
    rows["first_ts"][at] = np.where(before > 0, np.minimum(before, oldest), oldest)
    rows["last_ts"][at] = np.maximum(rows["last_ts"][at], newest)


def combine(parts: list[Rows], settings: StateSettings) -> Rows:
    """Merge the same items' rows from several partitions. A user's clicks are in one partition only.

    Counts are decayed to the newest part. The strongest K slots remain.
    """
    if len(parts) == 1 or not len(parts[0].ts):
        return parts[0]
    count, slots = parts[0].nodes.shape
    ts = np.max([p.ts for p in parts], axis=0)
    age_s = [np.where(p.ts > 0, (ts - p.ts) / 1000.0, 0.0) for p in parts]
    fade = [np.exp2(-age / settings.pair_half_life_s).astype(np.float32)[:, None] for age in age_s]
    half_lives = np.array(settings.half_lives_s)
    recent = sum(p.recent * np.exp2(-age[:, None] / half_lives) for p, age in zip(parts, age_s, strict=True))
    oldest = np.min([np.where(p.first_ts > 0, p.first_ts, NEVER) for p in parts], axis=0)
    nodes = np.concatenate([p.nodes for p in parts], axis=1)
    after = np.concatenate([p.after * f for p, f in zip(parts, fade, strict=True)], axis=1)
    before = np.concatenate([p.before * f for p, f in zip(parts, fade, strict=True)], axis=1)
    following = np.concatenate([p.next * f for p, f in zip(parts, fade, strict=True)], axis=1)
    order = np.argsort(nodes, axis=1, kind="stable")
    nodes, after, before, following = (np.take_along_axis(a, order, 1) for a in (nodes, after, before, following))
    # Equal neighbours are adjacent now: the first slot of a run collects the counts, the others become empty.
    first = np.ones_like(nodes, bool)
    first[:, 1:] = nodes[:, 1:] != nodes[:, :-1]
    run = np.cumsum(first.ravel()) - 1
    for counts in (after, before, following):
        summed = np.bincount(run, counts.ravel(), minlength=run[-1] + 1)[run].reshape(count, -1)
        counts[:] = np.where(first, summed, 0.0)
    nodes = np.where(first, nodes, 0)
    best = np.argsort(-(after + before), axis=1, kind="stable")[:, :slots]
    return Rows(
        np.take_along_axis(nodes, best, 1),
        np.take_along_axis(after, best, 1),
        np.take_along_axis(before, best, 1),
        np.sum([p.degree for p in parts], axis=0),
        np.asarray(recent, np.float32),
        ts,
        np.take_along_axis(following, best, 1),
        np.where(oldest < NEVER, oldest, 0),
        np.max([p.last_ts for p in parts], axis=0),
    )


Recent = tuple[list[int], list[int], list[float]]
"""A user's newest steps that count: items, times, weights; weight 0 beyond a cap."""


class MemoryGraph:
    """The item-item graph of one event stream, in memory."""

    def __init__(self, settings: StateSettings, base: "MemoryGraph | None" = None) -> None:
        """`base`: a graph to continue from; only the rows that change are copied."""
        self._settings = settings
        self._kinds = kinds_of(settings)
        self._base = base
        self._row_of: dict[int, int] = {}
        self._rows = np.zeros(1024, row_dtype(settings.neighbours_per_item))
        self._recent: MutableMapping[int, Recent] = {} if base is None else ChainMap({}, base._recent)
        self._capped: CapsInArrival = CapsInArrival(settings) if base is None else base._capped.copy()

    def apply(self, events: Records) -> Records:
        """Fold the events that count, in arrival order; return those that count for others (`state/caps.py`).

        A user's steps are paired, and the first ones of a day chosen, in that order.
        """
        for start in range(0, len(events), FOLD_EVENTS):
            self._note_times(events[start : start + FOLD_EVENTS])
        events = events[self._kinds.counts[events["kind"]]]
        shared = self._capped.within(events)
        for start in range(0, len(events), FOLD_EVENTS):
            part = slice(start, start + FOLD_EVENTS)
            self._apply(events[part], shared[part])
        return events[shared]

    def _apply(self, events: Records, shared: Mask) -> None:
        window = self._settings.pair_window_events
        order = np.argsort(events["user"], kind="stable")
        users, starts = np.unique(events["user"][order], return_index=True)
        bounds = np.append(starts, len(order)).tolist()
        items: list[int] = []
        times: list[int] = []
        weights: list[float] = []
        new: list[bool] = []
        lengths: list[int] = []
        item_of, ts_of = events["item"][order].tolist(), events["ts"][order].tolist()
        weight_of = np.where(shared, self._kinds.weight[events["kind"]], np.float32(0.0))[order].tolist()
        for user, start, end in zip(users.tolist(), bounds, bounds[1:], strict=False):
            before_items, before_ts, before_weights = self._recent.get(user, ([], [], []))
            tail_items = before_items + item_of[start:end]
            tail_ts = before_ts + ts_of[start:end]
            tail_weights = before_weights + weight_of[start:end]
            items += tail_items
            times += tail_ts
            weights += tail_weights
            new += [False] * len(before_items) + [True] * (end - start)
            lengths.append(len(tail_items))
            self._recent[user] = (tail_items[-window:], tail_ts[-window:], tail_weights[-window:])
        all_items = np.array(items, np.uint64)
        all_ts = np.array(times, np.int64)
        sequence = np.repeat(np.arange(len(lengths)), lengths)
        touched = distinct(all_items)
        place = np.searchsorted(touched, all_items)
        weight, is_new = np.array(weights, np.float32), np.array(new, bool)
        pairs = pairs_in(place, all_ts, weight, sequence, is_new, window)
        is_new &= weight > 0
        rows = self._records(touched)
        at = self._places(touched)
        fold(touched, rows, place[is_new], all_ts[is_new], weight[is_new], pairs, self._settings)
        self._rows[at] = rows

    def _note_times(self, events: Records) -> None:
        """Move the times of the items' oldest and newest events, by events of every kind."""
        events = events[~self._kinds.forget[events["kind"]]]
        order = np.argsort(events["item"], kind="stable")
        starts = np.flatnonzero(begins(events["item"][order]))
        if len(starts):
            items, ts = events["item"][order[starts]], events["ts"][order]
            rows = self._records(items)
            note_times(rows, slice(None), np.minimum.reduceat(ts, starts), np.maximum.reduceat(ts, starts))
            at = self._places(items)
            self._rows[at] = rows

    def rows(self, items: Ids) -> Rows:
        """Rows of these items, [R, K]."""
        return as_rows(self._records(items))

    @property
    def half_lives_s(self) -> tuple[float, ...]:
        """Event time after which a click counts half, for each popularity of a row."""
        return self._settings.half_lives_s

    @property
    def expires(self) -> bool:
        """Whether events expire: never in memory."""
        return False

    @property
    def kinds(self) -> Kinds:
        """The kinds of its events."""
        return self._kinds

    def popular(self, k: int) -> Ids:
        """The k most popular items, counts decayed to the newest event time known."""
        known = self._known()
        if not len(known):
            return known
        rows = self._records(known)
        clicked = rows["degree"] > 0
        known, rows = known[clicked], rows[clicked]
        age_s = (rows["ts"].max(initial=0) - rows["ts"]) / 1000.0
        popularity = rows["recent"][:, 0] * np.exp2(-age_s / self._settings.popularity_half_life_s)
        return known[np.argsort(-popularity, kind="stable")[:k]]

    def fork(self) -> "MemoryGraph":
        """A graph that continues from here; this one must not change while the fork is used."""
        return MemoryGraph(self._settings, self)

    def copy(self) -> "MemoryGraph":
        """A copy that continues from here, independent of this graph."""
        copied = MemoryGraph(self._settings, self._base)
        copied._row_of, copied._rows, copied._recent = dict(self._row_of), self._rows.copy(), dict(self._recent)
        copied._capped = self._capped.copy()
        return copied

    def _known(self) -> Ids:
        own = np.fromiter(self._row_of.keys(), np.uint64, len(self._row_of))
        return own if self._base is None else np.union1d(self._base._known(), own)

    def _records(self, items: Ids) -> Records:
        found = np.array([self._row_of.get(i, 0) for i in items.tolist()], np.int64)
        records = self._rows[found]
        if self._base is not None and not found.all():
            records[found == 0] = self._base._records(items[found == 0])
        return records

    def _places(self, items: Ids) -> Ints:
        """Row numbers of the items; items without one get one. Row 0 stays empty for unknown items."""
        places = np.array([self._row_of.setdefault(i, len(self._row_of) + 1) for i in items.tolist()], np.int64)
        if len(self._rows) <= len(self._row_of):
            self._rows.resize(len(self._row_of) * 5 // 4 + 1, refcheck=False)  # in place: a copy would double them
        return places
