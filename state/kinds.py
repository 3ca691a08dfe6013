"""Event kinds as columns: the code that stands for a kind on disk, and what each code means to the configuration.

A code is a function of the kind's name alone: its place among the built-in ones, or a hash of it. So a store, a
checkpoint and another machine agree without a table of their own, and no later configuration takes one for another. A
kind that is no longer configured stays in the graph under its code, and counts for nothing.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import xxhash

from state.events import Records
from state.settings import KINDS, Kind, StateSettings

CODES = 1 << 16
OWN_CODES_FROM = 64

Mask = npt.NDArray[np.bool_]


def code_of(name: str) -> int:
    """The code of a kind, for ever.

    >>> code_of("click"), code_of("purchase")
    (0, 3)
    """
    if name in KINDS:
        return list(KINDS).index(name)
    return OWN_CODES_FROM + xxhash.xxh3_64_intdigest(name.encode()) % (CODES - OWN_CODES_FROM)


class Kinds:
    """The configured kinds, to be looked up by a whole column of codes."""

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        """Raises ValueError where two kinds would be the same on disk."""
        self.codes = {name: code_of(name) for name in kinds}
        """Code by name."""
        self._names = {code: name for name, code in self.codes.items()}
        for name, code in self.codes.items():
            if self._names[code] != name:
                raise ValueError(f"the kinds {name!r} and {self._names[code]!r} have the same code on disk: rename one")
        role = np.full(CODES, "", "U8")
        self.weight = np.zeros(CODES, np.float32)
        """What a positive event counts for, by code; 0 for every other kind."""
        for name, kind in kinds.items():
            role[self.codes[name]] = kind.role
            self.weight[self.codes[name]] = kind.weight if kind.role == "positive" else 0.0
        self.counts: Mask = self.weight > 0
        """Whether an event of this code is one to learn from, unless it was undone."""
        self.negative: Mask = role == "negative"
        self.undo: Mask = role == "undo"
        self.forget: Mask = role == "forget"

    def name(self, code: int) -> str:
        """The kind's name; its code where no such kind is configured."""
        return self._names.get(code, f"#{code}")

    def standing(self, steps: Records) -> Mask:
        """Which of one node's steps stand: not undone later, and no undoing themselves.

        An undo takes back the newest step of the same item before it that still stands.
        """
        stands: Mask = ~self.undo[steps["kind"]]
        undone = np.flatnonzero(~stands)
        if not len(undone):
            return stands
        waiting: dict[int, list[int]] = {item: [] for item in steps["item"][undone].tolist()}
        for place, (item, is_step) in enumerate(zip(steps["item"].tolist(), stands.tolist(), strict=True)):
            if item not in waiting:
                continue
            if is_step:
                waiting[item].append(place)
            elif waiting[item]:
                stands[waiting[item].pop()] = False
        return stands


def kinds_of(settings: StateSettings) -> Kinds:
    """The settings' kinds, made once."""
    return _made(tuple(settings.kinds.items()))


@lru_cache(maxsize=8)
def _made(kinds: tuple[tuple[str, Kind], ...]) -> Kinds:
    return Kinds(dict(kinds))
