"""Choices: the next item of a user and alternatives to it, with the signals of all of them.

Fusion weights are fitted to choices (`model.fusion_weights.conditional_logit`). A version's are fitted to its holdout,
a worker's to the newest clicks. A large catalogue has too many items for all to be alternatives. Items with the highest
signals are taken; of the rest a sample is taken, in which each item stands for many.
"""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import torch
from torch import Tensor

from model.encoders.create import Create
from model.encoders.histories import to_histories
from model.encoders.vocabulary import Vocabulary
from model.fusion_weights.conditional_logit import Choice, ChoiceSets
from model.fusion_weights.holdout import Holdout, slice_sequences
from model.ranking.fusion import INITIAL_FUSION, Signal
from model.ranking.stages import LiveGraph, Stages
from model.settings import RankingSettings
from state.events import Ids
from state.sequences import Sequences

BEFORE_SHARES = (0.0, 0.5, 1.0)
"""Values of `Fusion.before` that are tried. A choice set holds the evidence for each of them, from EVIDENCE on."""
TOP_PER_SIGNAL = (150, 100, 50, 60, 60, 60)
"""Number of alternatives for each signal of a choice set: the items where the signal is highest and above 0."""
SAMPLED_NEGATIVES = 100
"""Number of alternatives that are sampled from all other items."""


def build_choice_sets(holdout: Holdout, model: Create, vocabulary: Vocabulary, settings: RankingSettings) -> ChoiceSets:
    """Choices of the held-out events whose item the version knows, with F = 3 + len(BEFORE_SHARES) signals each."""
    stages = Stages(model, vocabulary, INITIAL_FUSION, msgspec.structs.replace(settings, because=False, fresh_items=0))
    draw = torch.Generator().manual_seed(0)
    # Allocated before the loop: long-lived tensors between the large temporary ones would fragment the heap.
    width = 1 + sum(TOP_PER_SIGNAL) + SAMPLED_NEGATIVES
    choices = ChoiceSets.empty(len(holdout.targets), width, len(TOP_PER_SIGNAL))
    count = 0
    for tests, applied, graph in holdout.batches(len(vocabulary)):
        stages.update(applied)
        part = slice_sequences(holdout.sequences, tests.start, tests.stop)
        signals = stages.signals(part, graph, BEFORE_SHARES)
        targets = torch.from_numpy(vocabulary.lookup(holdout.targets[tests]))
        for choice in _choices(signals, targets, eligible_items(part, vocabulary, settings), draw):
            choices.put(count, choice)
            count += 1
    return ChoiceSets(choices.signals[:count], choices.correction[:count])


def build_choices(
    stages: Stages, before: Sequences, targets: Ids, graph: LiveGraph, settings: RankingSettings, draw: torch.Generator
) -> list[Choice]:
    """Choices of clicks that the graph has not applied yet, with F = 4 signals each.

    `before` are the users' histories before the clicks, `targets` the clicked items. A click on an item that the
    version does not know gives no choice.
    """
    possible = eligible_items(before, stages.vocabulary, settings)
    indices = torch.from_numpy(stages.vocabulary.lookup(targets))
    return list(_choices(stages.signals(before, graph), indices, possible, draw))


def _choices(signals: Tensor, targets: Tensor, possible: Tensor, draw: torch.Generator) -> Iterator[Choice]:
    for row in (targets > 0).nonzero()[:, 0].tolist():
        items, correction = sample_alternatives(targets[row], possible[row], list(signals[:, row]), draw)
        yield Choice(signals[:, row, items].T, correction)


def eligible_items(sequences: Sequences, vocabulary: Vocabulary, settings: RankingSettings) -> Tensor:
    """[B, n + 1] bool: whether the user can choose the item. With `filter_seen` only unseen items can be chosen."""
    possible = torch.ones(len(sequences.users), len(vocabulary) + 1, dtype=torch.bool)
    possible[:, 0] = False
    possible[:, torch.from_numpy(vocabulary.free)] = False
    if settings.filter_seen:
        seen = to_histories(sequences, vocabulary)
        possible[torch.from_numpy(seen.users), torch.from_numpy(seen.items)] = False
    return possible


def sample_alternatives(
    target: Tensor, possible: Tensor, signals: Sequence[Tensor], draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Items [C] of one choice, and [C] the log of how many items each stands for.

    The target is first, then the items where a signal is highest, then sampled items. `possible` [n + 1] marks the
    items that could be chosen. Each of `signals` is [n + 1], in the order of a choice set.
    """
    chosen = torch.zeros_like(possible)
    for number, (signal, count) in enumerate(zip(signals, TOP_PER_SIGNAL, strict=False)):
        top = signal.masked_fill(~possible, -torch.inf).topk(min(count, len(signal)))
        counts = torch.isfinite(top.values) if number == Signal.MODEL else top.values > 0
        chosen[top.indices[counts]] = True
    chosen[target] = False
    highest = chosen.nonzero()[:, 0]
    sampled = torch.unique(torch.randint(1, len(possible), (SAMPLED_NEGATIVES,), generator=draw))
    sampled = sampled[possible[sampled] & ~chosen[sampled] & (sampled != target)]
    rest = max(int(possible.sum()) - len(highest) - 1, 1)
    correction = torch.zeros(1 + len(highest) + len(sampled))
    correction[1 + len(highest) :] = float(np.log(rest / max(len(sampled), 1)))
    return torch.cat([target[None], highest, sampled]), correction
