"""The ranker in a cycle: what it learns before the held-out events, how it is judged, and what it learns of them.

A champion's ranker goes on with the examples that are newer than it. A first ranker learns the examples of lists that
the fusion made. Where there are too few of these, events are ranked again as they came:

    earlier events       without the encoder, which has learned them and would look better than it is
    held-out events      as the worker would; each batch is ranked first and learned then

The ranker is judged by examples that it has not learned yet: each is ranked first and learned then. If it ranks them
significantly worse than the fused score does, the fusion serves.
"""

import math
from collections.abc import Sequence
from functools import cached_property

import msgspec
import numpy as np
import torch

from model.fusion_weights.holdout import Holdout, HoldoutAnswers, Rankings, Weights
from model.learning.gate import MIN_BOOTSTRAP_USERS
from model.learning.trained import Trained
from model.metrics import CUTOFF, Ranks, lead
from model.ranker.examples import Example, Ring, examples_of
from model.ranker.learning import MIN_EXAMPLES, STEP_EXAMPLES, LearningRanker, new_ranker
from model.ranker.network import as_tensors, ranks_among
from model.ranking.features import NAMES, START
from model.ranking.fusion import Fusion
from model.ranking.stages import Stages
from state.events import Ids

FIRST_STEPS, FIRST_EPOCHS = 200, (4, 12)
"""Steps of a first ranker over its examples, and the fewest and most epochs that these may be. Of few examples more
epochs learn what happened by chance."""
EPOCHS = 2
"""Epochs over the newest examples: without those of held-out events, and then with them."""
REPLAYED_EVENTS = 6_000
"""Earlier events that are ranked again for a first ranker, at most half of all."""
SERVES, TOO_FEW, WORSE = 1.0, 0.0, -1.0
"""The metric `ranker` of a version."""


class RankerInCycle:
    """One cycle's ranker."""

    def __init__(self, champion: Trained | None, examples: Sequence[Example], holdout: Holdout, seed: int) -> None:
        """Learn the examples whose event came before the first held-out event. `examples` are in order."""
        self._holdout, self._draw = holdout, np.random.default_rng(seed)
        self._judged: list[tuple[Ranks, Ranks, Ids]] = []
        known, learned_ts = (champion.ranker, champion.ranker_ts) if champion is not None else (None, 0)
        self._is_first = self._unfitted = known is None
        self.newest_ts = learned_ts if known is not None else 0
        """Event time, ms, of the newest example that was learned."""
        self.learning = LearningRanker(known or new_ranker(len(NAMES), START, seed), len(NAMES), seed, near=math.inf)
        self._begun = known is not None
        moment = int(holdout.times[0]) if len(holdout.times) else math.inf
        usable = [example for example in examples if example.features.shape[1] == len(NAMES)]
        before = [example for example in usable if example.ts < moment]
        self._after = [example for example in usable if example.ts >= max(moment, self.newest_ts + 1)]
        self.replays = self._is_first and len(before) < MIN_EXAMPLES
        """Whether there are too few examples for a first ranker: events are ranked again."""
        if not self.replays:
            self.learning.keep([example for example in before if example.ts <= self.newest_ts])
            self._learn([example for example in before if example.ts > self.newest_ts])
            self._fit()

    def replay(self, earlier: Holdout, stages: Stages, fusion: Fusion) -> None:
        """Rank events again that came before the held-out ones, without the encoder, and learn them."""
        alone = msgspec.structs.replace(fusion, model=0.0)
        for found in earlier.rankings(stages, Weights.same(alone, earlier), shown=True):
            self._learn(self._examples_of(earlier, found), judge=False)
        self._fit()

    def answers(self, stages: Stages, weights: Weights) -> HoldoutAnswers:
        """Recommendations at the held-out events; where they are replayed, each batch is learned after its ranking."""
        items = np.zeros((len(self._holdout.targets), CUTOFF), np.uint64)
        stages.ranker = self.learning.ranker
        for found in self._holdout.rankings(stages, weights, shown=self.replays):
            items[found.tests] = found.items
            if self.replays:
                self._learn(self._examples_of(self._holdout, found))
        return self._holdout.answered(items)

    def finish(self) -> None:
        """Learn the examples of held-out events too."""
        if not self.replays:
            self._learn(self._after)
        if self.replays or self._after:
            self._fit()

    @property
    def serves(self) -> bool:
        """Whether there are enough examples and the ranker is not significantly worse than the fused score."""
        return self._outcome[0] == SERVES

    def metrics(self) -> dict[str, float]:
        """What the manifest stores of the ranker: its outcome, its examples, its lead over the fused score."""
        outcome, change, low, high = self._outcome
        found = {"ranker": outcome, "ranker_examples": float(len(self.learning.ring))}
        if math.isfinite(low):
            found |= {"ranker_lead": change, "ranker_low": low, "ranker_high": high}
        return found

    @cached_property
    def _outcome(self) -> tuple[float, float, float, float]:
        if self._is_first and len(self.learning.ring) < MIN_EXAMPLES:
            return TOO_FEW, math.nan, math.nan, math.nan
        if len({user for *_, users in self._judged for user in users.tolist()}) < MIN_BOOTSTRAP_USERS:
            return SERVES, math.nan, math.nan, math.nan
        change, low, high = lead(*(np.concatenate(part) for part in zip(*self._judged, strict=True)))
        return (WORSE if high < 0 else SERVES), change, low, high

    def _examples_of(self, holdout: Holdout, found: Rankings) -> list[Example]:
        of = found.tests
        return examples_of(found.shown, holdout.targets[of], holdout.sequences.users[of], holdout.times[of], self._draw)

    def _learn(self, examples: Sequence[Example], *, judge: bool = True) -> None:
        """Rank examples, then learn them: as many at once as a step takes."""
        for start in range(0, len(examples), STEP_EXAMPLES):
            chunk = examples[start : start + STEP_EXAMPLES]
            if judge:
                self._judge(chunk)
            if self._begun:
                self.learning.add(chunk)
            else:
                self.learning.keep(chunk)
                self.learning.standardise(untrained=True)
                self._begun = True
            self.newest_ts = max(self.newest_ts, *(example.ts for example in chunk))

    @torch.no_grad()
    def _judge(self, chunk: Sequence[Example]) -> None:
        together = Ring(len(NAMES), STEP_EXAMPLES)
        together.add(chunk)
        features, stands_for = as_tensors(*together.take(together.newest(len(chunk))))
        ranked = ranks_among(self.learning.ranker(features), stands_for)
        fused = ranks_among(features[..., START], stands_for)
        self._judged.append((ranked, fused, np.array([example.user for example in chunk], np.uint64)))

    def _fit(self) -> None:
        """Epochs over the newest examples, with features standardised by them."""
        count = len(self.learning.ring)
        if not count:
            return
        self.learning.standardise()
        self.learning.fit(first_epochs(count) if self._unfitted else EPOCHS)
        self._unfitted = False


def first_epochs(examples: int) -> int:
    """Epochs of a first ranker over this many examples, at least one."""
    fewest, most = FIRST_EPOCHS
    return min(max(-(-FIRST_STEPS * STEP_EXAMPLES // examples), fewest), most)
