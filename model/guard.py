"""Against forgetting: of old sequences a candidate still says what the champion said (ADER, Mi et al., 2020).

    L = L_new + λ · KL(champion ‖ candidate) on exemplars    λ = distil · √(old items / items · exemplars / learners)

λ grows with what there is to be kept and shrinks with what is new (arXiv 2007.12000, eq. 4). The champion speaks once,
before training, and only for the items it puts first; the candidate's softmax is over those and shared negatives.
"""

import math

import numpy as np
import torch
from torch import Tensor

from model.create import Create
from model.histories import Histories, pack

SPOKEN_FOR = 100
"""Items the champion puts first, of an exemplar."""
AT_ONCE = 256


class Guard:
    """What the champion said of the exemplars, and what it costs to say otherwise."""

    @torch.no_grad()
    def __init__(self, champion: Create, exemplars: Histories, distil: float, items: int, learners: int) -> None:
        """`items` of the candidate; `learners`: sequences it learns from."""
        self._exemplars = exemplars.take(np.flatnonzero(exemplars.lengths > 0))
        self._share = len(self._exemplars) / max(learners, 1)
        self.weight = distil * math.sqrt(champion.item_count / max(items, 1) * min(self._share, 1.0))
        count = min(SPOKEN_FOR, champion.item_count)
        self._first = torch.zeros(len(self._exemplars), count, dtype=torch.long)
        self._said = torch.zeros(len(self._exemplars), count)
        for start in range(0, len(self._exemplars), AT_ONCE):
            at = np.arange(start, min(start + AT_ONCE, len(self._exemplars)))
            scores = champion.encode(self._exemplars.take(at)) @ champion.items.weight.T
            scores[:, 0] = -torch.inf
            best = scores.topk(count)
            self._first[at], self._said[at] = best.indices, best.values.softmax(1)

    def loss(self, model: Create, batch: int, negatives: Tensor, draw: np.random.Generator) -> Tensor | float:
        """λ · KL on as many exemplars as let each be met once in an epoch of batches of `batch`; without a constant."""
        count = min(math.ceil(batch * self._share), batch, len(self._exemplars))
        if not count or not self.weight:
            return 0.0
        at = draw.integers(0, len(self._exemplars), count)
        packed = pack(model.sequence.asked(self._exemplars.take(at), model.settings.sequence_events))
        encoded = model.sequence(model.items(packed.items), packed)[packed.last]
        first = torch.einsum("bd,bkd->bk", encoded, model.items(self._first[at]))
        others = encoded @ model.items(negatives).T
        said = torch.cat([first, others], 1).log_softmax(1)[:, : first.shape[1]]
        return -self.weight * (self._said[at] * said).sum(1).mean()
