"""Changes of the item-item graph: steps of many users to fold into its rows, or to take out of them."""

from typing import NamedTuple

import numpy as np

from state.events import Floats, Ids, Ints, Records
from state.kinds import Kinds, Mask
from state.pairs import Pairs, fold, pairs_in, unfold
from state.sequences import STEP
from state.settings import StateSettings


class Counted(NamedTuple):
    """How steps of a user count, before a change or after it."""

    counting: Mask
    """Of a positive kind and not undone: they have a place in the user's sequence."""
    shared: Mask
    """Those of them that are within the caps (`state/caps.py`): they count for others too."""


class GraphDelta:
    """Steps with a place in their user's sequence, user after user and oldest first.

    Pairs of `paired` steps change; every other step only pairs with them. The `clicked` ones change popularity. Steps
    that are not `shared` keep their place and change nothing.
    """

    def __init__(self, kinds: Kinds, settings: StateSettings) -> None:
        self._kinds, self._settings = kinds, settings
        self.window = settings.pair_window_events
        none = np.zeros(0, bool)
        self._parts = [(np.empty(0, STEP), none, none, none, np.zeros(0, np.int64))]

    def add(self, steps: Records, shared: Mask, paired: Mask, clicked: Mask) -> None:
        """Add one user's steps."""
        self.add_many(steps, shared, paired, clicked, np.array([len(steps)]))

    def add_many(self, steps: Records, shared: Mask, paired: Mask, clicked: Mask, lengths: Ints) -> None:
        """Add many users' steps, one user after the other.

        Only those near a paired one are kept: the row of every step's item is read and written.
        """
        owner = np.repeat(np.arange(len(lengths)), lengths)
        near = _near(paired, owner, self.window)
        if not near.all():
            lengths = np.bincount(owner[near], minlength=len(lengths))
            steps, shared, paired, clicked = steps[near], shared[near], paired[near], clicked[near]
        self._parts.append((steps, shared, paired, clicked, lengths))

    def clicked_steps(self) -> Records:
        """The STEPs whose clicks change."""
        return np.concatenate([steps[clicked] for steps, _, _, clicked, _ in self._parts])

    def items(self) -> Ids:
        """The item of every step; items repeat."""
        return np.concatenate([steps["item"] for steps, *_ in self._parts])

    def fold_into(self, touched: Ids, rows: Records, known: Mask) -> Records:
        """Fold the steps and their pairs into the rows of the touched items, in place; return the clicked STEPs.

        `touched` is sorted and holds all items of the steps. Steps of items that are not `known` change nothing.
        """
        place, steps, weight, clicked, pairs = self._located(touched, known)
        fold(touched, rows, place[clicked], steps["ts"][clicked], weight[clicked], pairs, self._settings)
        return steps[clicked]

    def take_out_of(self, touched: Ids, rows: Records) -> None:
        """Take the steps and their pairs out of the rows of the touched items, in place."""
        place, steps, weight, clicked, pairs = self._located(touched, np.ones(len(touched), bool))
        if clicked.any() or len(pairs.left):
            unfold(touched, rows, place[clicked], steps["ts"][clicked], weight[clicked], pairs, self._settings)

    def _located(self, touched: Ids, known: Mask) -> tuple[Ints, Records, Floats, Mask, Pairs]:
        """For every step: its item's index in the touched items, the step, its weight, whether its click changes.

        Then the pairs that change.
        """
        steps, shared, paired, clicked, lengths = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        owner = np.repeat(np.arange(len(lengths)), lengths)
        place = np.searchsorted(touched, steps["item"])
        if not known.all():
            shared, clicked = shared & known[place], clicked & known[place]
        weight = np.where(shared, self._kinds.weight[steps["kind"]], np.float32(0.0))
        return place, steps, weight, clicked, pairs_in(place, steps["ts"], weight, owner, paired, self.window)


def add_change(
    plus: GraphDelta, minus: GraphDelta, steps: Records, before: Counted, after: Counted, lengths: Ints
) -> None:
    """Add what must be folded in and taken out where users' steps count otherwise than before.

    `steps` are the users' steps, user after user and oldest first; a new one did not count before. A step that gains or
    loses its place moves its neighbours apart or together. So all pairs from the first changed step up to
    `pair_window_events` steps after the last one are taken out and folded in again.
    """
    changed = (before.counting != after.counting) | (before.shared != after.shared)
    if not changed.any():
        return
    at, owner = np.arange(len(steps)), np.repeat(np.arange(len(lengths)), lengths)
    first, last = np.full(len(lengths), len(steps)), np.full(len(lengths), -1)
    np.minimum.at(first, owner[changed], at[changed])
    np.maximum.at(last, owner[changed], at[changed])
    placed = np.cumsum(after.counting)  # behind its last changed step, a user's steps have a place as before
    paired = (at >= first[owner]) & (last[owner] >= 0) & (placed - placed[last[owner]] <= plus.window)
    for delta, counted, other in ((minus, before, after), (plus, after, before)):
        kept = counted.counting
        count = np.bincount(owner[kept], minlength=len(lengths))
        clicked = counted.shared & ~other.shared
        delta.add_many(steps[kept], counted.shared[kept], paired[kept], clicked[kept], count)


def _near(marked: Mask, owner: Ints, distance: int) -> Mask:
    """Which places are at most `distance` away from a marked one of the same owner. Owners ascend."""
    if not len(marked):
        return marked
    at = np.arange(len(marked)) + (owner + 1) * distance + 1  # `distance` empty places lie between two owners
    counts = np.zeros(at[-1] + distance + 1, np.int64)
    counts[at] = marked
    np.cumsum(counts, out=counts)
    near: Mask = counts[at + distance] > counts[at - distance - 1]
    return near
