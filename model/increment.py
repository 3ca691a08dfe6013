"""One cycle of learning: from a champion (or nothing) and users' sequences to a candidate, measured on newest events.

Some of the newest events are kept back first (`model.holdout`): champion and candidate are measured on them, the fusion
weights are chosen on them, with a graph of its own that has not seen them. Then the candidate learns them too.
"""

from typing import NamedTuple

import numpy as np
import torch

from model.catalogue import RowsOf, neighbourhood
from model.create import Create
from model.fusion import AT_FIRST, MODEL_ALONE, Fusion
from model.histories import to_histories
from model.holdout import Holdout, choose_fusion, cut
from model.settings import ModelSettings, RankingSettings, TrainingSettings, without_graph
from model.training import train
from model.vocabulary import Vocabulary
from state.sequences import Sequences
from state.settings import StateSettings


class Trained(NamedTuple):
    """A model that can be published: what it is and what it was measured to be."""

    model: Create
    vocabulary: Vocabulary
    fusion: Fusion
    metrics: dict[str, float]
    parent: str | None


def learn(
    champion: Trained | None,
    parent: str | None,
    sequences: Sequences,
    names: dict[int, str],
    rows_of: RowsOf,
    *,
    model: ModelSettings,
    training: TrainingSettings,
    ranking: RankingSettings,
    state: StateSettings,
    seed: int,
) -> Trained:
    """Learn from these users' sequences (new ones and replayed ones).

    `names` maps hashes of items the champion does not know to their ids; `rows_of` is the live graph, from whose
    neighbourhoods new items get their rows. Without a champion everything is learned from nothing.
    """
    torch.manual_seed(seed)
    past, holdout = cut(sequences, training.holdout_events)
    fresh = champion is None or champion.model.settings != model
    if fresh:
        vocabulary = Vocabulary(np.empty(0, np.uint64), [])
        net = Create(0, model)
    else:
        assert champion is not None
        vocabulary, net = champion.vocabulary, champion.model
    vocabulary, net = grow(net, vocabulary, names, rows_of)
    histories = to_histories(past, vocabulary)
    learning_rate = training.learning_rate if fresh else training.increment_learning_rate
    spent = train(
        net,
        histories,
        training,
        warm_up_epochs=training.warm_up_epochs if fresh else training.increment_warm_up_epochs,
        epochs=training.epochs if fresh else training.increment_epochs,
        learning_rate=learning_rate,
        seed=seed,
        fresh=fresh,
    )
    tests = Holdout(past, holdout, state)
    fusion = choose_fusion(tests, net, vocabulary, ranking, champion.fusion if champion else AT_FIRST)
    metrics = tests.scores(net, vocabulary, fusion, ranking)
    alone = tests.scores(net, vocabulary, MODEL_ALONE, ranking)
    metrics |= {f"model_{name}": value for name, value in alone.items()}
    if champion is not None:
        before = tests.scores(champion.model, champion.vocabulary, champion.fusion, ranking)
        metrics |= {f"champion_{name}": value for name, value in before.items()}
    # Then with the newest events in: they are what the next hour looks like. The graph's user rows would have to be
    # learned anew for them, so these epochs are the sequence encoder's alone.
    last = train(
        net,
        to_histories(sequences, vocabulary),
        without_graph(training),
        warm_up_epochs=0,
        epochs=training.last_epochs if fresh else training.increment_last_epochs,
        learning_rate=learning_rate,
        seed=seed + 1,
        fresh=False,
    )
    metrics |= {
        "epochs": float(spent.epochs),
        "train_s": spent.seconds,
        "last_s": last.seconds,
        "users": float(len(histories)),
    }
    return Trained(net, vocabulary, fusion, metrics, parent)


def grow(net: Create, vocabulary: Vocabulary, names: dict[int, str], rows_of: RowsOf) -> tuple[Vocabulary, Create]:
    """Add the named items: rows from their graph neighbourhood, or drawn where they have no known neighbour."""
    ids = list(names.values())
    new = np.fromiter(names, np.uint64, len(names))
    if not len(new):
        return vocabulary, net.grown(torch.zeros(0, net.settings.dim))
    drawn = torch.randn(len(new), net.settings.dim) * net.settings.init_std
    if net.item_count:
        made, placed = neighbourhood(new, rows_of(new), vocabulary, net.items.weight.detach())
        drawn = torch.where(torch.from_numpy(placed)[:, None], made, drawn)
    return vocabulary.grow(new, ids), net.grown(drawn)
