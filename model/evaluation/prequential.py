"""Prequential evaluation of a recorded stream: each event is first a test, then learned from.

Events come in the order of the file, TESTS_PER_BATCH at a time. Every row ranks for the users of a batch; then the
batch is told to all of them, and those that learn may learn. Rows see nothing but the `Past`, so nothing can be read
ahead. The versions, the gate, the graph and the ranking are those of production; a cycle begins after so many events.

Whole lists are not compared: a target further down than DEPTH counts as not found.
"""

import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import numpy as np

from model.errors import NothingToTest
from model.evaluation.live_rivals import LIVE_RIVALS
from model.evaluation.recorded_stream import RecordedStream, Tests
from model.fusion_weights.online import OnlineFusion
from model.fusion_weights.timed_batches import TESTS_PER_BATCH
from model.learning.cycle import Trained, learn
from model.metrics import CUTOFF, Ranks, summary
from model.ranking.fusion import Fusion
from model.ranking.ranker import Ranker
from model.settings import GateSettings, ModelSettings, RankingSettings, TrainingSettings
from state.events import Ids, Records
from state.sequences import Sequences, newest
from state.settings import StateSettings

WARM_UP = 0.2
"""The part of a stream that the first version learns from before testing begins."""
CYCLES = 8
"""Cycles over the rest of the stream, unless told otherwise."""
DEPTH = 100
NOT_FOUND = 10**9
ROLLING_EVENTS = 2_000
POINTS = 200
"""Points of a curve."""

Progress = Callable[[float, str], None]
Document = dict[str, Any]


class Settings(NamedTuple):
    """What production has in its configuration."""

    model: ModelSettings
    training: TrainingSettings
    ranking: RankingSettings
    state: StateSettings
    gate: GateSettings = GateSettings()
    user_events: int = 100
    replay_users: int = 20_000
    seed: int = 0


class Trigger(Protocol):
    """Says when a cycle is due."""

    def due(self, arrived: int, tested: int, hits: int) -> bool:
        """`arrived` events since the last cycle; all events tested so far, and those found among the first ten."""


class Every:
    """After so many events."""

    def __init__(self, events: int) -> None:
        self._events = events

    def due(self, arrived: int, tested: int, hits: int) -> bool:
        """Whether enough have come."""
        return arrived >= self._events


class Never:
    """A model that is trained once."""

    def due(self, arrived: int, tested: int, hits: int) -> bool:
        """It is not."""
        return False


class Versions:
    """Learns in cycles, as the trainer does, and passes the gate."""

    def __init__(
        self, settings: Settings, trigger: Trigger, how: Literal["increment", "retrain"] = "increment"
    ) -> None:
        self._settings, self._trigger, self._how = settings, trigger, how
        self._learned = 0
        self._tried = 0
        self._tested = self._hits = 0
        self.serving: Trained | None = None
        self.cycles: list[Document] = []

    def begin(self, past: RecordedStream, first: Trained | None = None) -> Trained:
        """The first version; `first` where another row has learned the same."""
        self.serving = self._cycle(past) if first is None else first
        self._learned = self._tried = past.count
        return self.serving

    def tested(self, ranks: Ranks) -> None:
        """What became of the serving version's newest tests."""
        self._tested += len(ranks)
        self._hits += int((ranks < CUTOFF).sum())

    def look(self, past: RecordedStream) -> bool:
        """Learn, if it is time; whether it did."""
        if not self._trigger.due(past.count - self._tried, self._tested, self._hits):
            return False
        candidate = self._cycle(past)
        self._tried = past.count
        if candidate.verdict.promoted:
            self.serving, self._learned = candidate, past.count
        return True

    def _cycle(self, past: RecordedStream) -> Trained:
        settings, seed = self._settings, self._settings.seed * 1_000_003 + past.count
        champion = self.serving if self._how == "increment" else None
        arrived = past.events(self._learned)
        fresh = np.unique(arrived["user"])
        others = np.setdiff1d(past.users, fresh)
        old = np.empty(0, np.uint64)
        if champion is not None:
            draw, gate = np.random.default_rng(seed), settings.gate
            others = draw.permutation(others)[: settings.replay_users + gate.old_users]
            old, others = np.split(others, [min(gate.old_users, len(others) // 4)])
        sequences = newest(past.sequences(np.concatenate([fresh, others])), settings.user_events)
        items = np.unique(sequences.steps["item"])
        new = items if champion is None else items[champion.vocabulary.lookup(items) == 0]
        spent = time.process_time()
        trained = learn(
            champion, None, sequences, {item: f"{item:016x}" for item in new.tolist()}, past.graph.rows,
            model=settings.model, training=settings.training, ranking=settings.ranking, state=settings.state,
            gate=settings.gate, seed=seed % 2**31, arrived=arrived, old=past.sequences(old),
        )  # fmt: skip
        self.cycles.append({
            "at": past.count, "cpu_s": round(time.process_time() - spent, 1), "promoted": trained.verdict.promoted,
            "reason": trained.verdict.reason, "fusion": msgspec.to_builtins(trained.fusion),
            "metrics": trained.metrics,
        })  # fmt: skip
        return trained


class Row(Protocol):
    """What is tested: a model or a rival."""

    def rank(self, tests: Sequences) -> Ids:
        """[T, up to DEPTH] items, best first; 0 = none."""

    def arrived(self, events: Records) -> None:
        """Take in what came; the past has it already."""


class Served:
    """A version as a worker serves it: it ranks with the live graph."""

    def __init__(
        self,
        past: RecordedStream,
        versions: Versions,
        ranking: RankingSettings,
        *,
        fusion: Fusion | None = None,
        live: bool = True,
    ) -> None:
        """`fusion` in place of the version's; not `live`: the graph stands still too."""
        self._versions, self._fusion, self._live = versions, fusion, live
        self._ranking_settings = msgspec.structs.replace(ranking, because=False)
        self._graph = past.graph if live else past.graph.copy()
        self._serving: Trained | None = None
        self._online: OnlineFusion | None = None

    def rank(self, tests: Sequences) -> Ids:
        """By the version that serves now."""
        return self._ranking().rank(tests, self._graph, DEPTH).items

    def _ranking(self) -> Ranker:
        serving = self._versions.serving
        assert serving is not None
        if serving is not self._serving:
            self._serving = serving
            fusion = self._fusion or serving.fusion
            self._served = Ranker(serving.model, serving.vocabulary, fusion, self._ranking_settings)
            before, self._online = self._online, OnlineFusion(fusion, self._ranking_settings)
            if before is not None:
                self._online.carry_over(before.learned)
                self._online.keep_clicks_of(before)
                self._served.fusion = self._online.fusion
        return self._served

    def learn(self, tests: Tests) -> None:
        """The fusion weights go on, where they do."""
        if self._ranking_settings.online_clicks:
            ranking = self._ranking()
            assert self._online is not None
            self._online.update(ranking, tests.before, tests.targets, self._graph)
            ranking.fusion = self._online.fusion

    def arrived(self, events: Records) -> None:
        """Count clicks where the graph is live."""
        if self._live:
            self._ranking().update(events)


def prequential(
    events: Records,
    settings: Settings,
    *,
    cycles: int = CYCLES,
    with_retrain: bool = False,
    progress: Progress = lambda _done, _what: None,
) -> Document:
    """The model, what stands still and rivals on one stream, in the order it arrived."""
    start = int(len(events) * WARM_UP)
    every = max(-(-(len(events) - start) // cycles), 1)
    past = RecordedStream(settings.state)
    past.append(events[:start])
    progress(0.0, "learning the first version")
    versions = {"create": Versions(settings, Every(every)), "frozen": Versions(settings, Never())}
    if with_retrain:
        versions["full retrain"] = Versions(settings, Every(every), "retrain")
    first = versions["create"].begin(past)
    for other in list(versions.values())[1:]:
        other.begin(past, first)
    still = msgspec.structs.replace(settings.ranking, online_clicks=0)
    rows: dict[str, Row] = {name: Served(past, v, settings.ranking) for name, v in versions.items()}
    rows["frozen"] = Served(past, versions["frozen"], still)
    rows["frozen, graph too"] = Served(past, versions["frozen"], still, live=False)
    rows |= {name: rival(past, DEPTH) for name, rival in LIVE_RIVALS.items()}
    tested = run(events, past, versions, rows, progress=progress)
    return document(tested, versions) | {"every_events": every, "seed": settings.seed, "warm_up": start}


class Tested(NamedTuple):
    """What became of every test."""

    ranks: dict[str, Ranks]
    """[T] place of what came in each row's list, NOT_FOUND where it was not among the first DEPTH."""
    at: np.ndarray
    """[T] where in the stream it was, about."""
    users: Ids
    new: np.ndarray
    """[T] whether the version that served did not know the item, though it had been met in the stream."""


def run(
    events: Records,
    past: RecordedStream,
    versions: dict[str, Versions],
    rows: dict[str, Row],
    *,
    progress: Progress = lambda _done, _what: None,
) -> Tested:
    """Test and tell all rows what comes after the past; versions of a row's own name hear what became of its tests.

    An item is new where the first of the versions does not know it, though it has been met: others nobody could say.
    Raises NothingToTest.
    """
    start, leading = past.count, next(iter(versions.values()))
    ranks: dict[str, list[Ranks]] = {name: [] for name in rows}
    at: list[np.ndarray] = []
    users: list[Ids] = []
    new: list[np.ndarray] = []
    while past.count < len(events):
        progress((past.count - start) / (len(events) - start), f"event {past.count:,} of {len(events):,}")
        batch = events[past.count : past.count + TESTS_PER_BATCH]
        tests = past.tests(batch)
        if len(tests.targets):
            for name, row in rows.items():
                places = places_of(tests.targets, row.rank(tests.before))
                if isinstance(row, Served):
                    row.learn(tests)
                ranks[name].append(places)
                if name in versions:
                    versions[name].tested(places)
            assert leading.serving is not None
            met = past.graph.rows(tests.targets).degree > 0
            new.append(met & (leading.serving.vocabulary.lookup(tests.targets) == 0))
            users.append(tests.before.users)
            at.append(np.linspace(past.count, past.count + len(batch), len(tests.targets), False).astype(int))
        past.append(batch)
        for row in rows.values():
            row.arrived(batch)
        if past.count < len(events):
            for name, learner in versions.items():
                if learner.look(past):
                    progress((past.count - start) / (len(events) - start), f"{name} learned")
    if not at:
        raise NothingToTest(
            f"none of the {len(events) - start} events can be tested: each is the first of its user, who has no "
            "history to recommend from. Is the first column the user, and the same one whenever they come back?"
        )
    progress(1.0, "done")
    return Tested(
        {name: np.concatenate(found) for name, found in ranks.items()},
        np.concatenate(at),
        np.concatenate(users),
        np.concatenate(new),
    )


def document(tested: Tested, versions: dict[str, Versions]) -> Document:
    """Figures and curves of a run."""
    at_the_end = np.arange(len(tested.at)) >= len(tested.at) * 0.75
    points = np.unique(
        np.linspace(min(ROLLING_EVENTS // 4, len(tested.at)) - 1, len(tested.at) - 1, POINTS).astype(int)
    )
    models: dict[str, Document] = {}
    for name, ranks in tested.ranks.items():
        found = summary(ranks)
        models[name] = {"hit@10": found["recall@10"], "ndcg@10": found["ndcg@10"], "mrr": found["mrr"]}
        for part, chosen in (("last_quarter_hit@10", at_the_end), ("new_items_hit@10", tested.new)):
            models[name][part] = round(float((ranks[chosen] < CUTOFF).mean()), 6) if chosen.any() else None
    return {
        "protocol": "prequential",
        "events": {"tested": len(tested.at), "of_new_items": int(tested.new.sum())},
        "models": models,
        "versions": {name: learner.cycles for name, learner in versions.items() if learner.cycles},
        "curves": {
            "event": tested.at[points].tolist(),
            "rolling_hit@10": {name: rolling(ranks)[points].round(5).tolist() for name, ranks in tested.ranks.items()},
        },
    }


def rolling(ranks: Ranks, events: int = ROLLING_EVENTS) -> np.ndarray:
    """Hit@10 of the newest `events` tests up to each, [T]."""
    hits = np.concatenate([[0], np.cumsum(ranks < CUTOFF)])
    end = np.arange(1, len(ranks) + 1)
    begin = np.maximum(end - events, 0)
    return np.asarray((hits[end] - hits[begin]) / (end - begin))


def places_of(targets: Ids, ranked: Ids) -> Ranks:
    """0-based place of each target in its row of ranked items; NOT_FOUND where it is not there."""
    match = ranked == targets[:, None]
    return np.where(match.any(1), match.argmax(1), NOT_FOUND) if match.shape[1] else np.full(len(targets), NOT_FOUND)
