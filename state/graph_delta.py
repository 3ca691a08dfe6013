"""Changes of the item-item graph: steps of many users to fold into its rows, or to take out of them."""

import numpy as np

from state.events import Floats, Ids, Ints, Records
from state.kinds import Kinds, Mask
from state.pairs import Pairs, fold, pairs_in, unfold
from state.sequences import STEP
from state.settings import StateSettings


class GraphDelta:
    """Steps that count, user after user and oldest first. Marked steps change the graph; the others pair with them."""

    def __init__(self, kinds: Kinds, settings: StateSettings) -> None:
        self._kinds, self._settings = kinds, settings
        self._steps: list[Records] = [np.empty(0, STEP)]
        self._marked: list[Mask] = [np.zeros(0, bool)]
        self._lengths: list[Ints] = [np.zeros(0, np.int64)]

    def add(self, steps: Records, marked: Mask) -> None:
        """Add one user's steps that count; only those near a marked one are kept."""
        if marked.any():
            at, window = np.flatnonzero(marked), self._settings.pair_window_events
            part = slice(max(at[0] - window, 0), at[-1] + 1 + window)
            self.add_many(steps[part], marked[part], np.array([len(steps[part])]))

    def add_many(self, steps: Records, marked: Mask, lengths: Ints) -> None:
        """Add many users' steps, one user after the other."""
        self._steps.append(steps)
        self._marked.append(marked)
        self._lengths.append(lengths)

    def marked_steps(self) -> Records:
        """The marked STEPs."""
        return np.concatenate(self._steps)[np.concatenate(self._marked)]

    def items(self) -> Ids:
        """The item of every step, marked or not; items repeat."""
        return np.concatenate([steps["item"] for steps in self._steps])

    def fold_into(self, touched: Ids, rows: Records, known: Mask) -> Records:
        """Fold the marked steps and their pairs into the rows of the touched items, in place; return those STEPs.

        `touched` is sorted and holds all items of the steps. Steps of items that are not `known` are left out.
        """
        place, steps, marked, owner = self._located(touched)
        if not known.all():
            kept = known[place]
            place, steps, marked, owner = place[kept], steps[kept], marked[kept], owner[kept]
        weight, pairs = self._pairs(place, steps, marked, owner)
        fold(touched, rows, place[marked], steps["ts"][marked], weight[marked], pairs, self._settings)
        return steps[marked]

    def take_out_of(self, touched: Ids, rows: Records) -> None:
        """Take the marked steps and their pairs out of the rows of the touched items, in place."""
        place, steps, marked, owner = self._located(touched)
        if marked.any():
            weight, pairs = self._pairs(place, steps, marked, owner)
            unfold(touched, rows, place[marked], steps["ts"][marked], weight[marked], pairs, self._settings)

    def _located(self, touched: Ids) -> tuple[Ints, Records, Mask, Ints]:
        """For every step: its item's index in the touched items, the step, whether it is marked, its user's number."""
        steps, lengths = np.concatenate(self._steps), np.concatenate(self._lengths)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        return np.searchsorted(touched, steps["item"]), steps, np.concatenate(self._marked), owner

    def _pairs(self, place: Ints, steps: Records, marked: Mask, owner: Ints) -> tuple[Floats, Pairs]:
        weight = self._kinds.weight[steps["kind"]]
        return weight, pairs_in(place, steps["ts"], weight, owner, marked, self._settings.pair_window_events)
