"""The global temporal protocol on a recorded stream, by the code that trains and serves.

Everything up to one moment (the 0.9 quantile of event times) is for learning, what comes after is for testing; equal
times keep the file's order and lie on the same side. Targets: *successive*, every event after the split with the events
before it as history, and each user's *last* of those. The whole catalogue is ranked, with and without the user's seen
items; ties count against the target. Items that the past does not know cannot be ranked by a model: their events are
counted as cold and left out, of histories too; so is a user's first event, which has no history. Rivals count the
newest `state.sequence_events` of each user's past, which is what a model learns from.

Models stand still at the split; the graph is live, as it is where they serve: before a test it knows what came earlier
and nothing of the test's moment. A row with the graph as it stood at the split says what that is worth.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import torch

from model.encoders.histories import Histories, to_histories
from model.encoders.vocabulary import Vocabulary
from model.errors import NothingToTest
from model.evaluation.recorded_stream import successive
from model.evaluation.rivals import item_knn, popularity, transitions
from model.fusion_weights.holdout import slice_sequences
from model.fusion_weights.timed_batches import TESTS_PER_BATCH, batches
from model.learning.cycle import Trained, learn
from model.metrics import CUTOFF, Ranks, lead, ranks_of, summary
from model.ranking.fusion import MODEL_ONLY, Fusion
from model.ranking.ranker import Ranker
from model.settings import ModelSettings, RankingSettings, TrainingSettings, without_graph
from state.events import EVENT, Records, hash_ids
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
"""What is done with items the user has seen: ranked like any other, or left out."""
LEADS = (("create", "sasrec"), ("create+graph", "sasrec+graph"), ("create+graph", "create"))
"""Which models are set against which."""

Progress = Callable[[float, str], None]
Document = dict[str, Any]


def as_events(users: list[str], items: list[str], ts: np.ndarray) -> tuple[Records, dict[int, str]]:
    """EVENTs in arrival order, and the items' ids by hash."""
    events = np.zeros(len(ts), EVENT)
    events["user"] = hash_ids([u.encode() for u in users])
    events["item"] = hash_ids([i.encode() for i in items])
    events["ts"], events["offset"] = ts, np.arange(len(ts))
    return events, dict(zip(events["item"].tolist(), items, strict=True))


class Split(NamedTuple):
    """A stream cut at one moment, and the tests behind it, in order of time."""

    past: Sequences
    names: dict[int, str]
    """Ids of the past's items by hash."""
    vocabulary: Vocabulary
    graph: MemoryGraph
    """The live graph as it stood at the cut."""
    future: Records
    """What came after the cut, in order of time."""
    tests: Sequences
    """Test event after test event, its user's history until then."""
    targets: torch.Tensor
    """[T] what came, by index of the vocabulary."""
    ts: np.ndarray
    """[T] when, ms."""
    last: np.ndarray
    """[T] whether it is its user's last tested event."""
    cold: int
    """Events after the cut whose item the past does not know; not tested."""


def split(events: Records, names: dict[int, str], quantile: float, state: StateSettings) -> Split:
    """Cut a stream at a quantile of its event times."""
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


class Scorer(Protocol):
    """Whatever scores every item of the split's vocabulary for a batch of users, and may watch events arrive."""

    def scores(self, part: Sequences) -> torch.Tensor:
        """[B, n + 1]; column 0 is padding."""

    def arrived(self, events: Records) -> None:
        """Take in what came between two batches of tests."""


class OfModel:
    """A trained model's scores with the graph, by the code that serves."""

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

    def arrived(self, events: Records) -> None:
        """The graph, where it is live, learns; the model stands still."""
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

    def arrived(self, events: Records) -> None:
        """Learns nothing."""


class Ranked(NamedTuple):
    """What became of all tests of a split."""

    ranks: Ranks
    """[T] 0-based rank of what came."""
    shown: np.ndarray
    """[T, 10] indices of the items ranked first."""


def ranked_batch(scores: torch.Tensor, targets: torch.Tensor, seen: Histories) -> dict[str, Ranked]:
    """Tests [B] by their scores [B, n + 1]: seen items ranked like any other; filtered (but a repeated target's rank).

    The scores are the caller's: changed in place.
    """
    first = min(CUTOFF, scores.shape[1] - 1)
    scores[:, 0] = -torch.inf
    unfiltered = Ranked(ranks_of(scores, targets), scores.topk(first, dim=1).indices.numpy())
    own = scores.gather(1, targets[:, None])
    scores[torch.from_numpy(seen.users), torch.from_numpy(seen.items)] = -torch.inf
    shown = scores.topk(first, dim=1).indices.numpy()
    filtered = Ranked(ranks_of(scores.scatter(1, targets[:, None], own), targets), shown)
    return dict(zip(SEEN, (unfiltered, filtered), strict=True))


def ranked_tests(cut: Split, scorer: Scorer) -> dict[str, Ranked]:
    """All tests of a split, both ways of SEEN."""
    tests = len(cut.targets)
    first = min(CUTOFF, len(cut.vocabulary))
    # Made beforehand: small arrays that stay, taken between large ones that go, would leave the heap in pieces.
    found = {seen: Ranked(np.empty(tests, np.int64), np.empty((tests, first), np.int64)) for seen in SEEN}
    for chosen, arrived in batches(cut.future, cut.ts, TESTS_PER_BATCH):
        if len(arrived):
            scorer.arrived(arrived)
        part = slice_sequences(cut.tests, chosen.start, chosen.stop)
        scores, histories = scorer.scores(part).clone(), to_histories(part, cut.vocabulary)
        for seen, batch in ranked_batch(scores, cut.targets[chosen], histories).items():
            found[seen].ranks[chosen], found[seen].shown[chosen] = batch
    return found


def breadth(cut: Split, shown: np.ndarray) -> dict[str, float]:
    """coverage@10, the share of the catalogue that anybody was shown, and popularity_bias.

    popularity_bias: clicks in the past of what was shown over clicks of what came, means over all tests; at 1 the
    lists are as popular as people's choices are.
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


def sasrec_as_long(training: TrainingSettings) -> TrainingSettings:
    """The sequence encoder alone, for about as long as these settings train it with the graph."""
    more = math.ceil(training.warm_up_epochs * WARM_UP_COSTS)
    return msgspec.structs.replace(without_graph(training), epochs=training.epochs + more)


def global_temporal(
    users: list[str],
    items: list[str],
    ts: np.ndarray,
    *,
    model: ModelSettings,
    training: TrainingSettings,
    ranking: RankingSettings,
    state: StateSettings,
    seed: int,
    progress: Progress = lambda _done, _what: None,
) -> Document:
    """Learn from the past of one moment, test on what came after.

    `models {name: {last, successive: {unfiltered, filtered: metrics}}}`, `filtered` without the user's seen items;
    `leads` are of NDCG@10, relative, with a 95% interval. SASRec learns for about as long as CREATE: `epochs {name:
    {warm_up, joint}}`. Epochs alone end training: by the clock the same seed would not give the same figures. Raises
    NothingToTest.
    """
    training = msgspec.structs.replace(training, max_train_s=math.inf)
    events, names = as_events(users, items, ts)
    cut = split(events, names, SPLIT, state)
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
    found: dict[str, dict[str, Ranked]] = {}
    trained_as = {"create": training, "sasrec": sasrec_as_long(training)}
    for number, (name, settings) in enumerate(trained_as.items()):
        progress(number / len(trained_as), f"training {name}")
        trained = learn(
            None, None, cut.past, cut.names, cut.graph.rows,
            model=model, training=settings, ranking=ranking, state=state, seed=seed,
        )  # fmt: skip
        for suffix, fusion in (("", MODEL_ONLY), ("+graph", trained.fusion)):
            found[name + suffix] = ranked_tests(cut, OfModel(cut, trained, fusion, ranking))
    for name, scorer in rivals(cut).items():
        found[name] = ranked_tests(cut, OfCounts(cut, scorer))
    tested, last = len(cut.targets), int(cut.last.sum())
    targets = {"last": cut.last, "successive": np.ones(tested, bool)}

    def measured(ranked: Ranked, target: str) -> dict[str, float]:
        shown = breadth(cut, ranked.shown) if target == "successive" else {}
        return summary(ranked.ranks[targets[target]]) | shown

    def led(a: str, b: str, target: str, seen: str) -> Document:
        at = targets[target]
        by = lead(found[a][seen].ranks[at], found[b][seen].ranks[at], cut.tests.users[at])
        told = {"model": a, "over": b, "target": target, "seen_items": seen}
        return told | dict(zip(("lead", "low", "high"), by, strict=True))

    return {
        "protocol": "global-temporal",
        "events": {"past": int((events["ts"] <= np.quantile(ts, SPLIT)).sum()), "tested": tested, "last": last}
        | {"cold": cut.cold},
        "seed": seed,
        "epochs": {
            name: {"warm_up": of.warm_up_epochs, "joint": of.epochs + of.last_epochs} for name, of in trained_as.items()
        },
        "models": {
            name: {target: {seen: measured(ranked, target) for seen, ranked in by_seen.items()} for target in targets}
            for name, by_seen in found.items()
        },
        "leads": [led(*pair, target, seen) for pair in LEADS for target in targets for seen in SEEN],
    }
