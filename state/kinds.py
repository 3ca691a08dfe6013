"""Event kinds as columns: the code of each kind on disk, and what a code means in the configuration.

A code is a function of the kind's name: its place among the built-in kinds, or a hash. Stores, checkpoints and other
machines agree on it without a table, and no later configuration can confuse two kinds. A kind that is no longer
configured stays in the graph under its code, with weight 0.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import xxhash

from state.events import Records
from state.settings import KINDS, Kind, StateSettings

CODE_COUNT = 1 << 16
"""Codes that two bytes hold."""
FIRST_CUSTOM_CODE = 64
"""Lower codes are kept for built-in kinds."""

Mask = npt.NDArray[np.bool_]


def code_of(name: str) -> int:
    """The code of a kind. It never changes.

    >>> code_of("click"), code_of("purchase")
    (0, 3)
    """
    if name in KINDS:
        return list(KINDS).index(name)
    return FIRST_CUSTOM_CODE + xxhash.xxh3_64_intdigest(name.encode()) % (CODE_COUNT - FIRST_CUSTOM_CODE)


class Kinds:
    """The configured kinds, for lookups by a whole column of codes."""

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        """Raises ValueError when two kinds have the same code on disk."""
        self.codes = {name: code_of(name) for name in kinds}
        """Codes by name."""
        self._names = {code: name for name, code in self.codes.items()}
        for name, code in self.codes.items():
            if self._names[code] != name:
                raise ValueError(
                    f"the kinds {name!r} and {self._names[code]!r} have the same code {code} on disk, so the store "
                    f"could not tell them apart: rename one of them in state.kinds"
                )
        role = np.full(CODE_COUNT, "", "U8")
        self.weight = np.zeros(CODE_COUNT, np.float32)
        """[CODE_COUNT] weight of a positive event by code; 0 for every other kind."""
        for name, kind in kinds.items():
            role[self.codes[name]] = kind.role
            self.weight[self.codes[name]] = kind.weight if kind.role == "positive" else 0.0
        self.counts: Mask = self.weight > 0
        """[CODE_COUNT] whether an event of this code counts unless it was undone."""
        self.negative: Mask = role == "negative"
        self.undo: Mask = role == "undo"
        self.forget: Mask = role == "forget"

    def name(self, code: int) -> str:
        """The kind's name; its code where no such kind is configured."""
        return self._names.get(code, f"#{code}")

    def not_undone(self, steps: Records) -> Mask:
        """Which of one node's steps were not undone later; an undo itself is never one of them.

        An undo takes back the newest earlier step of the same item that is not undone yet. For the steps of an item
        (EDGEs): of the same user. The first field of a step is its other end.
        """
        other_end = steps.dtype.names[0]  # type: ignore[index]
        remaining: Mask = ~self.undo[steps["kind"]]
        undos = np.flatnonzero(~remaining)
        if not len(undos):
            return remaining
        others = steps[other_end].tolist()
        stacks: dict[int, list[int]] = {other: [] for other in steps[other_end][undos].tolist()}
        for row, (other, is_step) in enumerate(zip(others, remaining.tolist(), strict=True)):
            if other not in stacks:
                continue
            if is_step:
                stacks[other].append(row)
            elif stacks[other]:
                remaining[stacks[other].pop()] = False
        return remaining

    def counting(self, steps: Records) -> Mask:
        """Which of one node's steps count: of a positive kind with a weight, and not undone."""
        counting: Mask = self.not_undone(steps) & self.counts[steps["kind"]]
        return counting


def kinds_of(settings: StateSettings) -> Kinds:
    """The kinds of these settings, cached."""
    return _cached(tuple(settings.kinds.items()))


@lru_cache(maxsize=8)
def _cached(kinds: tuple[tuple[str, Kind], ...]) -> Kinds:
    return Kinds(dict(kinds))
