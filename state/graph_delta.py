"""Steps of many users as the item-item graph takes them, to be folded into its rows or taken out again."""

import numpy as np

from state.events import Ids, Ints, Records
from state.graph import pairs_in, unfold
from state.kinds import Mask
from state.partition import Partition
from state.sequences import STEP
from state.settings import StateSettings


class Counted:
    """Steps of many users, as the item-item graph takes them: sequence after sequence, only those that count."""

    def __init__(self, partition: Partition) -> None:
        self._kinds, self._window = partition.kinds, partition._settings.pair_window_events
        self._steps: list[Records] = [np.empty(0, STEP)]
        self._marked: list[Mask] = [np.zeros(0, bool)]
        self._lengths: list[Ints] = [np.zeros(0, np.int64)]

    def add(self, steps: Records, marked: Mask) -> None:
        """One user's steps that count, oldest first, and which of them are to be folded or taken out."""
        if marked.any():
            at = np.flatnonzero(marked)
            part = slice(max(at[0] - self._window, 0), at[-1] + 1 + self._window)
            self.add_many(steps[part], marked[part], np.array([len(steps[part])]))

    def add_many(self, steps: Records, marked: Mask, lengths: Ints) -> None:
        """Many users' at once, one after the other."""
        self._steps.append(steps)
        self._marked.append(marked)
        self._lengths.append(lengths)

    def all(self) -> tuple[Records, Mask, Ints]:
        """All steps, which are marked, and whose they are."""
        lengths = np.concatenate(self._lengths)
        return (
            np.concatenate(self._steps),
            np.concatenate(self._marked),
            np.repeat(np.arange(len(lengths)), lengths),
        )

    def marked(self) -> Records:
        """Only the marked steps."""
        steps, marked, _ = self.all()
        return steps[marked]


def take_out(counted: Counted, touched: Ids, rows: Records, settings: StateSettings) -> None:
    """Take the marked steps and their pairs out of the rows of the touched items, which hold all of them."""
    steps, marked, owner = counted.all()
    if not marked.any():
        return
    place = np.searchsorted(touched, steps["item"])
    weight = counted._kinds.weight[steps["kind"]]
    pairs = pairs_in(place, steps["ts"], weight, owner, marked, settings.pair_window_events)
    unfold(touched, rows, place[marked], steps["ts"][marked], weight[marked], pairs, settings)
