"""The live item-item graph: one row an item, a fixed number of decayed neighbour slots.

Every event pairs its item with the user's `pair_window_events` items before it, weight 1 / lag. Row `i` keeps, for
a neighbour `j`, how often `j` came after `i` and before it, both halved every `pair_half_life_s` of event time.
A full row gives its weakest slot to a new neighbour, so an item is known to its neighbours from its first
co-occurrence on (the "space saving" idea of Metwally et al., 2005, without inheriting the count).

The same code keeps the rows in RocksDB (`state.store`) and in memory (`MemoryGraph`, for offline evaluation).
"""

from collections import ChainMap
from collections.abc import MutableMapping
from typing import NamedTuple

import numpy as np

from state.events import Floats, Ids, Ints, Records
from state.kinds import Kinds, Mask, kinds_of
from state.settings import StateSettings
from state.sorting import begins, distinct, order_of

AT_ONCE = 4096
FOLDED_AT_ONCE = 50_000
"""Events of a graph in memory: their steps and pairs take some 500 bytes each while they are folded."""
NOTHING = 1e-4
"""A pair's decayed count below which its slot is empty."""


def row_dtype(neighbours: int) -> np.dtype[np.void]:
    """The record of one item with this many slots; `ts` is the time to which all counts are decayed."""
    return np.dtype(
        [
            ("ts", "<i8"),
            ("degree", "<u4"),
            ("popularity", "<f4"),
            ("nodes", "<u8", (neighbours,)),
            ("after", "<f4", (neighbours,)),
            ("before", "<f4", (neighbours,)),
        ]
    )


class Rows(NamedTuple):
    """Rows of the graph for R items, K slots each, in the order they were asked for.

    An item the graph does not know has degree 0 and empty slots.
    """

    nodes: Ids
    """[R, K] neighbour hashes, 0 = empty."""
    after: Floats
    """[R, K] decayed count of the neighbour coming after the item."""
    before: Floats
    """[R, K] decayed count of the neighbour coming before it."""
    degree: Floats
    """[R] events of the item, undecayed."""
    popularity: Floats
    """[R] decayed events of the item."""
    ts: Ints
    """[R] event time, ms, to which a row's counts are decayed; 0 where unknown."""


def as_rows(records: Records) -> Rows:
    """Packed row records as the arrays the model reads."""
    return Rows(
        records["nodes"],
        records["after"],
        records["before"],
        records["degree"].astype(np.float32),
        records["popularity"],
        records["ts"],
    )


def combine(parts: list[Rows], settings: StateSettings) -> Rows:
    """The same items' rows from several partitions as one, each users' clicks living in one partition only.

    Counts are decayed to the newest of the parts; the strongest K slots are kept.
    """
    if len(parts) == 1:
        return parts[0]
    count, slots = parts[0].nodes.shape
    ts = np.max([p.ts for p in parts], axis=0)
    age_s = [np.where(p.ts > 0, (ts - p.ts) / 1000.0, 0.0) for p in parts]
    fade = [np.exp2(-age / settings.pair_half_life_s).astype(np.float32)[:, None] for age in age_s]
    popularity = sum(
        p.popularity * np.exp2(-age / settings.popularity_half_life_s) for p, age in zip(parts, age_s, strict=True)
    )
    nodes = np.concatenate([p.nodes for p in parts], axis=1)
    after = np.concatenate([p.after * f for p, f in zip(parts, fade, strict=True)], axis=1)
    before = np.concatenate([p.before * f for p, f in zip(parts, fade, strict=True)], axis=1)
    order = np.argsort(nodes, axis=1, kind="stable")
    nodes, after, before = (np.take_along_axis(a, order, 1) for a in (nodes, after, before))
    # Runs of one neighbour within a row: the first slot of a run collects the run's counts, the others empty.
    first = np.ones_like(nodes, bool)
    first[:, 1:] = nodes[:, 1:] != nodes[:, :-1]
    run = np.cumsum(first.ravel()) - 1
    for counts in (after, before):
        summed = np.bincount(run, counts.ravel(), minlength=run[-1] + 1)[run].reshape(count, -1)
        counts[:] = np.where(first, summed, 0.0)
    nodes = np.where(first, nodes, 0)
    best = np.argsort(-(after + before), axis=1, kind="stable")[:, :slots]
    return Rows(
        np.take_along_axis(nodes, best, 1),
        np.take_along_axis(after, best, 1),
        np.take_along_axis(before, best, 1),
        np.sum([p.degree for p in parts], axis=0),
        np.asarray(popularity, np.float32),
        ts,
    )


class Pairs(NamedTuple):
    """Item `left[p]` was followed by item `right[p]` at `ts[p]`, `lag[p]` steps later in one user's sequence.

    Items are given by their place among the touched items.
    """

    left: Ints
    right: Ints
    lag: Ints
    ts: Ints
    weight: Floats
    """The product of what both events count for."""


def pairs_in(items: Ints, ts: Ints, weight: Floats, sequence: Ints, new: Mask, window: int) -> Pairs:
    """Pairs within `window` steps of which at least one side is new.

    `items` (places among the touched items), `ts` and `weight` lie sequence after sequence, oldest first; `sequence`
    numbers them; `new` marks the steps that are not paired yet, or whose pairs are to be taken back.
    """
    lefts, rights = [], []
    for lag in range(1, window + 1):
        right = np.flatnonzero((sequence[lag:] == sequence[:-lag]) & (new[lag:] | new[:-lag])) + lag
        lefts.append(right - lag)
        rights.append(right)
    left, right = np.concatenate(lefts), np.concatenate(rights)
    lags = np.repeat(np.arange(1, window + 1), [len(r) for r in rights])
    return Pairs(items[left], items[right], lags, ts[right], weight[left] * weight[right])


def fold(
    touched: Ids, rows: Records, item: Ints, ts: Ints, weight: Floats, pairs: Pairs, settings: StateSettings
) -> None:
    """Fold events and pairs into the rows of the touched items, in place.

    `touched`: sorted hashes, to which the places in `item` and `pairs` refer; `rows`: their records, same order,
    writable; `weight`: what each event counts for.
    """
    n = len(touched)
    left, right = pairs.left, pairs.right

    newest = rows["ts"].copy()
    np.maximum.at(newest, item, ts)
    np.maximum.at(newest, left, pairs.ts)
    np.maximum.at(newest, right, pairs.ts)
    age_s = np.where(rows["ts"] > 0, (newest - rows["ts"]) / 1000.0, 0.0)
    rows["ts"] = newest

    rows["degree"] += np.bincount(item, minlength=n).astype(np.uint32)
    clicks = weight * np.exp2(-(newest[item] - ts) / 1000.0 / settings.popularity_half_life_s)
    rows["popularity"] *= np.exp2(-age_s / settings.popularity_half_life_s)
    rows["popularity"] += np.bincount(item, clicks, minlength=n)

    fade = np.exp2(-age_s / settings.pair_half_life_s).astype(np.float32)[:, None]
    rows["after"] *= fade
    rows["before"] *= fade
    if len(left):
        _add_pairs(touched, rows, pairs, settings)


def unfold(
    touched: Ids, rows: Records, item: Ints, ts: Ints, weight: Floats, pairs: Pairs, settings: StateSettings
) -> None:
    """Take events and pairs that were folded before out of the rows again, in place.

    What is left of a pair whose slot another neighbour has taken is gone already; a count never falls below 0.
    """
    n = len(touched)
    rows["degree"] -= np.minimum(rows["degree"], np.bincount(item, minlength=n).astype(np.uint32))
    age_s = np.maximum(rows["ts"][item] - ts, 0) / 1000.0
    clicks = weight * np.exp2(-age_s / settings.popularity_half_life_s)
    left = rows["popularity"] - np.bincount(item, clicks, minlength=n).astype(np.float32)
    rows["popularity"] = np.where(rows["degree"] > 0, np.maximum(left, 0.0), 0.0)
    half_life_ms = settings.pair_half_life_s * 1000.0
    said = pairs.weight / pairs.lag
    for direction, of, to in (("after", pairs.left, pairs.right), ("before", pairs.right, pairs.left)):
        known, slot = _slots_of(rows["nodes"], of, touched[to])
        faded = said * np.exp2(-np.maximum(rows["ts"][of] - pairs.ts, 0) / half_life_ms)
        np.subtract.at(rows[direction], (of[known], slot[known]), faded[known].astype(np.float32))
    empty = rows["after"] + rows["before"] < NOTHING
    for name in ("nodes", "after", "before"):
        rows[name] = np.where(empty, 0, np.maximum(rows[name], 0))


def _slots_of(nodes: Ids, row: Ints, node: Ids) -> tuple[Mask, Ints]:
    """Whether each row has the neighbour, and in which slot; a part at a time, that a cache can hold."""
    known, slot = np.zeros(len(row), bool), np.zeros(len(row), np.int64)
    for start in range(0, len(row), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        match = nodes[row[part]] == node[part, None]
        slot[part] = match.argmax(1)
        known[part] = match[np.arange(len(match)), slot[part]]
    return known, slot


def _add_pairs(touched: Ids, rows: Records, pairs: Pairs, settings: StateSettings) -> None:
    left, right = pairs.left, pairs.right
    # One entry for each (row, neighbour) met in the batch, both directions together.
    half_life_ms = settings.pair_half_life_s * 1000.0
    weight = pairs.weight / pairs.lag
    to_left = weight * np.exp2(-(rows["ts"][left] - pairs.ts) / half_life_ms)
    to_right = weight * np.exp2(-(rows["ts"][right] - pairs.ts) / half_life_ms)
    n = len(touched)
    keys = np.concatenate([left * n + right, right * n + left])
    order = order_of(keys)
    keys = keys[order]
    first = begins(keys)
    entry = np.empty(len(keys), np.int64)
    entry[order] = np.cumsum(first) - 1
    keys = keys[first]
    after = np.bincount(entry[: len(left)], to_left, minlength=len(keys)).astype(np.float32)
    before = np.bincount(entry[len(left) :], to_right, minlength=len(keys)).astype(np.float32)
    row, node = keys // n, touched[keys % n]

    known, slot = _slots_of(rows["nodes"], row, node)
    met = row[known], slot[known]
    rows["after"][met] += after[known]
    rows["before"][met] += before[known]
    if known.all():
        return

    # New neighbours, strongest first, take the weakest slots. A quarter of the row is always theirs; beyond that
    # a slot is taken only from a weaker neighbour, so that one batch of strangers cannot wipe out a row.
    new = np.flatnonzero(~known)
    # A negated float's bits, turned over, ascend as the float descends.
    new = new[order_of((-(after[new] + before[new])).view(np.uint32) ^ np.uint32(0xFFFFFFFF))]
    new = new[order_of(row[new])]
    starts = np.flatnonzero(begins(row[new]))
    rank = np.arange(len(new)) - np.repeat(starts, np.diff(starts, append=len(new)))
    slots = rows["nodes"].shape[1]
    fits = rank < slots
    new, rank = new[fits], rank[fits]
    row, node, after, before = row[new], node[new], after[new], before[new]
    first = begins(row)
    crowded, place = row[first], np.cumsum(first) - 1
    strength = rows["after"][crowded] + rows["before"][crowded]
    slot = np.argsort(strength, axis=1, kind="stable")[place, rank]
    takes = (rank < max(1, slots // 4)) | (strength[place, slot] <= after + before)
    at = row[takes], slot[takes]
    rows["nodes"][at] = node[takes]
    rows["after"][at] = after[takes]
    rows["before"][at] = before[takes]


Recent = tuple[list[int], list[int], list[float]]
"""A user's newest steps that count: items, times, weights."""


class MemoryGraph:
    """The item-item graph of one event stream, in memory."""

    def __init__(self, settings: StateSettings, base: "MemoryGraph | None" = None) -> None:
        """`base`: the graph that this one goes on from, of which it copies only the rows that it changes."""
        self._settings = settings
        self._kinds = kinds_of(settings)
        self._base = base
        self._row_of: dict[int, int] = {}
        self._rows = np.zeros(1024, row_dtype(settings.neighbours_per_item))
        self._recent: MutableMapping[int, Recent] = {} if base is None else ChainMap({}, base._recent)

    def apply(self, events: Records) -> None:
        """Fold the events that count, in arrival order; a user's steps are paired in that order."""
        events = events[self._kinds.counts[events["kind"]]]
        for start in range(0, len(events), FOLDED_AT_ONCE):
            self._apply(events[start : start + FOLDED_AT_ONCE])

    def _apply(self, events: Records) -> None:
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
        weight_of = self._kinds.weight[events["kind"][order]].tolist()
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
        rows = self._records(touched)
        at = self._places(touched)
        fold(touched, rows, place[is_new], all_ts[is_new], weight[is_new], pairs, self._settings)
        self._rows[at] = rows

    def rows(self, items: Ids) -> Rows:
        """Rows of these items, [R, K]."""
        return as_rows(self._records(items))

    @property
    def popularity_half_life_s(self) -> float:
        """Event time after which a click counts half in the rows' popularity."""
        return self._settings.popularity_half_life_s

    @property
    def forgets(self) -> bool:
        """Nothing expires here."""
        return False

    @property
    def kinds(self) -> Kinds:
        """The kinds of the events it is made of."""
        return self._kinds

    def popular(self, k: int) -> Ids:
        """The k most popular items, counts decayed to the newest event time known."""
        known = self._known()
        if not len(known):
            return known
        rows = self._records(known)
        age_s = (rows["ts"].max() - rows["ts"]) / 1000.0
        popularity = rows["popularity"] * np.exp2(-age_s / self._settings.popularity_half_life_s)
        return known[np.argsort(-popularity, kind="stable")[:k]]

    def fork(self) -> "MemoryGraph":
        """Another graph that goes on from here; this one must not go on while that one is used."""
        return MemoryGraph(self._settings, self)

    def copy(self) -> "MemoryGraph":
        """Another graph that goes on from here, as this one may."""
        copied = MemoryGraph(self._settings, self._base)
        copied._row_of, copied._rows, copied._recent = dict(self._row_of), self._rows.copy(), dict(self._recent)
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
        """Row numbers of the items, made for those without one; row 0 stays empty for the unknown."""
        places = np.array([self._row_of.setdefault(i, len(self._row_of) + 1) for i in items.tolist()], np.int64)
        if len(self._rows) <= len(self._row_of):
            self._rows.resize(len(self._row_of) * 5 // 4 + 1, refcheck=False)  # in place: a copy would double them
        return places
