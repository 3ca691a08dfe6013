"""The global temporal protocol on a recorded stream, by the code that trains and serves.

Everything up to one moment (the 0.9 quantile of event times) is for learning, everything later is for testing; equal
times keep the file's order and lie on the same side. Targets: *successive*, every event after the split with the events
before it as history, and each user's *last* of those. The whole catalogue is ranked, with and without the user's seen
items; ties count against the target. Items that the past does not know cannot be ranked by a model: their events are
counted as cold and left out, of histories too; so is a user's first event, which has no history. Rivals count the
newest `state.sequence_events` of each user's past, which is what a model learns from.

Models stand still at the split; the graph is live, as in serving: before a test it knows every earlier event and none
of the test's moment.
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
from model.ranking.fusion import MODEL_ONLY, Fusion
from model.ranking.ranker import Ranker
from model.settings import RankingSettings, TrainingSettings, without_graph
from state.events import Records
from state.graph import MemoryGraph
from state.sequences import Sequences, from_events
from state.settings import StateSettings

SPLIT = 0.9
RECENT_S = 3 * 86_400.0
"""Half-life of the recency-weighted popularity that is a rival. Like the three that follow the best of eight settings
on validation data of Amazon Beauty: `benchmarks/results/quality/tuning.txt`."""
TRANSITIONS_WITHIN = 10
TRANSITIONS_AGE_DECAY = 0.3
KNN_AGE_DECAY = 0.7

WARM_UP_COSTS = 0.25
"""An epoch of the graph's warm-up takes this part of a joint one: `benchmarks/results/epoch_profile.txt`."""

SEEN = ("unfiltered", "filtered")
"""How items are treated that the user has seen: ranked like any other, or left out."""


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
    """[T] whether it is its user's last tested event."""
    cold: int
    """Events after the split whose item the past does not know; not tested."""


def split(events: Records, names: dict[int, str], quantile: float, state: StateSettings) -> Split:
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

    def scores(self, part: Sequences) -> torch.Tensor:
        """[B, n + 1]; column 0 is padding."""

    def update(self, events: Records) -> None:
        """Count the events between two batches of tests."""


class OfModel:
    """Scores of a trained model with the graph, by the code that serves."""

    def __init__(
        self, cut: Split, trained: Trained, fusion: Fusion, settings: RankingSettings, *, live: bool = True
    ) -> None:
        alone = msgspec.structs.replace(settings, because=False, fresh_items=0)
        self._ranking = Ranker(trained.model, trained.vocabulary, fusion, alone)
        self._column = torch.from_numpy(np.concatenate([[0], trained.vocabulary.lookup(cut.vocabulary.hashes)]))
        self._graph, self._live = cut.graph.fork(), live

    def scores(self, part: Sequences) -> torch.Tensor:
        """[B, n + 1]."""
        return self._ranking.scores(part, self._graph)[:, self._column]

    def update(self, events: Records) -> None:
        """Update the graph where it is live; the model stands still."""
        if self._live:
            self._graph.apply(events)
            self._ranking.update(events)


class OfCounts:
    """Scores of a rival that stands still."""

    def __init__(self, cut: Split, scorer: Callable[[Histories], torch.Tensor]) -> None:
        self._vocabulary, self._scorer = cut.vocabulary, scorer

    def scores(self, part: Sequences) -> torch.Tensor:
        """[B, n + 1]."""
        return self._scorer(to_histories(part, self._vocabulary))

    def update(self, events: Records) -> None:
        """Do nothing."""


class RankedTests(NamedTuple):
    """The results of tests."""

    ranks: Ranks
    """[T] 0-based rank of each target."""
    shown: np.ndarray
    """[T, 10] indices of the items ranked first."""


def ranked_batch(scores: torch.Tensor, targets: torch.Tensor, seen: Histories) -> dict[str, RankedTests]:
    """Tests [B] by their scores [B, n + 1]: seen items ranked like any other; filtered (but a repeated target's rank).

    The scores are the caller's: changed in place.
    """
    first = min(CUTOFF, scores.shape[1] - 1)
    scores[:, 0] = -torch.inf
    unfiltered = RankedTests(ranks_of(scores, targets), scores.topk(first, dim=1).indices.numpy())
    own = scores.gather(1, targets[:, None])
    scores[torch.from_numpy(seen.users), torch.from_numpy(seen.items)] = -torch.inf
    shown = scores.topk(first, dim=1).indices.numpy()
    filtered = RankedTests(ranks_of(scores.scatter(1, targets[:, None], own), targets), shown)
    return dict(zip(SEEN, (unfiltered, filtered), strict=True))


def ranked_tests(cut: Split, scorer: SplitScorer) -> dict[str, RankedTests]:
    """All tests of a split, both ways of SEEN."""
    tests = len(cut.targets)
    first = min(CUTOFF, len(cut.vocabulary))
    # Allocated first: small arrays that stay between large ones that go would fragment the heap.
    found = {seen: RankedTests(np.empty(tests, np.int64), np.empty((tests, first), np.int64)) for seen in SEEN}
    for chosen, new_events in batches(cut.future, cut.ts, TESTS_PER_BATCH):
        if len(new_events):
            scorer.update(new_events)
        part = slice_sequences(cut.tests, chosen.start, chosen.stop)
        scores, histories = scorer.scores(part).clone(), to_histories(part, cut.vocabulary)
        for seen, batch in ranked_batch(scores, cut.targets[chosen], histories).items():
            found[seen].ranks[chosen], found[seen].shown[chosen] = batch
    return found


def breadth(cut: Split, shown: np.ndarray) -> dict[str, float]:
    """coverage@10, the share of the catalogue that anybody was shown, and popularity_bias.

    popularity_bias: past clicks of the shown items over past clicks of the targets, means over all tests; at 1 the
    lists are as popular as people's choices.
    """
    items = len(cut.vocabulary)
    clicks = np.bincount(cut.vocabulary.lookup(cut.past.steps["item"]), minlength=items + 1)
    return {
        "coverage@10": round(len(np.unique(shown)) / items, 4),
        "popularity_bias": round(float(clicks[shown].mean() / clicks[cut.targets.numpy()].mean()), 3),
    }


def rivals(
    cut: Split,
    recent_s: float = RECENT_S,
    transitions_age_decay: float = TRANSITIONS_AGE_DECAY,
    knn_age_decay: float = KNN_AGE_DECAY,
) -> dict[str, Callable[[Histories], torch.Tensor]]:
    """Everything that needs no training, counted over the past."""
    past, items = to_histories(cut.past, cut.vocabulary), len(cut.vocabulary)
    ts = cut.past.steps["ts"]
    return {
        "popularity": popularity(past, ts, items),
        "recent popularity": popularity(past, ts, items, recent_s),
        "transitions": transitions(past, items, TRANSITIONS_WITHIN, transitions_age_decay),
        "item-kNN": item_knn(past, items, knn_age_decay),
    }


def sequence_encoder_as_long(training: TrainingSettings) -> TrainingSettings:
    """The sequence encoder alone, for about as long as these settings train it with the graph."""
    more = math.ceil(training.warm_up_epochs * WARM_UP_COSTS)
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
    """Learn from the events before the split, test on those after it.

    CREATE is compared with its sequence encoder alone, by the encoder's name, trained for about as long. Epochs alone
    end training: by the clock the same seed would not give the same figures. Raises NothingToTest.
    """
    settings = settings._replace(training=msgspec.structs.replace(settings.training, max_train_s=math.inf))
    events, names = as_events(users, items, ts)
    cut = split(events, names, SPLIT, settings.state)
    if not len(cut.future):
        raise NothingToTest(
            f"no event comes after the {SPLIT} quantile of time, because the newest time of all has more than a tenth "
            "of the events, as where whole days have one time; --protocol prequential tests event by event"
        )
    if not len(cut.targets):
        raise NothingToTest(
            f"none of the {len(cut.future)} events after the {SPLIT} quantile of time can be tested: {cut.cold} are of "
            "items never met before it, the others of users without a history; "
            "--protocol prequential tests event by event"
        )
    alone = settings.model.sequence_encoder
    trainings = {"create": settings.training, alone: sequence_encoder_as_long(settings.training)}
    tested: dict[str, dict[str, RankedTests]] = {}
    for number, (name, training) in enumerate(trainings.items()):
        progress(number / len(trainings), f"training {name}")
        cycle_input = CycleInput(cut.past, cut.names, cut.graph.rows, seed)
        trained = run_cycle(None, cycle_input, settings._replace(training=training))
        for suffix, fusion in (("", MODEL_ONLY), ("+graph", trained.fusion)):
            tested[name + suffix] = ranked_tests(cut, OfModel(cut, trained, fusion, settings.ranking))
    for name, scorer in rivals(cut).items():
        tested[name] = ranked_tests(cut, OfCounts(cut, scorer))
    targets = {"last": cut.last, "successive": np.ones(len(cut.targets), bool)}
    compared = (("create", alone), ("create+graph", f"{alone}+graph"), ("create+graph", "create"))
    return GlobalTemporalReport(
        protocol="global-temporal",
        events=SplitEvents(
            past=int((events["ts"] <= np.quantile(ts, SPLIT)).sum()),
            tested=len(cut.targets),
            last=int(cut.last.sum()),
            cold=cut.cold,
        ),
        seed=seed,
        epochs={name: Epochs(of.warm_up_epochs, of.epochs + of.last_epochs) for name, of in trainings.items()},
        models={
            name: {
                target: {seen: figures(cut, ranked, chosen, target) for seen, ranked in by_seen.items()}
                for target, chosen in targets.items()
            }
            for name, by_seen in tested.items()
        },
        leads=[
            Lead(
                model, over, target, seen,
                *lead(tested[model][seen].ranks[chosen], tested[over][seen].ranks[chosen], cut.tests.users[chosen]),
            )
            for model, over in compared
            for target, chosen in targets.items()
            for seen in SEEN
        ],
    )  # fmt: skip


def figures(cut: Split, ranked: RankedTests, chosen: np.ndarray, target: str) -> SplitFigures:
    """Of one model's tests."""
    of_lists = breadth(cut, ranked.shown) if target == "successive" else {}
    return msgspec.convert(summary(ranked.ranks[chosen]) | of_lists, SplitFigures)
