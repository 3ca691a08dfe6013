"""Prequential evaluation of a recorded stream: each event is first a test, then learned from.

Events are read in the order of the file, TESTS_PER_BATCH at a time. Every model ranks for the users of a batch, then
receives the batch and may learn from it. Models read only the `RecordedStream`, so they cannot read ahead. The cycle,
the gate, the graph and the ranking are those of production. A cycle begins after a number of events.
"""

from collections import deque
from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec
import numpy as np

from model.errors import NothingToTest
from model.evaluation.learner import AfterEvents, Learner, NeverDue
from model.evaluation.live_rivals import LIVE_RIVALS
from model.evaluation.prequential_figures import RunResult, report
from model.evaluation.recorded_stream import RecordedStream, Tests
from model.evaluation.reports import PrequentialReport
from model.fusion_weights.online import OnlineFusion
from model.fusion_weights.timed_batches import TESTS_PER_BATCH
from model.learning.cycle import CycleSettings, ProgressCallback
from model.learning.trained import Trained
from model.metrics import Ranks
from model.ranker.examples import Example, Shown, examples_of
from model.ranker.learning import RING_EXAMPLES, LearningRanker
from model.ranking.features import NAMES
from model.ranking.fusion import Fusion, uses_ranker
from model.ranking.stages import Stages
from model.settings import RankingSettings
from state.events import Ids, Ints, Records
from state.graph import Rows
from state.sequences import Sequences

WARM_UP_SHARE = 0.2
"""The first version learns from this share of a stream. Tests begin after it."""
DEFAULT_CYCLES = 8
"""Default number of cycles over the rest of the stream."""
LIST_LENGTH = 100
"""Items that each model ranks. A target further down counts as not found."""
NOT_FOUND = 10**9
"""Rank of a target that is not in the list."""
Moment = Literal["asked", "pushed"]
"""When a list is made: `asked` at the time of the event that is tested, `pushed` at the user's event before it."""


class EvaluatedModel(Protocol):
    """A model or a rival that is tested."""

    def rank(self, tests: Sequences) -> Ids:
        """Items [T, up to LIST_LENGTH], best first; 0 = none."""

    def update(self, events: Records) -> None:
        """Count new events. The recorded stream already has them."""


class ServedModel:
    """The serving version of a learner, ranked as a worker does.

    The graph is live. Between versions the ranker learns from every event that it has ranked. The fusion weights do
    where the fusion ranks: the ranker reads the fused score, so it stays as the version has it.
    """

    def __init__(
        self,
        stream: RecordedStream,
        learner: Learner,
        ranking: RankingSettings,
        *,
        fusion: Fusion | None = None,
        live: bool = True,
        moment: Moment = "asked",
        seed: int = 0,
        keeps_examples: bool = True,
    ) -> None:
        """`fusion` replaces the version's weights, and ranks alone. Without `live` the graph stays as it is now.

        Without `keeps_examples` the learner's next cycle has none.
        """
        self._learner, self._fusion, self._live, self._moment = learner, fusion, live, moment
        self._ranking_settings = msgspec.structs.replace(
            ranking, because=False, ranker=ranking.ranker and fusion is None
        )
        self._graph = stream.graph if live else stream.graph.copy()
        self._serving: Trained | None = None
        self._online: OnlineFusion | None = None
        self._ranker: LearningRanker | None = None
        self._learns_ranker = uses_ranker(self._ranking_settings) and ranking.online_ranker
        self._keeps = self._learns_ranker or (uses_ranker(self._ranking_settings) and keeps_examples)
        self._draw, self._seed = np.random.default_rng(seed), seed
        self._shown: Sequence[Shown | None] = ()
        self.examples: deque[Example] = deque(maxlen=RING_EXAMPLES)
        """The newest examples, for the learner's next cycle."""

    def rank(self, tests: Sequences, moments: Ints | None = None) -> Ids:
        """Rank with the version that serves now, at these event times if the lists are asked for then."""
        asked = moments if self._moment == "asked" else None
        stages = self._stages_of_serving()
        ranked = stages.rank(tests, self._graph, LIST_LENGTH, moments=asked, shown=self._keeps)
        self._shown = ranked.shown
        return ranked.items

    def learn(self, tests: Tests) -> None:
        """Learn these tests, which were ranked last: the fusion weights and the ranker, if they learn online."""
        stages = self._stages_of_serving()
        if self._online is not None:
            self._online.update(stages, tests.before, tests.targets, self._graph)
            stages.fusion = self._online.fusion
        if not self._keeps:
            return
        new = examples_of(self._shown, tests.targets, tests.before.users, tests.ts, self._draw)
        self.examples.extend(new)
        if self._ranker is not None:
            self._ranker.add(new)

    def _stages_of_serving(self) -> Stages:
        serving = self._learner.serving
        assert serving is not None
        if serving is not self._serving:
            self._serving = serving
            fusion = self._fusion or serving.fusion
            self._stages = Stages(serving.model, serving.vocabulary, fusion, self._ranking_settings, serving.ranker)
            self._begin_fusion(fusion)
            self._begin_ranker(serving)
        return self._stages

    def _begin_fusion(self, fusion: Fusion) -> None:
        if not self._ranking_settings.online_clicks or self._stages.ranker is not None:
            self._online = None
            return
        before, self._online = self._online, OnlineFusion(fusion, self._ranking_settings)
        if before is not None:
            self._online.carry_over(before.learned)
            self._online.keep_clicks_of(before)
            self._stages.fusion = self._online.fusion

    def _begin_ranker(self, serving: Trained) -> None:
        if not self._learns_ranker:
            return
        if self._stages.ranker is None:
            self._ranker = None
            return
        if self._ranker is None:
            self._ranker = LearningRanker(self._stages.ranker, len(NAMES), self._seed)
            self._ranker.keep(self.examples)
        self._ranker.follow(self._stages.ranker, serving.ranker_ts)
        self._stages.ranker = self._ranker.ranker

    def update(self, events: Records) -> None:
        """Count the clicks that count for others, if the graph is live."""
        if self._live:
            self._stages_of_serving().update(events)


def prequential(
    events: Records,
    settings: CycleSettings,
    *,
    seed: int = 0,
    cycles: int = DEFAULT_CYCLES,
    with_retrain: bool = False,
    moment: Moment = "asked",
    progress: ProgressCallback = lambda _share, _what: None,
) -> PrequentialReport:
    """Test the model, the same model frozen after its first version, and the rivals, in arrival order.

    Row `fusion` has the versions of `create` and ranks them by the fusion alone. `moment`: when lists are made.
    Raises NothingToTest if no event can be tested.
    """
    start = int(len(events) * WARM_UP_SHARE)
    every = max(-(-(len(events) - start) // cycles), 1)
    stream = RecordedStream(settings.state)
    stream.append(events[:start])
    progress(0.0, "learning the first version")
    learners = {
        "create": Learner(settings, AfterEvents(every), seed=seed),
        "frozen": Learner(settings, NeverDue(), seed=seed),
    }
    if with_retrain:
        learners["full retrain"] = Learner(settings, AfterEvents(every), "retrain", seed=seed)
    begin_together(learners, stream)
    models: dict[str, EvaluatedModel] = {
        name: ServedModel(stream, learner, settings.ranking, moment=moment, seed=seed)
        for name, learner in learners.items()
    }
    still = standing_still(settings.ranking)
    for name, live in (("frozen", True), ("frozen, graph too", False)):
        models[name] = ServedModel(stream, learners["frozen"], still, live=live, moment=moment, keeps_examples=False)
    if uses_ranker(settings.ranking):
        models["fusion"] = ServedModel(stream, learners["create"], by_fusion(settings.ranking), moment=moment)
    models |= {name: rival(stream, LIST_LENGTH) for name, rival in LIVE_RIVALS.items()}
    tested = run(events, stream, learners, models, progress=progress)
    return msgspec.structs.replace(
        report(tested, learners), every_events=every, seed=seed, warm_up=start, moment=moment
    )


def standing_still(ranking: RankingSettings) -> RankingSettings:
    """Settings with which nothing is learned between versions."""
    return msgspec.structs.replace(ranking, online_clicks=0, online_ranker=False)


def by_fusion(ranking: RankingSettings) -> RankingSettings:
    """Settings with which the fusion ranks."""
    return msgspec.structs.replace(ranking, ranker=False)


def begin_together(learners: dict[str, Learner], stream: RecordedStream) -> None:
    """Learn the first version once, for all learners."""
    first: Trained | None = None
    for learner in learners.values():
        first = learner.begin(stream, first)


def run(
    events: Records,
    stream: RecordedStream,
    learners: dict[str, Learner],
    models: dict[str, EvaluatedModel],
    *,
    progress: ProgressCallback = lambda _share, _what: None,
) -> RunResult:
    """Test the models on what comes after the stream's end, batch by batch, and then append the batch to the stream.

    A learner counts the tests of the model of its own name. An item is new where the first learner's version does not
    know it though the stream had it before. Raises NothingToTest.
    """
    start, leading = stream.count, next(iter(learners.values()))
    ranks: dict[str, list[Ranks]] = {name: [] for name in models}
    at: list[np.ndarray] = []
    users: list[Ids] = []
    new: list[np.ndarray] = []
    kinds: list[TestKinds] = []
    while stream.count < len(events):
        progress((stream.count - start) / (len(events) - start), f"event {stream.count:,} of {len(events):,}")
        batch = events[stream.count : stream.count + TESTS_PER_BATCH]
        tests = stream.tests(batch)
        if len(tests.targets):
            for name, model in models.items():
                if isinstance(model, ServedModel):
                    ranks_of_model = ranks_in_lists(tests.targets, model.rank(tests.before, tests.ts))
                    model.learn(tests)
                else:
                    ranks_of_model = ranks_in_lists(tests.targets, model.rank(tests.before))
                ranks[name].append(ranks_of_model)
                if name in learners:
                    learners[name].count_tests(ranks_of_model)
            assert leading.serving is not None
            rows = stream.graph.rows(tests.targets)
            met = rows.degree > 0
            kinds.append(kinds_of_tests(tests, rows))
            new.append(met & (leading.serving.vocabulary.lookup(tests.targets) == 0))
            users.append(tests.before.users)
            at.append(np.linspace(stream.count, stream.count + len(batch), len(tests.targets), False).astype(int))
        shared = stream.append(batch)
        for model in models.values():
            model.update(shared if isinstance(model, ServedModel) else batch)
        if stream.count < len(events):
            for name, learner in learners.items():
                row = models.get(name)
                if learner.learn_if_due(stream, list(row.examples) if isinstance(row, ServedModel) else ()):
                    progress((stream.count - start) / (len(events) - start), f"{name} learned a version")
    if not at:
        raise NothingToTest(
            f"none of the {len(events) - start} events can be tested: each is the first of its user, who has no "
            "history to recommend from. Is the first column the user, with the same id in all events of one user?"
        )
    progress(1.0, "done")
    return RunResult(
        {name: np.concatenate(found) for name, found in ranks.items()},
        np.concatenate(at),
        np.concatenate(users),
        np.concatenate(new),
        *(np.concatenate(part) for part in zip(*kinds, strict=True)),
    )


TestKinds = tuple[np.ndarray, Ints, Ints]
"""`own`, `age_ms` and `history` of a RunResult."""


def kinds_of_tests(tests: Tests, rows: Rows) -> TestKinds:
    """What kind of test each is; `rows` are the graph's of the targets."""
    lengths = np.diff(tests.before.indptr)
    same = tests.before.steps["item"] == np.repeat(tests.targets, lengths)
    own = np.bincount(np.repeat(np.arange(len(lengths)), lengths), same, len(lengths)) > 0
    age = np.where(rows.degree > 0, np.maximum(tests.ts - rows.first_ts, 0), -1)
    return own, age, lengths


def ranks_in_lists(targets: Ids, ranked: Ids) -> Ranks:
    """0-based rank of each target in its row of ranked items, or NOT_FOUND."""
    match = ranked == targets[:, None]
    return np.where(match.any(1), match.argmax(1), NOT_FOUND) if match.shape[1] else np.full(len(targets), NOT_FOUND)
