"""Pairs of items in users' sequences, and how they change the rows of the item-item graph (`state/graph.py`).

`fold` adds events and pairs to rows, `unfold` takes them out again.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from state.events import Floats, Ids, Ints, Records
from state.kinds import Mask
from state.settings import StateSettings
from state.sorting import begins, descending, order_of

SEARCH_ROWS = 4096
"""Rows searched at once for a neighbour's slot."""
EMPTY_SLOT_COUNT = 1e-4
"""A slot whose decayed count is lower is emptied."""
SLOTS_PER_NEW_NEIGHBOUR = 4
"""New neighbours always get one slot of a row in this many."""
COUNTS = ("after", "before", "next")
"""The counts of a neighbour slot."""


class Pairs(NamedTuple):
    """P pairs: item `right[p]` followed item `left[p]` at `ts[p]`, `lag[p]` steps later in one user's sequence.

    Items are indices into the touched items.
    """

    left: Ints
    right: Ints
    lag: Ints
    ts: Ints
    weight: Floats
    """The product of both events' weights."""


def pairs_in(items: Ints, ts: Ints, weight: Floats, sequence: Ints, marked: Mask, window: int) -> Pairs:
    """Pairs within `window` steps with at least one marked step. A step of weight 0 keeps its place, without a pair.

    `items` (indices into the touched items), `ts` and `weight` are [N], sequence after sequence, oldest step first.
    `sequence` is each step's sequence number. `marked` are the steps to fold into the graph or to take out of it.
    """
    real = weight > 0
    all_real = bool(real.all())
    lefts, rights = [], []
    for lag in range(1, window + 1):
        wanted = (sequence[lag:] == sequence[:-lag]) & (marked[lag:] | marked[:-lag])
        right = np.flatnonzero(wanted if all_real else wanted & real[lag:] & real[:-lag]) + lag
        lefts.append(right - lag)
        rights.append(right)
    left, right = np.concatenate(lefts), np.concatenate(rights)
    lags = np.repeat(np.arange(1, window + 1), [len(r) for r in rights])
    return Pairs(items[left], items[right], lags, ts[right], weight[left] * weight[right])


def fold(
    touched: Ids, rows: Records, item: Ints, ts: Ints, weight: Floats, pairs: Pairs, settings: StateSettings
) -> None:
    """Fold events and pairs into the rows of the touched items, in place.

    `touched` are sorted hashes; `item` and `pairs` hold indices into it. `rows` are their records in the same order,
    writable. `item`, `ts` and `weight` describe the events.
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
    rows["recent"] *= np.exp2(-age_s[:, None] / np.array(settings.half_lives_s))
    rows["recent"] += _clicks(item, (newest[item] - ts) / 1000.0, weight, n, settings)

    fade = np.exp2(-age_s / settings.pair_half_life_s).astype(np.float32)[:, None]
    for name in COUNTS:
        rows[name] *= fade
    if len(left):
        _add_pairs(touched, rows, pairs, settings)


def unfold(
    touched: Ids, rows: Records, item: Ints, ts: Ints, weight: Floats, pairs: Pairs, settings: StateSettings
) -> None:
    """Take events and pairs that were folded before out of the rows, in place; the inverse of `fold`.

    A pair whose slot went to another neighbour has left the row before. Counts never fall below 0.
    """
    n = len(touched)
    rows["degree"] -= np.minimum(rows["degree"], np.bincount(item, minlength=n).astype(np.uint32))
    age_s = np.maximum(rows["ts"][item] - ts, 0) / 1000.0
    left = rows["recent"] - _clicks(item, age_s, weight, n, settings)
    rows["recent"] = np.where(rows["degree"][:, None] > 0, np.maximum(left, 0.0), 0.0)
    half_life_ms = settings.pair_half_life_s * 1000.0
    counted = pairs.weight / pairs.lag
    for direction, of, to in (("after", pairs.left, pairs.right), ("before", pairs.right, pairs.left)):
        known, slot = _slots_of(rows["nodes"], of, touched[to])
        faded = counted * np.exp2(-np.maximum(rows["ts"][of] - pairs.ts, 0) / half_life_ms)
        np.subtract.at(rows[direction], (of[known], slot[known]), faded[known].astype(np.float32))
        if direction == "after":
            adjacent = known & (pairs.lag == 1)
            np.subtract.at(rows["next"], (of[adjacent], slot[adjacent]), faded[adjacent].astype(np.float32))
    empty = rows["after"] + rows["before"] < EMPTY_SLOT_COUNT
    for name in ("nodes", *COUNTS):
        rows[name] = np.where(empty, 0, np.maximum(rows[name], 0))


def _clicks(item: Ints, age_s: npt.NDArray[np.float64], weight: Floats, n: int, settings: StateSettings) -> Floats:
    """[n, H] weights of each item's events, decayed to their age with each half-life."""
    half_lives_s = np.array(settings.half_lives_s)
    decayed = weight[:, None] * np.exp2(-age_s[:, None] / half_lives_s)
    place = item[:, None] * len(half_lives_s) + np.arange(len(half_lives_s))
    found = np.bincount(place.ravel(), decayed.ravel(), minlength=n * len(half_lives_s))
    return found.astype(np.float32).reshape(n, -1)


def _slots_of(nodes: Ids, row: Ints, node: Ids) -> tuple[Mask, Ints]:
    """Whether each row has the neighbour, and in which slot. Works in parts that fit the processor's cache."""
    known, slot = np.zeros(len(row), bool), np.zeros(len(row), np.int64)
    for start in range(0, len(row), SEARCH_ROWS):
        part = slice(start, start + SEARCH_ROWS)
        match = nodes[row[part]] == node[part, None]
        slot[part] = match.argmax(1)
        known[part] = match[np.arange(len(match)), slot[part]]
    return known, slot


def _add_pairs(touched: Ids, rows: Records, pairs: Pairs, settings: StateSettings) -> None:
    """Add pairs to the slots of both items' rows; neighbours without a slot compete for one."""
    row, node, counts = _entries(touched, rows, pairs, settings)
    known, slot = _slots_of(rows["nodes"], row, node)
    met = row[known], slot[known]
    for name, count in counts.items():
        rows[name][met] += count[known]
    if not known.all():
        new = ~known
        _give_slots(rows, row[new], node[new], {name: count[new] for name, count in counts.items()})


def _entries(touched: Ids, rows: Records, pairs: Pairs, settings: StateSettings) -> tuple[Ints, Ids, dict[str, Floats]]:
    """One entry for each (row, neighbour) of the pairs: row, neighbour, and the decayed counts by their field."""
    left, right = pairs.left, pairs.right
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
    adjacent = np.flatnonzero(pairs.lag == 1)
    following = np.bincount(entry[adjacent], to_left[adjacent], minlength=len(keys)).astype(np.float32)
    return keys // n, touched[keys % n], {"after": after, "before": before, "next": following}


def _give_slots(rows: Records, row: Ints, node: Ids, counts: dict[str, Floats]) -> None:
    """Give new neighbours the weakest slots of their rows, strongest neighbour first.

    They always get a share of the row (SLOTS_PER_NEW_NEIGHBOUR). Beyond it a neighbour takes a slot only from a weaker
    one, so one batch of new neighbours cannot replace a whole row.
    """
    order = descending(counts["after"] + counts["before"])
    order = order[order_of(row[order])]
    starts = np.flatnonzero(begins(row[order]))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    slots = rows["nodes"].shape[1]
    fits = rank < slots
    order, rank = order[fits], rank[fits]
    row, node, counts = row[order], node[order], {name: count[order] for name, count in counts.items()}
    first = begins(row)
    crowded, place = row[first], np.cumsum(first) - 1
    strength = rows["after"][crowded] + rows["before"][crowded]
    slot = np.argsort(strength, axis=1, kind="stable")[place, rank]
    takes = (rank < max(1, slots // SLOTS_PER_NEW_NEIGHBOUR)) | (
        strength[place, slot] <= counts["after"] + counts["before"]
    )
    at = row[takes], slot[takes]
    rows["nodes"][at] = node[takes]
    for name, count in counts.items():
        rows[name][at] = count[takes]
