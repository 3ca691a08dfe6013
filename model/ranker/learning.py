"""Learning of the ranker: online, for every event, and in a cycle, on the newest examples.

Online: for each STEP_EXAMPLES new examples one step on them, and one on as many of the newest `capacity`. In a cycle:
CYCLE_EPOCHS over the newest examples. Both are Adam steps on the same weights.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch

from model.ranker.examples import Example, Ring
from model.ranker.network import LEARNING_RATE, Ranker, as_tensors

STEP_EXAMPLES = 64
"""Examples of one step."""
FIRST_EPOCHS = 6
CYCLE_EPOCHS = 2
RING_EXAMPLES = 6_000
MIN_EXAMPLES = 200
"""A ranker is fitted to at least this many examples; the fusion ranks until then."""


class LearningRanker:
    """A ranker, its newest examples and its optimiser."""

    def __init__(self, ranker: Ranker, features: int, seed: int = 0, capacity: int = RING_EXAMPLES) -> None:
        self.ranker = ranker
        self.ring = Ring(features, capacity)
        self._draw = np.random.default_rng(seed)
        self._waiting: list[Example] = []
        self._optimiser = torch.optim.Adam(ranker.parameters(), LEARNING_RATE)

    def add(self, examples: Sequence[Example]) -> None:
        """Add examples, and take a step for each STEP_EXAMPLES of them."""
        self._waiting += examples
        while len(self._waiting) >= STEP_EXAMPLES:
            new, self._waiting = self._waiting[:STEP_EXAMPLES], self._waiting[STEP_EXAMPLES:]
            before = len(self.ring)
            if before:
                self._step(self._draw.choice(self.ring.newest(before), STEP_EXAMPLES))
            self.ring.add(list(new))
            self._step(self.ring.newest(len(new)))

    def fit(self, epochs: int) -> None:
        """Learn all examples of the ring, in random order, this many times."""
        for _ in range(epochs):
            places = self._draw.permutation(self.ring.newest(len(self.ring)))
            for start in range(0, len(places), STEP_EXAMPLES):
                self._step(places[start : start + STEP_EXAMPLES])

    def _step(self, places: np.ndarray) -> None:
        features, stands_for = as_tensors(*self.ring.take(places))
        if not len(features):
            return
        self.ranker.train()
        loss = self.ranker.loss(features, stands_for)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self.ranker.eval()


def fit_first(examples: Sequence[Example], features: int, start: int | None, seed: int = 0) -> LearningRanker:
    """A first ranker, fitted to these examples."""
    torch.manual_seed(seed)
    learning = LearningRanker(Ranker(features, start), features, seed)
    learning.ring.add(list(examples))
    learning.ranker.standardise(np.concatenate([example.features.astype(np.float32) for example in examples[-1500:]]))
    learning.fit(FIRST_EPOCHS)
    return learning


def copied(ranker: Ranker) -> Ranker:
    """An independent copy."""
    return copy.deepcopy(ranker)
