"""Learning of the ranker: online, for every example, and in a cycle, on the newest examples.

Online: for each NEW_EXAMPLES new examples one step on them, and one on STEP_EXAMPLES of the newest `capacity`. In a
cycle: epochs over the newest examples. Both are Adam steps on the same weights. Online the weights stay near those of
the version: at most NEAR times their length away.
"""

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from model.ranker.examples import Example, Ring
from model.ranker.network import LEARNING_RATE, Ranker, as_tensors

STEP_EXAMPLES = 64
"""Examples of one step."""
NEW_EXAMPLES = 16
"""New examples after which there are two steps: one on them, and one on STEP_EXAMPLES of the newest."""
RING_EXAMPLES = 6_000
MIN_EXAMPLES = 200
"""A ranker is fitted to at least this many examples; the fusion ranks until then."""
STANDARD_EXAMPLES = 1_000
"""Newest examples by which features are standardised."""
NEAR = 1.0
"""Distance that online learning may move the weights, as a share of the length of the version's."""


class LearningRanker:
    """A ranker, its newest examples and its optimiser. Deterministic for a seed.

    Another thread may rank with `ranker` while this one learns: a step changes each weight a little.
    """

    def __init__(
        self, ranker: Ranker, features: int, seed: int = 0, capacity: int = RING_EXAMPLES, *, near: float = NEAR
    ) -> None:
        """`ranker` is copied. `near`: the share of its length by which its weights may move; infinite in a cycle."""
        self.ring = Ring(features, capacity)
        self.near = near
        self._waiting: list[Example] = []
        self._draw = np.random.default_rng(seed)
        self._dropout = torch.Generator().manual_seed(seed)
        self._begin(ranker)

    def _begin(self, ranker: Ranker) -> None:
        self.ranker = copied(ranker)
        self._optimiser = torch.optim.Adam(self.ranker.parameters(), LEARNING_RATE)
        with torch.no_grad():
            self._version = parameters_to_vector(self.ranker.parameters()).clone()

    def add(self, examples: Sequence[Example]) -> None:
        """Add examples, and take two steps for each NEW_EXAMPLES of them."""
        self._waiting += examples
        while len(self._waiting) >= NEW_EXAMPLES:
            new, self._waiting = self._waiting[:NEW_EXAMPLES], self._waiting[NEW_EXAMPLES:]
            before = self.ring.newest(len(self.ring))
            self.ring.add(new)
            self._learn(before, self.ring.newest(len(new)))

    def follow(self, ranker: Ranker, learned_ts: int) -> None:
        """Go on from the ranker of a new version.

        Examples of the ring that are newer than `learned_ts`, event time in ms, are learned once more: the version has
        not learned them. With many of them this takes a second.
        """
        self._begin(ranker)
        places = self.ring.newest(len(self.ring))
        newer = places[self.ring.ts[places] > learned_ts]
        for start in range(0, len(newer), NEW_EXAMPLES):
            self._learn(places, newer[start : start + NEW_EXAMPLES])

    def forget(self, user: int) -> None:
        """Remove a user's examples. What was learned from them stays."""
        self.ring.forget(user)
        self._waiting = [example for example in self._waiting if example.user != user]

    def keep(self, examples: Sequence[Example]) -> None:
        """Add examples without learning them: they were learned before."""
        self.ring.add(examples)

    def fit(self, epochs: int) -> None:
        """Learn the newest examples in random order, this many times; those too, that wait for a step."""
        self.ring.add(self._waiting)
        self._waiting = []
        for _ in range(epochs):
            places = self._draw.permutation(self.ring.newest(len(self.ring)))
            for start in range(0, len(places), STEP_EXAMPLES):
                self._step(places[start : start + STEP_EXAMPLES])

    def standardise(self, *, untrained: bool = False) -> None:
        """Standardise the ranker's features by the newest examples. Its scores stay as they are."""
        features, stands_for = self.ring.take(self.ring.newest(STANDARD_EXAMPLES))
        rows = features[stands_for > 0].astype(np.float32)
        if len(rows):
            (self.ranker.begin if untrained else self.ranker.standardise_again)(rows)

    def _learn(self, before: np.ndarray, new: np.ndarray) -> None:
        """A step on some of the examples before, and one on the new ones."""
        if len(before):
            self._step(self._draw.choice(before, STEP_EXAMPLES))
        self._step(new)

    def _step(self, places: np.ndarray) -> None:
        features, stands_for = as_tensors(*self.ring.take(places))
        if not len(features):
            return
        loss = self.ranker.loss(features, stands_for, self._dropout)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        if math.isfinite(self.near):
            self._stay_near()

    @torch.no_grad()
    def _stay_near(self) -> None:
        moved = parameters_to_vector(self.ranker.parameters()) - self._version
        length, longest = moved.norm(), self.near * self._version.norm()
        if length > longest:
            vector_to_parameters(self._version + moved * (longest / length), self.ranker.parameters())


def new_ranker(features: int, start: int | None, seed: int) -> Ranker:
    """An untrained ranker with the order of feature `start`; other random numbers of torch stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Ranker(features, start)


def copied(ranker: Ranker) -> Ranker:
    """An independent copy."""
    return copy.deepcopy(ranker)
