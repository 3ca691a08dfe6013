"""The second stage, tested and learned period by period (benchmarks/quality/periods.py, variant `ranker`).

The model, the fusion weights and the ranker come from periods up to t. The tests are of period t + 1, read in two ways:

    strict       of period t + 1 only the session's own earlier clicks are known; graph, counts and ranker stand still
    streaming    graph, counts and ranker go on with every earlier event of period t + 1, as the product does in life

Each reading has a ranker of its own. It learns what was shown at the tests of period t + 1 only after all of them
(strict), or after its batch (streaming). So no ranker learns from a period before it is tested on it, and no example
has a model that has learned the event that it predicts.
"""

import time
from typing import NamedTuple

import msgspec
import numpy as np

from benchmarks.quality.period_sessions import SessionTests
from benchmarks.quality.period_tests import BATCH_ROWS, recall_and_mrr
from model.encoders.create import Create
from model.encoders.graph_table import graph_table
from model.encoders.histories import Histories
from model.encoders.vocabulary import Vocabulary
from model.fusion_weights.timed_batches import TESTS_PER_BATCH, batches
from model.learning.ranker_in_cycle import EPOCHS, first_epochs
from model.ranker.examples import Example, examples_of
from model.ranker.learning import LearningRanker, new_ranker
from model.ranking.features import NAMES, START
from model.ranking.fusion import Fusion
from model.ranking.stages import Stages
from model.settings import RankingSettings
from state.events import Ints, Records, make_events
from state.graph import MemoryGraph
from state.sequences import STEP, Sequences
from state.settings import StateSettings

CUTOFF = 20
NOT_LISTED = 10**9
NEWEST = np.iinfo(np.int64).max


class Reading(NamedTuple):
    """Recall@20 and MRR@20 of one reading of a period, in percent."""

    recall: float
    mrr: float
    candidate_recall: float
    """Share of the tests whose target is a candidate item, in percent."""
    test_s: float
    """Processor seconds of ranking."""
    learn_s: float
    """Processor seconds of the ranker's learning and of the graph's table."""

    def figures(self) -> dict[str, float]:
        """The figures as the lines of the results have them."""
        return {
            "recall@20": self.recall, "mrr@20": self.mrr, "candidates": self.candidate_recall,
            "test_s": self.test_s, "learn_s": self.learn_s,
        }  # fmt: skip


def events_of(sessions: Histories, first_user: int) -> Records:
    """The clicks of sessions in order of time; users are numbered from `first_user`."""
    assert sessions.ts is not None
    events = make_events(sessions.users + first_user, sessions.items, ts=sessions.ts)
    return events[np.argsort(events["ts"], kind="stable")]


class PeriodRanker:
    """Ranks the tests of each period with the product's stages, and learns from what was shown."""

    def __init__(
        self, state: StateSettings, settings: RankingSettings, seed: int, examples: int, epochs: int = EPOCHS
    ) -> None:
        """`examples`: how many of the newest each ranker keeps; `epochs`: over these, after each period."""
        self._epochs = epochs
        # Items of the test's period that no version knows are no tests, so they are not ranked either.
        self._settings = msgspec.structs.replace(settings, because=False, fresh_items=0)
        self._graph = MemoryGraph(state)
        self._users = 1
        self._draw = np.random.default_rng(seed)
        self._learning = {
            name: LearningRanker(new_ranker(len(NAMES), START, seed), len(NAMES), seed, examples)
            for name in ("strict", "streaming")
        }
        self._learned: set[str] = set()

    def learn_graph(self, sessions: Histories) -> None:
        """Count the sessions of a period that is not tested."""
        self._graph.apply(self._arriving(sessions))

    def test(self, model: Create, fusion: Fusion, sessions: Histories, tested: Histories) -> dict[str, Reading]:
        """Test and then learn a period. `tested` are its sessions with tests, of all `sessions`. Both have times."""
        tests, arriving = SessionTests.of(tested).in_time(), self._arriving(sessions)
        started = time.process_time()
        model.graph_table = graph_table(vocabulary_of(model), self._graph.rows)
        table_s = time.process_time() - started
        found = {
            "strict": self._read("strict", model, fusion, tests, arriving[:0], BATCH_ROWS),
            "streaming": self._read("streaming", model, fusion, tests, arriving, TESTS_PER_BATCH),
        }
        return {name: reading._replace(learn_s=reading.learn_s + table_s) for name, reading in found.items()}

    def _arriving(self, sessions: Histories) -> Records:
        events = events_of(sessions, self._users)
        self._users += len(sessions)
        return events

    def _read(
        self, name: str, model: Create, fusion: Fusion, tests: SessionTests, arriving: Records, batch: int
    ) -> Reading:
        """Test one reading, with these events before, between and after the tests; then learn what was shown."""
        assert tests.ts is not None
        learning, learned = self._learning[name], name in self._learned
        stages = Stages(model, vocabulary_of(model), fusion, self._settings, learning.ranker if learned else None)
        ranks, candidates, applied = np.full(len(tests.targets), NOT_LISTED), 0, 0
        waiting: list[Example] = []
        test_s = learn_s = 0.0
        for part, new in batches(arriving, tests.ts, batch):
            started = time.process_time()
            if len(new):
                stages.update(self._graph.apply(new))
            applied += len(new)
            at = np.arange(part.start, part.stop)
            moments, targets = tests.ts[at], tests.targets[at].astype(np.uint64)
            ranked = stages.rank(histories(tests, at), self._graph, CUTOFF, moments=moments, shown=True)
            match = ranked.items == targets[:, None]
            ranks[at] = np.where(match.any(1), match.argmax(1), NOT_LISTED)
            test_s += time.process_time() - started
            started = time.process_time()
            made = examples_of(ranked.shown, targets, at.astype(np.uint64), moments, self._draw)
            candidates += len(made)
            if learned and len(arriving):
                learning.add(made)
            else:
                waiting += made
            learn_s += time.process_time() - started
        started = time.process_time()
        self._graph.apply(arriving[applied:])
        self._fit(name, waiting)
        learn_s += time.process_time() - started
        return Reading(*recall_and_mrr(ranks), 100 * candidates / len(ranks), test_s, learn_s)

    def _fit(self, name: str, waiting: list[Example]) -> None:
        """Learn the waiting examples, then epochs over the newest ones."""
        learning, first = self._learning[name], name not in self._learned
        self._learned.add(name)
        if first:
            learning.keep(waiting)
        else:
            learning.add(waiting)
        learning.standardise(untrained=first)
        learning.fit(first_epochs(max(len(learning.ring), 1)) if first else self._epochs)
        learning.follow(learning.ranker, NEWEST)


def vocabulary_of(model: Create) -> Vocabulary:
    """Items by number: in the graph of these periods the hash of an item is its number."""
    return Vocabulary(np.arange(1, model.item_count + 1, dtype=np.uint64), [""] * model.item_count)


def histories(tests: SessionTests, at: Ints) -> Sequences:
    """The histories of these tests, as ranking reads them."""
    found = tests.before.take(at)
    steps = np.zeros(len(found.items), STEP)
    steps["item"], steps["ts"] = found.items, found.ts
    return Sequences(at.astype(np.uint64), found.indptr, steps)
