"""Measurements for the gate: champion and candidate on held-out events, and on users that the cycle skipped."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from model.encoders.create import Create
from model.encoders.graph_table import graph_table
from model.encoders.histories import Histories
from model.encoders.vocabulary import Vocabulary
from model.fusion_weights.fit_weights import cross_fit_fusion
from model.fusion_weights.holdout import Holdout, Weights
from model.learning.gate import Compared
from model.learning.ranker_in_cycle import RankerInCycle
from model.learning.trained import Trained
from model.metrics import Ranks, ranks_of
from model.ranker.examples import Example
from model.ranker.network import Ranker
from model.ranking.fusion import INITIAL_FUSION, MODEL_ONLY, Fusion, uses_ranker
from model.settings import RankingSettings
from state.sequences import Sequences

USERS_PER_BATCH = 256
"""Users whose newest event is predicted in one forward pass."""


class HoldoutMeasurement(NamedTuple):
    """Fusion weights and figures from the held-out events. The champion is first in each pair."""

    fusion: Fusion
    metrics: dict[str, float]
    newest: Compared
    shown: tuple[int, int]
    """Number of different items recommended."""
    seconds: tuple[list[float], list[float]]
    """Seconds to rank the same users, measured several times."""
    ranker: Ranker | None = None
    """It has learned the held-out events too, after they were measured. None: the fusion ranks."""
    ranker_ts: int = 0


def measure_holdout(
    holdout: Holdout,
    net: Create,
    vocabulary: Vocabulary,
    champion: Trained | None,
    ranking: RankingSettings,
    examples: Sequence[Example] = (),
    seed: int = 0,
    earlier: Callable[[], Holdout] | None = None,
) -> HoldoutMeasurement:
    """Choose the fusion weights, fit the ranker, and measure candidate and champion on the held-out events.

    Each half of the users is measured with weights chosen on the other half, and with a ranker that has learned
    earlier events only. `earlier` has tests before the held-out events: a first ranker may need them. Without a
    champion the candidate is compared with itself.
    """
    crossed = cross_fit_fusion(holdout, net, vocabulary, ranking, champion.fusion if champion else INITIAL_FUSION)
    weights = Weights(crossed.halves[::-1], crossed.half)
    ranker = found = None
    if uses_ranker(ranking):
        ranker = RankerInCycle(champion, examples, holdout, seed)
        if ranker.replays and earlier is not None:
            before = earlier()
            net.graph_table = graph_table(vocabulary, before.rows)
            ranker.replay(before, holdout.stages(net, vocabulary, ranking), crossed.fusion)
        net.graph_table = graph_table(vocabulary, holdout.rows)
        found = ranker.answers(holdout.stages(net, vocabulary, ranking), weights)
        ranker.finish()
    serves = ranker is not None and ranker.serves
    answers = found if found is not None and serves else holdout.answers(net, vocabulary, weights, ranking)
    metrics = answers.scores()
    model_alone = holdout.scores(net, vocabulary, MODEL_ONLY, ranking)
    metrics |= {f"model_{name}": value for name, value in model_alone.items()}
    champion_answers = answers
    if champion is not None:
        champion_answers = holdout.answers(
            champion.model, champion.vocabulary, champion.fusion, ranking, champion.ranker
        )
        metrics |= {f"champion_{name}": value for name, value in champion_answers.scores().items()}
    if ranker is not None:
        metrics |= ranker.metrics()
    served = ranker.learning.ranker if ranker is not None and serves else None
    # Two rankers are compared, or two fusions: that a first ranker takes longer is no fault of the candidate.
    both = champion is not None and champion.ranker is not None and served is not None
    mine = net, vocabulary, served if both else None
    against = (champion.model, champion.vocabulary, champion.ranker if both else None) if champion else mine
    seconds = holdout.seconds([against, mine], ranking)
    return HoldoutMeasurement(
        crossed.fusion,
        metrics,
        newest=Compared(champion_answers.ranks, answers.ranks, holdout.sequences.users),
        shown=(len(np.unique(champion_answers.items)), len(np.unique(answers.items))),
        seconds=(seconds[0], seconds[1]),
        ranker=served,
        ranker_ts=ranker.newest_ts if ranker is not None and serves else 0,
    )


@torch.no_grad()
def measure_forgetting(champion: Trained, net: Create, vocabulary: Vocabulary, gate_users: Sequences) -> Compared:
    """Rank the newest event of each gate user from the events before it, with both models and without the graph.

    Only items that both models know are ranked. Users with fewer than two such events are left out.
    """
    index = champion.vocabulary.lookup(gate_users.steps["item"])
    both = (index > 0) & (vocabulary.lookup(gate_users.steps["item"]) == index)
    indptr = np.concatenate([[0], np.cumsum(both)])[gate_users.indptr]
    rows = np.flatnonzero(np.diff(indptr) > 1)
    items = index[both]
    ranks: tuple[list[Ranks], list[Ranks]] = ([], [])
    for start in range(0, len(rows), USERS_PER_BATCH):
        batch = rows[start : start + USERS_PER_BATCH]
        lengths = indptr[batch + 1] - indptr[batch] - 1
        of_batch = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(of_batch[-1]) + np.repeat(indptr[batch] - of_batch[:-1], lengths)
        histories, targets = Histories(of_batch, items[at]), torch.from_numpy(items[indptr[batch + 1] - 1])
        for model, found in zip((champion.model, net), ranks, strict=True):
            scores = model.encode(histories) @ model.items.weight[: len(champion.vocabulary) + 1].T
            scores[:, 0] = -torch.inf
            found.append(ranks_of(scores, targets))
    no_ranks = np.empty(0, np.int64)
    champion_ranks, candidate_ranks = (np.concatenate([no_ranks, *found]) for found in ranks)
    return Compared(champion_ranks, candidate_ranks, gate_users.users[rows])
