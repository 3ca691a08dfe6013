"""The global temporal protocol on a recorded stream, by the code that trains and serves.

Events up to one moment, the 0.9 quantile of event times, are for learning. Later events are for testing. Events of
equal time keep the file's order and are on the same side of the split.

Targets     *successive*: every event after the split, with the user's earlier events as history
            *last*: the last of these of each user
Ranking     over the whole catalogue, with the user's seen items and without them; ties count against the target
Cold        an event of an item that is new after the split. No model can rank the item, so the event is neither a test
            nor part of a history. A user's first event is no test either: it has no history
Rivals      count the newest `state.sequence_events` of each user before the split, as many as a model learns from

Models do not learn after the split. The graph is live, as in serving: it has applied every event that is older than
the test, and none of the same millisecond.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
import torch

from model.encoders.histories import Histories, to_histories
from model.encoders.vocabulary import Vocabulary
from model.errors import NothingToTest
from model.evaluation.recorded_stream import as_events, successive
from model.evaluation.reports import Epochs, GlobalTemporalReport, Lead, SplitEvents, SplitFigures
from model.evaluation.rivals import item_knn, popularity, transitions
from model.fusion_weights.holdout import slice_sequences
from model.fusion_weights.timed_batches import TESTS_PER_BATCH, batches
from model.learning.cycle import CycleInput, CycleSettings, ProgressCallback, run_cycle
from model.learning.trained import Trained
from model.metrics import CUTOFF, Ranks, lead, ranks_of, summary
from model.ranker.network import Ranker, scores_of
from model.ranking.fusion import MODEL_ONLY, Fusion
from model.ranking.stages import Stages
from model.settings import RankingSettings, TrainingSettings, without_graph
from state.events import Ints, Records
from state.graph import MemoryGraph
from state.sequences import Sequences, from_events
from state.settings import StateSettings

SPLIT_QUANTILE = 0.9
RECENT_HALF_LIFE_S = 3 * 86_400.0
"""Half-life of the rival "recent popularity". This value and the next three are the best of eight settings on
validation data of Amazon Beauty (`benchmarks/results/quality/tuning.txt`)."""
TRANSITIONS_WINDOW = 10
TRANSITIONS_AGE_DECAY = 0.3
KNN_AGE_DECAY = 0.7

WARM_UP_EPOCH_COST = 0.25
"""Time of a warm-up epoch over that of a joint epoch (`benchmarks/results/epoch_profile.txt`)."""

WHOLE = "create+ranker"
"""The row of the whole ranking; not there where the stream has too few examples for a ranker."""
SEEN_ITEMS = ("unfiltered", "filtered")
"""Items that the user has seen are ranked like any other, or left out."""


class Split(NamedTuple):
    """A stream split at one moment, and the tests after it, in order of time."""

    past: Sequences
    names: dict[int, str]
    """Ids of the past's items by hash."""
    vocabulary: Vocabulary
    graph: MemoryGraph
    """The live graph at the split."""
    future: Records
    """Events after the split, in order of time."""
    tests: Sequences
    """[T] the user's history before each test."""
    targets: torch.Tensor
    """[T] index of each target in the vocabulary."""
    ts: np.ndarray
    """[T] its time, ms."""
    last: np.ndarray
    """[T] whether the test is its user's last."""
    cold: int
    """Number of events after the split whose item is new. They are not tested."""


def split_stream(events: Records, names: dict[int, str], quantile: float, state: StateSettings) -> Split:
    """Split a stream at a quantile of its event times."""
    events = events[np.argsort(events["ts"], kind="stable")]
    moment = np.quantile(events["ts"], quantile)
    past, future = events[events["ts"] <= moment], events[events["ts"] > moment]
    known = np.unique(past["item"])
    warm = np.isin(future["item"], known)
    graph = MemoryGraph(state)
    graph.apply(past)
    sequences = from_events(past, state.sequence_events)
    tests = successive(sequences, future[warm], state.sequence_events)
    past_names = {h: names[h] for h in known.tolist()}
    vocabulary = Vocabulary(known, list(past_names.values()))
    found = torch.from_numpy(vocabulary.lookup(tests.targets))
    cold = int((~warm).sum())
    return Split(sequences, past_names, vocabulary, graph, future, tests.before, found, tests.ts, tests.last, cold)


class SplitScorer(Protocol):
    """Scores every item of the split's vocabulary for a batch of users."""

    def scores(self, part: Sequences, moments: Ints) -> torch.Tensor:
        """[B, n + 1]; column 0 is padding. `moments` [B] are the event times, ms, of the tests."""

    def update(self, events: Records) -> None:
        """Count the events between two batches of tests."""


class ModelScorer:
    """Scores of a trained model with the graph, by the code that serves."""

    def __init__(
        self, split: Split, trained: Trained, fusion: Fusion, settings: RankingSettings, *, live: bool = True
    ) -> None:
        alone = msgspec.structs.replace(settings, because=False, fresh_items=0)
        self._ranking = Stages(trained.model, trained.vocabulary, fusion, alone)
        self._column = torch.from_numpy(np.concatenate([[0], trained.vocabulary.lookup(split.vocabulary.hashes)]))
        self._graph, self._live = split.graph.fork(), live

    def scores(self, part: Sequences, moments: Ints | None = None) -> torch.Tensor:
        """[B, n + 1]."""
        return self._ranking.scores(part, self._graph)[:, self._column]

    def update(self, events: Records) -> None:
        """Apply the events to a live graph. The model does not change."""
        if self._live:
            self._ranking.update(self._graph.apply(events))


class RankerScorer(ModelScorer):
    """Scores of a trained model's ranker, with a live graph. Items that are not candidate items have -inf."""

    def __init__(self, split: Split, trained: Trained, ranker: Ranker, settings: RankingSettings) -> None:
        super().__init__(split, trained, trained.fusion, settings)
        self._ranker, self._vocabulary = ranker, split.vocabulary

    def scores(self, part: Sequences, moments: Ints | None = None) -> torch.Tensor:
        """[B, n + 1]."""
        found = torch.full((len(part.users), len(self._vocabulary) + 1), -torch.inf)
        shown = self._ranking.rank(part, self._graph, CUTOFF, moments=moments, shown=True).shown
        for row, listed in enumerate(shown):
            if listed is not None:
                columns = torch.from_numpy(self._vocabulary.lookup(listed.items))
                found[row, columns] = torch.from_numpy(scores_of(self._ranker, listed.features.astype(np.float32)))
        return found


class CountScorer:
    """Scores of a rival that counts no events after the split."""

    def __init__(self, split: Split, scorer: Callable[[Histories], torch.Tensor]) -> None:
        self._vocabulary, self._scorer = split.vocabulary, scorer

    def scores(self, part: Sequences, moments: Ints | None = None) -> torch.Tensor:
        """[B, n + 1]."""
        return self._scorer(to_histories(part, self._vocabulary))

    def update(self, events: Records) -> None:
        """Do nothing: the rival counts no events after the split."""


class RankedTests(NamedTuple):
    """The results of tests."""

    ranks: Ranks
    """[T] 0-based rank of each target."""
    shown: np.ndarray
    """[T, 10] indices of the items ranked first."""


def ranked_batch(scores: torch.Tensor, targets: torch.Tensor, seen: Histories) -> dict[str, RankedTests]:
    """Rank tests by their scores [B, n + 1], with seen items unfiltered and filtered. Changes the scores in place.

    Filtering never removes the target, even if the user has seen it.
    """
    first = min(CUTOFF, scores.shape[1] - 1)
    scores[:, 0] = -torch.inf
    unfiltered = RankedTests(ranks_of(scores, targets), scores.topk(first, dim=1).indices.numpy())
    own = scores.gather(1, targets[:, None])
    scores[torch.from_numpy(seen.users), torch.from_numpy(seen.items)] = -torch.inf
    shown = scores.topk(first, dim=1).indices.numpy()
    filtered = RankedTests(ranks_of(scores.scatter(1, targets[:, None], own), targets), shown)
    return dict(zip(SEEN_ITEMS, (unfiltered, filtered), strict=True))


def ranked_tests(split: Split, scorer: SplitScorer) -> dict[str, RankedTests]:
    """Rank all tests of a split, with seen items unfiltered and filtered."""
    tests = len(split.targets)
    first = min(CUTOFF, len(split.vocabulary))
    # Allocated before the loop: long-lived arrays between the large temporary ones would fragment the heap.
    found = {seen: RankedTests(np.empty(tests, np.int64), np.empty((tests, first), np.int64)) for seen in SEEN_ITEMS}
    for chosen, new_events in batches(split.future, split.ts, TESTS_PER_BATCH):
        if len(new_events):
            scorer.update(new_events)
        part = slice_sequences(split.tests, chosen.start, chosen.stop)
        scores, histories = scorer.scores(part, split.ts[chosen]).clone(), to_histories(part, split.vocabulary)
        for seen, batch in ranked_batch(scores, split.targets[chosen], histories).items():
            found[seen].ranks[chosen], found[seen].shown[chosen] = batch
    return found


def breadth(split: Split, shown: np.ndarray) -> dict[str, float]:
    """coverage@10 and popularity_bias of the shown items [T, 10].

    coverage@10 is the share of the catalogue that at least one user was shown. popularity_bias is the mean number of
    clicks before the split of shown items, divided by that of targets: at 1 the lists are as popular as the choices.
    """
    items = len(split.vocabulary)
    clicks = np.bincount(split.vocabulary.lookup(split.past.steps["item"]), minlength=items + 1)
    return {
        "coverage@10": round(len(np.unique(shown)) / items, 4),
        "popularity_bias": round(float(clicks[shown].mean() / clicks[split.targets.numpy()].mean()), 3),
    }


def rivals(
    split: Split,
    recent_s: float = RECENT_HALF_LIFE_S,
    transitions_age_decay: float = TRANSITIONS_AGE_DECAY,
    knn_age_decay: float = KNN_AGE_DECAY,
) -> dict[str, Callable[[Histories], torch.Tensor]]:
    """Scorers that need no training, counted over the events before the split."""
    past, items = to_histories(split.past, split.vocabulary), len(split.vocabulary)
    ts = split.past.steps["ts"]
    return {
        "popularity": popularity(past, ts, items),
        "recent popularity": popularity(past, ts, items, recent_s),
        "transitions": transitions(past, items, TRANSITIONS_WINDOW, transitions_age_decay),
        "item-kNN": item_knn(past, items, knn_age_decay),
    }


def sequence_encoder_as_long(training: TrainingSettings) -> TrainingSettings:
    """Settings that train the sequence encoder alone for about as long as these settings train it with the graph."""
    more = math.ceil(training.warm_up_epochs * WARM_UP_EPOCH_COST)
    return msgspec.structs.replace(without_graph(training), epochs=training.epochs + more)


def global_temporal(
    users: list[str],
    items: list[str],
    ts: np.ndarray,
    settings: CycleSettings,
    *,
    seed: int,
    progress: ProgressCallback = lambda _share, _what: None,
) -> GlobalTemporalReport:
    """Learn from the events before the split and test on the events after it. Raises NothingToTest.

    CREATE is compared with its sequence encoder alone, trained for about as long and reported under the encoder's
    name. `max_train_s` is ignored: with a time limit the same seed would not give the same figures.
    """
    settings = settings._replace(training=msgspec.structs.replace(settings.training, max_train_s=math.inf))
    events, names = as_events(users, items, ts)
    split = split_stream(events, names, SPLIT_QUANTILE, settings.state)
    if not len(split.future):
        raise NothingToTest(
            f"no event comes after the {SPLIT_QUANTILE} quantile of time: more than a tenth of the events have "
            "the newest time, as when times are whole days; --protocol prequential tests event by event"
        )
    if not len(split.targets):
        raise NothingToTest(
            f"none of the {len(split.future)} events after the {SPLIT_QUANTILE} quantile of time can be tested: "
            f"{split.cold} are of items that are new after it, the others of users without a history; "
            "--protocol prequential tests event by event"
        )
    alone = settings.model.sequence_encoder
    trainings = {"create": settings.training, alone: sequence_encoder_as_long(settings.training)}
    tested: dict[str, dict[str, RankedTests]] = {}
    for number, (name, training) in enumerate(trainings.items()):
        progress(number / len(trainings), f"training {name}")
        cycle_input = CycleInput(split.past, split.names, split.graph.rows, seed)
        ranking = msgspec.structs.replace(settings.ranking, ranker=settings.ranking.ranker and name == "create")
        trained = run_cycle(None, cycle_input, settings._replace(training=training, ranking=ranking))
        for suffix, fusion in (("", MODEL_ONLY), ("+graph", trained.fusion)):
            tested[name + suffix] = ranked_tests(split, ModelScorer(split, trained, fusion, settings.ranking))
        if trained.ranker is not None:
            tested[WHOLE] = ranked_tests(split, RankerScorer(split, trained, trained.ranker, settings.ranking))
    for name, scorer in rivals(split).items():
        tested[name] = ranked_tests(split, CountScorer(split, scorer))
    targets = {"last": split.last, "successive": np.ones(len(split.targets), bool)}
    compared = [("create", alone), ("create+graph", f"{alone}+graph"), ("create+graph", "create")]
    compared += [(WHOLE, "create+graph")] if WHOLE in tested else []
    return GlobalTemporalReport(
        protocol="global-temporal",
        events=SplitEvents(
            past=int((events["ts"] <= np.quantile(ts, SPLIT_QUANTILE)).sum()),
            tested=len(split.targets),
            last=int(split.last.sum()),
            cold=split.cold,
        ),
        seed=seed,
        epochs={name: Epochs(of.warm_up_epochs, of.epochs + of.last_epochs) for name, of in trainings.items()},
        models={
            name: {
                target: {seen: figures(split, ranked, chosen, target) for seen, ranked in by_seen.items()}
                for target, chosen in targets.items()
            }
            for name, by_seen in tested.items()
        },
        leads=[
            Lead(
                model, over, target, seen,
                *lead(tested[model][seen].ranks[chosen], tested[over][seen].ranks[chosen], split.tests.users[chosen]),
            )
            for model, over in compared
            for target, chosen in targets.items()
            for seen in SEEN_ITEMS
        ],
    )  # fmt: skip


def figures(split: Split, ranked: RankedTests, chosen: np.ndarray, target: str) -> SplitFigures:
    """Means over one model's tests of one kind of target."""
    of_lists = breadth(split, ranked.shown) if target == "successive" else {}
    return msgspec.convert(summary(ranked.ranks[chosen]) | of_lists, SplitFigures)
