"""One cycle of learning: from a champion (or nothing) and users' sequences to a candidate and a verdict on it.

Some of the newest events are kept back first (`model.fusion_weights.holdout`), of those that the champion has not
learned either: both
are measured on them, the fusion weights are chosen on them, with a graph of its own that has not seen them. Then the
candidate learns them too. So its held-out figures are those of a model without the newest events; what is published
has them besides, and is tested for what it forgot, its size and its pace.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from model.encoders.create import Create
from model.encoders.histories import Histories, to_histories
from model.encoders.vocabulary import Vocabulary
from model.fusion_weights.fit_weights import cross_fit_fusion
from model.fusion_weights.holdout import Holdout, HoldoutAnswers, mask_of, split_holdout
from model.learning.gate import Compared, Measured, Verdict, judge
from model.learning.training import train
from model.losses.distillation import Distillation, adaptive
from model.metrics import Ranks, ranks_of
from model.ranking.catalogue import RowsOf, neighbourhood
from model.ranking.fusion import INITIAL_FUSION, MODEL_ONLY, Fusion
from model.settings import GateSettings, ModelSettings, RankingSettings, TrainingSettings, without_graph
from state.events import Ids, Records
from state.graph import Rows
from state.sequences import STEP, Sequences
from state.settings import StateSettings

Progress = Callable[[float, str], None]
NOBODY = Sequences(np.empty(0, np.uint64), np.zeros(1, np.int64), np.empty(0, STEP))
NOTHING: Ids = np.empty(0, np.uint64)
OLD_AT_ONCE = 256


class Trained(NamedTuple):
    """A model that can be published: what it is and what it was measured to be."""

    model: Create
    vocabulary: Vocabulary
    fusion: Fusion
    metrics: dict[str, float]
    parent: str | None
    verdict: Verdict = Verdict()


class Weighed(NamedTuple):
    """What the events kept back say of a candidate; of pairs the champion's is first."""

    fusion: Fusion
    metrics: dict[str, float]
    newest: Compared
    shown: tuple[int, int]
    """Different items recommended."""
    seconds: tuple[list[float], list[float]]
    """Of ranking, in several parts."""


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
    gate: GateSettings | None = None,
    arrived: Records | None = None,
    old: Sequences = NOBODY,
    gone: Ids = NOTHING,
    progress: Progress = lambda _share, _what: None,
) -> Trained:
    """Learn from these users' sequences (new ones and replayed ones).

    `names` maps hashes of items the champion does not know to their ids; `rows_of` is the live graph, from whose
    neighbourhoods new items get their rows; `gone` are items that are in no graph any more. `arrived` are the events
    that the champion has not learned: None, where that is not known. `old` are other users, on whom it is tested what
    was forgotten. Without a champion everything is learned from nothing.
    """
    torch.manual_seed(seed)
    new = None if champion is None or arrived is None else mask_of(sequences, arrived)
    past, holdout = split_holdout(sequences, training.holdout_events, new)
    fresh = champion is None or champion.model.settings != model
    known = (champion.vocabulary if champion else Vocabulary(NOTHING, [])).release(gone)
    net = Create(len(known), model) if fresh or champion is None else champion.model
    vocabulary, net = grow(net, known, names)
    items = np.fromiter(names, np.uint64, len(names))
    if len(known) and len(items):
        # Not the live graph's rows: it has the events that are held back, and an item would be found by its own test.
        # Made again for the tests: kept through training it would take as much memory as the item table.
        introduce(net, vocabulary, items, Holdout(past, holdout, state).rows(items), known)
    histories = to_histories(past, vocabulary)
    learning_rate = training.learning_rate if fresh else training.increment_learning_rate
    distillation = None
    if champion is not None and arrived is not None and not fresh and training.distil:
        distillation = distilled(
            champion, sequences, arrived, gone, len(vocabulary) - len(vocabulary.free), training.distil
        )
    spent = train(
        net,
        histories,
        training,
        warm_up_epochs=training.warm_up_epochs if fresh else training.increment_warm_up_epochs,
        epochs=training.epochs if fresh else training.increment_epochs,
        learning_rate=learning_rate,
        seed=seed,
        fresh=fresh,
        distillation=distillation,
        progress=lambda share: progress(0.5 * share, "learning what came until shortly before"),
    )
    progress(0.5, "weighing the live graph")
    # The holdout's graph is as large as the item table: nothing keeps it once the weights are chosen.
    weighed = weigh(Holdout(past, holdout, state), net, vocabulary, champion, ranking)
    met_last = items[~np.isin(items, past.steps["item"])]
    if len(known) and len(met_last):
        introduce(net, vocabulary, met_last, rows_of(met_last), known)
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
        distillation=distillation,
        progress=lambda share: progress(0.7 + 0.3 * share, "learning what came last"),
    )
    metrics = weighed.metrics | {
        "epochs": float(spent.epochs),
        "train_s": spent.seconds,
        "last_s": last.seconds,
        "users": float(len(histories)),
    }
    progress(1.0, "at the gate")
    size = sum(p.numel() * p.element_size() for p in net.parameters())
    finite = all(bool(torch.isfinite(p).all()) for p in net.parameters())
    measured = Measured(
        newest=weighed.newest,
        old=measure_forgetting(champion or Trained(net, vocabulary, weighed.fusion, {}, None), net, vocabulary, old),
        shown=weighed.shown,
        seconds=weighed.seconds,
        size_bytes=size,
        finite=finite,
        new_events=0 if arrived is None else len(arrived),
        new_items=len(names),
    )
    return Trained(
        net,
        vocabulary,
        weighed.fusion,
        metrics,
        parent,
        judge(measured, gate or GateSettings(), first=champion is None),
    )


def weigh(
    tests: Holdout, net: Create, vocabulary: Vocabulary, champion: Trained | None, ranking: RankingSettings
) -> Weighed:
    """Choose the fusion weights on the events kept back, and measure with them on those; the champion too.

    Each half of the events is measured with the weights that the other half chose. Without a champion the candidate
    stands in its place.
    """
    crossed = cross_fit_fusion(tests, net, vocabulary, ranking, champion.fusion if champion else INITIAL_FUSION)
    candidates = [tests.answers(net, vocabulary, fusion, ranking) for fusion in reversed(crossed.halves)]
    answers = HoldoutAnswers(*(np.where(_shaped(crossed.half, a), b, a) for a, b in zip(*candidates, strict=True)))
    metrics = answers.scores()
    alone = tests.scores(net, vocabulary, MODEL_ONLY, ranking)
    metrics |= {f"model_{name}": value for name, value in alone.items()}
    before = answers
    if champion is not None:
        before = tests.answers(champion.model, champion.vocabulary, champion.fusion, ranking)
        metrics |= {f"champion_{name}": value for name, value in before.scores().items()}
    against = (champion.model, champion.vocabulary) if champion else (net, vocabulary)
    seconds = tests.seconds([against, (net, vocabulary)], ranking)
    return Weighed(
        crossed.fusion,
        metrics,
        newest=Compared(before.ranks, answers.ranks, tests.sequences.users),
        shown=(len(np.unique(before.items)), len(np.unique(answers.items))),
        seconds=(seconds[0], seconds[1]),
    )


def _shaped(half: np.ndarray, like: np.ndarray) -> np.ndarray:
    return half.astype(bool).reshape(-1, *[1] * (like.ndim - 1))


def distilled(
    champion: Trained, sequences: Sequences, arrived: Records, gone: Ids, items: int, distil: float
) -> Distillation:
    """What the champion says of the users without new events, who are learned again; `items` of the candidate.

    It has learned all that these users did, so nothing that is held back is among it.
    """
    both = champion.vocabulary.release(gone)
    shared = np.flatnonzero(both.hashes) + 1
    again = ~np.isin(sequences.users, arrived["user"])
    exemplars = to_histories(sequences, both).take(np.flatnonzero(again))
    weight = adaptive(distil, len(shared), items, len(exemplars), int((~again).sum()))
    return Distillation(champion.model, exemplars, shared, weight, len(sequences.users))


@torch.no_grad()
def measure_forgetting(champion: Trained, net: Create, vocabulary: Vocabulary, old: Sequences) -> Compared:
    """The newest event of each of these users foretold from those before it, by the two models alone.

    Ranked among the items that both know; users with fewer than two of those are left out.
    """
    index = champion.vocabulary.lookup(old.steps["item"])
    both = (index > 0) & (vocabulary.lookup(old.steps["item"]) == index)
    kept = np.concatenate([[0], np.cumsum(both)])[old.indptr]
    rows = np.flatnonzero(np.diff(kept) > 1)
    steps = index[both]
    ranks: tuple[list[Ranks], list[Ranks]] = ([], [])
    for start in range(0, len(rows), OLD_AT_ONCE):
        some = rows[start : start + OLD_AT_ONCE]
        lengths = kept[some + 1] - kept[some] - 1
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(indptr[-1]) + np.repeat(kept[some] - indptr[:-1], lengths)
        histories, targets = Histories(indptr, steps[at]), torch.from_numpy(steps[kept[some + 1] - 1])
        for model, found in zip((champion.model, net), ranks, strict=True):
            scores = model.encode(histories) @ model.items.weight[: len(champion.vocabulary) + 1].T
            scores[:, 0] = -torch.inf
            found.append(ranks_of(scores, targets))
    nothing = np.empty(0, np.int64)
    return Compared(np.concatenate([nothing, *ranks[0]]), np.concatenate([nothing, *ranks[1]]), old.users[rows])


def grow(net: Create, vocabulary: Vocabulary, names: dict[int, str]) -> tuple[Vocabulary, Create]:
    """Add the named items with drawn rows. They take indices that are free first."""
    new = np.fromiter(names, np.uint64, len(names))
    drawn = torch.randn(len(new), net.settings.dim) * net.settings.init_std
    settled = vocabulary.settle(new, list(names.values()))
    grown = net.grown(torch.zeros(len(settled) - len(vocabulary), net.settings.dim))
    with torch.no_grad():
        grown.items.weight[torch.from_numpy(vocabulary.free)] = 0.0
        grown.items.weight[torch.from_numpy(settled.lookup(new))] = drawn
    return settled, grown


def introduce(net: Create, vocabulary: Vocabulary, items: Ids, rows: Rows, known: Vocabulary) -> None:
    """Give new items rows from their graph neighbourhood; one without a `known` neighbour keeps its own."""
    made, placed = neighbourhood(items, rows, known, net.items.weight.detach())
    with torch.no_grad():
        net.items.weight[torch.from_numpy(vocabulary.lookup(items[placed]))] = made[torch.from_numpy(placed)]
