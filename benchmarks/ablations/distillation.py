"""Distillation against forgetting: a candidate also learns the champion's scores on old sequences (Mi et al., 2020).

    L = L_new + λ · KL(champion ‖ candidate) on exemplars      λ = distil · √(old items / items · exemplars / new ones)

λ grows with the share of old items and falls with the number of new sequences (ADER, arXiv 2007.12000, eq. 4). The
champion scores once, before training, and only its top items count. The candidate's softmax is over these items and
the shared negatives.

The result is no better than learning the old sequences again, at three times the cost (`results/streams/report.md`).
"""

import math

import numpy as np
import torch
from torch import Tensor

from model.encoders.create import Create
from model.encoders.histories import Histories, pack
from model.encoders.vocabulary import Indices

ITEMS_PER_EXEMPLAR = 100
"""The champion's top items that count for an exemplar."""
MAX_SCORES_PER_BATCH = 1 << 23
"""Maximum number of scores of the champion in memory."""


def adaptive(distil: float, old_items: int, items: int, exemplars: int, new: int) -> float:
    """λ of ADER's equation 4. `old_items` of the `items` were known before; `new` sequences are learned with exemplars.

    >>> round(adaptive(0.8, 90, 100, 1000, 4000), 6)
    0.379473
    """
    return distil * math.sqrt(old_items / max(items, 1) * exemplars / max(new, 1))


class Distillation:
    """The champion's scores on the exemplars, as a term of the joint loss: `Experiment(extra_loss=...)`."""

    @torch.no_grad()
    def __init__(self, champion: Create, exemplars: Histories, shared: Indices, weight: float, sequences: int) -> None:
        """`exemplars` have only `shared` items, which have the same indices in champion and candidate.

        `sequences` is the number of sequences in an epoch, in which each exemplar is drawn about once.
        """
        self.exemplars = exemplars.take(np.flatnonzero(exemplars.lengths > 0))
        self._share = len(self.exemplars) / max(sequences, 1)
        self.weight = weight if len(shared) else 0.0
        known, count = torch.from_numpy(shared), min(ITEMS_PER_EXEMPLAR, len(shared))
        self._first = torch.zeros(len(self.exemplars), count, dtype=torch.long)
        self._probabilities = torch.zeros(len(self.exemplars), count)
        if not self.weight:
            return
        table, batch_size = champion.items.weight[known].T, max(MAX_SCORES_PER_BATCH // len(shared), 1)
        for start in range(0, len(self.exemplars), batch_size):
            at = np.arange(start, min(start + batch_size, len(self.exemplars)))
            best = (champion.encode(self.exemplars.take(at)) @ table).topk(count)
            self._first[at], self._probabilities[at] = known[best.indices], best.values.softmax(1)

    def loss(self, model: Create, batch: int, negatives: Tensor, draw: np.random.Generator) -> Tensor | float:
        """λ · KL, up to a constant, on as many exemplars as belong to a batch of `batch` sequences."""
        count = min(math.ceil(batch * self._share), batch, len(self.exemplars))
        if not count or not self.weight:
            return 0.0
        at = draw.integers(0, len(self.exemplars), count)
        packed = pack(model.sequence.serving_inputs(self.exemplars.take(at), model.settings.sequence_events))
        encoded = model.sequence(model.rows(packed.items), packed)[packed.last]
        first = torch.einsum("bd,bkd->bk", encoded, model.rows(self._first[at]))
        others = encoded @ model.rows(negatives).T
        log_probabilities = torch.cat([first, others], 1).log_softmax(1)[:, : first.shape[1]]
        return -self.weight * (self._probabilities[at] * log_probabilities).sum(1).mean()
