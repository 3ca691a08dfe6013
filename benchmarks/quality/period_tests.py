"""Recall@20 and MRR@20 of a model, a live graph and counts on one period (benchmarks/quality/periods.py)."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.quality.period_sessions import SessionTests
from benchmarks.quality.session_graph import Fused, SessionGraph, choose_weights
from model.encoders.create import Create
from model.encoders.histories import Histories, pack
from model.evaluation.rivals import HistoryScorer
from model.ranking.fusion import Fusion

BATCH_ROWS = 256


@torch.no_grad()
def encodings(model: Create, sessions: Histories) -> Tensor:
    """The encoded history h of every test, session after session, [T, d]. A causal encoder reads each session once."""
    limit, made = model.settings.sequence_events, []
    if sessions.lengths.max(initial=0) > limit + 1:  # a longer history is truncated, which shifts its positions
        before = SessionTests.of(sessions).before
        return torch.cat([model.encode(before.take(at)) for at in blocks(len(before))])
    model.eval()
    for at in blocks(len(sessions)):
        examples = model.sequence.examples(sessions.take(at), limit, np.random.default_rng())
        packed = pack(examples.inputs)
        encoded = model.sequence(model.items(packed.items), packed)
        made.append(encoded[packed.tokens[torch.from_numpy(examples.predicted)]])
    return torch.cat(made)


def blocks(count: int) -> list[np.ndarray]:
    """Row numbers, BATCH_ROWS at a time."""
    return [np.arange(start, min(start + BATCH_ROWS, count)) for start in range(0, count, BATCH_ROWS)]


def ranks_of(scores: Tensor, targets: Tensor) -> np.ndarray:
    """The number of other items that score at least as high as the target. Padding is left out."""
    own = scores.gather(1, targets[:, None])
    found: np.ndarray = (scores[:, 1:] >= own).sum(1).numpy() - 1
    return found


def recall_and_mrr(ranks: np.ndarray) -> tuple[float, float]:
    """Recall@20 and MRR@20, in percent."""
    hit = ranks < 20
    return 100 * float(hit.mean()), 100 * float(np.where(hit, 1 / (ranks + 1), 0).mean())


class PeriodResult(NamedTuple):
    """Recall@20 and MRR@20 of a model on one period, in percent."""

    alone: tuple[float, float]
    live: tuple[float, float]
    """With the live graph."""
    fusion: Fusion
    """Weights chosen on this period, for the next one."""


def evaluate_model(model: Create, sessions: Histories, graph: SessionGraph, fusion: Fusion) -> PeriodResult:
    """Evaluate a model alone, and with the signals of the graph weighted by `fusion`."""
    test, encoded, table = SessionTests.of(sessions), encodings(model, sessions), model.items.weight.detach().T
    fused, by_model, by_both = Fused(graph, fusion), [], []
    for at in blocks(len(test.targets)):
        scores, targets = encoded[at] @ table, torch.from_numpy(test.targets[at])
        by_model.append(ranks_of(scores, targets))
        by_both.append(ranks_of(fused.scores(scores, test.before.take(at)), targets))
    best = choose_weights(graph, encoded, table, test.before, test.targets, fusion)
    return PeriodResult(recall_and_mrr(np.concatenate(by_model)), recall_and_mrr(np.concatenate(by_both)), best)


def evaluate_alone(model: Create, sessions: Histories) -> tuple[float, float]:
    """Evaluate a model alone."""
    test, encoded, table = SessionTests.of(sessions), encodings(model, sessions), model.items.weight.detach().T
    found = [ranks_of(encoded[at] @ table, torch.from_numpy(test.targets[at])) for at in blocks(len(test.targets))]
    return recall_and_mrr(np.concatenate(found))


def evaluate_scorer(scorer: HistoryScorer, sessions: Histories) -> tuple[float, float]:
    """Evaluate a scorer that needs no training."""
    test = SessionTests.of(sessions)
    ranks = [
        ranks_of(scorer(test.before.take(at)), torch.from_numpy(test.targets[at])) for at in blocks(len(test.targets))
    ]
    return recall_and_mrr(np.concatenate(ranks))
