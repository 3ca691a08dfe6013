"""The ranker in a cycle: what it learns before the held-out events, how it is judged, and what it learns of them.

A champion's ranker goes on with the examples that are newer than it. A first ranker learns the examples of lists that
the fusion made. Where there are too few of these, the held-out events are ranked again as they came, and it learns from
each batch after it has ranked it.

The ranker is judged by examples that it has not learned yet: each is ranked first and learned then. If it ranks them
significantly worse than the fused score does, the fusion serves.
"""

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from model.fusion_weights.holdout import Holdout, HoldoutAnswers, Weights
from model.learning.gate import MIN_BOOTSTRAP_USERS
from model.learning.trained import Trained
from model.metrics import CUTOFF, Ranks, lead
from model.ranker.examples import Example, Ring, example_of
from model.ranker.learning import MIN_EXAMPLES, STEP_EXAMPLES, LearningRanker, new_ranker
from model.ranker.network import as_tensors, ranks_among
from model.ranking.features import NAMES, START
from model.ranking.stages import Stages
from state.events import Ids

FIRST_EPOCHS = 6
"""Epochs of a first ranker over its examples."""
EPOCHS = 1
"""Epochs over the newest examples: without those of held-out events, and then with them."""
SERVES, TOO_FEW, WORSE = 1.0, 0.0, -1.0
"""The metric `ranker` of a version."""


class RankerInCycle:
    """One cycle's ranker."""

    def __init__(self, champion: Trained | None, examples: Sequence[Example], holdout: Holdout, seed: int) -> None:
        """Learn the examples whose event came before the first held-out event. `examples` are in order."""
        examples = [example for example in examples if example.features.shape[1] == len(NAMES)]
        moment = int(holdout.times[0]) if len(holdout.times) else math.inf
        before = [example for example in examples if example.ts < moment]
        self._after = [example for example in examples if example.ts >= moment]
        self._holdout, self._draw = holdout, np.random.default_rng(seed)
        self._judged: list[tuple[Ranks, Ranks, Ids]] = []
        self.newest_ts = 0
        """Event time, ms, of the newest example that was learned."""
        known = champion.ranker if champion is not None else None
        self.learning = LearningRanker(known or new_ranker(len(NAMES), START, seed), len(NAMES), seed, near=math.inf)
        self._untrained = known is None
        self._has_champions = known is not None
        if champion is not None and known is not None:
            self.newest_ts = champion.ranker_ts
            self.learning.keep([example for example in before if example.ts <= champion.ranker_ts])
            self._learn([example for example in before if example.ts > champion.ranker_ts])
            self._after = [example for example in self._after if example.ts > champion.ranker_ts]
            self._fit(EPOCHS)
        elif len(before) >= MIN_EXAMPLES:
            self._learn(before)
            self._fit(FIRST_EPOCHS)
        else:
            self._learn(before)
        self._replays = known is None and len(before) < MIN_EXAMPLES

    def answers(self, stages: Stages, weights: Weights) -> HoldoutAnswers:
        """Recommendations at the held-out events. A first ranker without enough examples learns them as they come."""
        items = np.zeros((len(self._holdout.targets), CUTOFF), np.uint64)
        stages.ranker = self.learning.ranker
        for found in self._holdout.rankings(stages, weights, shown=self._replays):
            items[found.tests] = found.items
            if self._replays:
                rows = range(found.tests.start, found.tests.start + len(found.shown))
                taken = [
                    example_of(
                        shown, int(self._holdout.targets[row]), int(self._holdout.sequences.users[row]),
                        int(self._holdout.times[row]), "", self._draw,
                    )
                    for row, shown in zip(rows, found.shown, strict=True) if shown is not None
                ]  # fmt: skip
                self._learn([example for example in taken if example is not None])
        return self._holdout.answered(items)

    def finish(self) -> None:
        """Learn the examples of held-out events too."""
        if self._replays:
            self._fit(FIRST_EPOCHS)
        elif self._after:
            self._learn(self._after)
            self._fit(EPOCHS)

    @property
    def serves(self) -> bool:
        """Whether there are enough examples and the ranker is not significantly worse than the fused score."""
        return self._outcome[0] == SERVES

    def metrics(self) -> dict[str, float]:
        """What the manifest stores of the ranker: its outcome, its examples, its lead over the fused score."""
        outcome, change, low, high = self._outcome
        found = {"ranker": outcome, "ranker_examples": float(sum(len(users) for *_, users in self._judged))}
        if math.isfinite(low):
            found |= {"ranker_lead": change, "ranker_low": low, "ranker_high": high}
        return found

    @cached_property
    def _outcome(self) -> tuple[float, float, float, float]:
        if not self._has_champions and len(self.learning.ring) < MIN_EXAMPLES:
            return TOO_FEW, math.nan, math.nan, math.nan
        if len({user for *_, users in self._judged for user in users.tolist()}) < MIN_BOOTSTRAP_USERS:
            return SERVES, math.nan, math.nan, math.nan
        change, low, high = lead(*(np.concatenate(part) for part in zip(*self._judged, strict=True)))
        return (WORSE if high < 0 else SERVES), change, low, high

    def _learn(self, examples: Sequence[Example]) -> None:
        """Rank examples, then learn them: as many at once as a step takes."""
        for start in range(0, len(examples), STEP_EXAMPLES):
            chunk = examples[start : start + STEP_EXAMPLES]
            self._judge(chunk)
            if self._untrained:
                self.learning.keep(chunk)
                self.learning.standardise(untrained=True)
                self._untrained = False
            else:
                self.learning.add(chunk)
            self.newest_ts = max(self.newest_ts, *(example.ts for example in chunk))

    @torch.no_grad()
    def _judge(self, chunk: Sequence[Example]) -> None:
        together = Ring(len(NAMES), STEP_EXAMPLES)
        together.add(chunk)
        features, stands_for = as_tensors(*together.take(together.newest(len(chunk))))
        self._judged.append(
            (
                ranks_among(self.learning.ranker(features), stands_for),
                ranks_among(features[..., START], stands_for),
                np.array([example.user for example in chunk], np.uint64),
            )
        )

    def _fit(self, epochs: int) -> None:
        if len(self.learning.ring):
            self.learning.standardise()
        self.learning.fit(epochs)
