"""The newest events of the stream, held out. Candidates are measured on them, with the code that serves.

The graph of the measurement advances from test to test. It never has the event that a test predicts, and is as recent
as the graph of a worker.
"""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from model.encoders.create import Create
from model.encoders.vocabulary import Vocabulary
from model.fusion_weights.timed_batches import TESTS_PER_BATCH, batches
from model.metrics import CUTOFF, Ranks, gains
from model.ranker.examples import Shown
from model.ranker.network import Ranker
from model.ranking.fusion import INITIAL_FUSION, Fusion
from model.ranking.stages import Stages
from model.settings import RankingSettings
from state.events import Ids, Records, make_events
from state.graph import MemoryGraph, Rows
from state.sequences import Sequences, of_users, where
from state.settings import StateSettings

MAX_SCORES_PER_BATCH = 1 << 22
"""Cells of a signal that are computed together. With a large catalogue a batch has fewer tests."""
TIMED_RANKINGS = 7
"""Number of rankings that are timed for each version."""


def split_holdout(
    sequences: Sequences, holdout_events: int, new: np.ndarray | None = None, at_most: float = 0.1
) -> tuple[Sequences, Sequences]:
    """Past and held-out steps of every user. The newest `holdout_events` steps are held out, at most a tenth.

    `at_most` is another share than a tenth.

    The split is at one moment for all users, because a version serves only after the moment of its training. If the
    past contained later steps of other users, the model would look better than it is in serving and get too much
    weight. Steps of the same millisecond as the split belong to the past.

    `new` [steps] (bool) marks the steps that the champion has not learned. With it only those are held out, at most a
    quarter of them.
    """
    ts = sequences.steps["ts"]
    eligible = np.ones(len(ts), bool) if new is None else new
    count = int(eligible.sum())
    held = min(holdout_events, int(count * at_most) if new is None else count // 4)
    moment = np.partition(ts[eligible], count - held - 1)[count - held - 1] if count else 0
    held_out = eligible & (ts > moment)
    return where(sequences, ~held_out), where(sequences, held_out)


def mask_of(sequences: Sequences, events: Records) -> np.ndarray:
    """[steps] bool: whether the step of the sequences is one of these events."""
    users = np.repeat(sequences.users, np.diff(sequences.indptr))
    return np.isin(_mixed(users, sequences.steps), _mixed(events["user"], events))


def _mixed(users: Ids, steps: Records) -> Ids:
    """A hash of user, item and time: products with odd numbers, modulo 2^64."""
    mixed: Ids = users * np.uint64(0x9E3779B97F4A7C15) ^ steps["item"] * np.uint64(0xC2B2AE3D27D4EB4F)
    return mixed * np.uint64(0xD6E8FEB86659FD93) ^ steps["ts"].astype(np.uint64) * np.uint64(0xA0761D6478BD642F)


class Weights(NamedTuple):
    """The fusion weights of each test."""

    fusions: Sequence[Fusion]
    of_test: np.ndarray
    """[T] number of the weights in `fusions`."""

    @classmethod
    def same(cls, fusion: Fusion, holdout: "Holdout") -> "Weights":
        """The same weights for all tests."""
        return cls((fusion,), np.zeros(len(holdout.targets), np.int64))


class Rankings(NamedTuple):
    """Rankings at some tests."""

    tests: slice
    items: Ids
    """[B, CUTOFF]."""
    shown: list[Shown | None]
    """[B] the candidate items with their features, if they were asked for."""


class HoldoutAnswers(NamedTuple):
    """The recommendations of a model at every test."""

    ranks: Ranks
    """[T] rank of the target; CUTOFF if it was not recommended."""
    items: Ids
    """[T, CUTOFF] the recommended items."""

    def scores(self) -> dict[str, float]:
        """hit@10 and ndcg@10; empty without tests."""
        if not len(self.ranks):
            return {}
        return {
            "hit@10": float((self.ranks < CUTOFF).mean()),
            "ndcg@10": float(gains(self.ranks, CUTOFF).mean()),
        }


class Holdout:
    """Held-out events as tests: a user's steps so far and the next item, in order of time.

    Before each test the graph has applied the earlier events of all users, and no later events.
    """

    def __init__(self, past: Sequences, held: Sequences, state: StateSettings) -> None:
        """`past` and `held` have the same users in the same order.

        A held-out event may have arrived late. Steps of the past with a later time are not part of its history.
        """
        users, histories, targets, ts = [], [], [], []
        for row in np.flatnonzero(np.diff(held.indptr) > 0).tolist():
            before, after = past.of(row), held.of(row)
            steps = np.concatenate([before, after])
            in_time = np.argsort(steps["ts"], kind="stable")
            steps = steps[in_time]
            for test in np.flatnonzero((in_time >= len(before)) & (np.arange(len(steps)) > 0)).tolist():
                users.append(past.users[row])
                histories.append(steps[:test])
                targets.append(steps["item"][test])
                ts.append(steps["ts"][test])
        order = np.argsort(np.array(ts, np.int64), kind="stable")
        indptr = np.concatenate([[0], np.cumsum([len(histories[at]) for at in order])]).astype(np.int64)
        before_each = np.concatenate([past.steps[:0], *(histories[at] for at in order)])
        self.sequences = Sequences(np.array(users, np.uint64)[order], indptr, before_each)
        self.targets: Ids = np.array(targets, np.uint64)[order]
        self.times = np.array(ts, np.int64)[order]
        """[T] time of each target, ms."""

        events = np.concatenate([_events(past), _events(held)])
        events = events[np.argsort(events["ts"], kind="stable")]
        moment = self.times[0] if len(self.times) else np.iinfo(np.int64).max
        self._arriving = events[events["ts"] >= moment]
        self._graph = MemoryGraph(state)
        if len(self._arriving) < len(events):
            self._graph.apply(events[events["ts"] < moment])

    def rows(self, items: Ids) -> Rows:
        """Rows of the item-item graph before the first test."""
        return self._graph.rows(items)

    def batches(self, items: int) -> Iterator[tuple[slice, Records, MemoryGraph]]:
        """Batches of tests for a catalogue of `items`.

        Each has the tests, the events applied before them that count for others, and the graph.
        """
        graph = self._graph.fork()
        for tests, arrived in batches(self._arriving, self.times, tests_per_batch(items)):
            yield tests, graph.apply(arrived), graph

    def rankings(self, stages: Stages, weights: Weights, *, shown: bool = False) -> Iterator[Rankings]:
        """Rankings at the tests, in order, as the worker would make them at the times of the targets.

        `stages.ranker` may be replaced between two batches.
        """
        for tests, applied, graph in self.batches(len(stages.vocabulary)):
            stages.update(applied)
            part, moments = slice_sequences(self.sequences, tests.start, tests.stop), self.times[tests]
            items = np.zeros((len(moments), CUTOFF), np.uint64)
            of_test: list[Shown | None] = [None] * len(moments)
            for number, fusion in enumerate(weights.fusions):
                mine = weights.of_test[tests] == number
                if mine.any():
                    stages.fusion = fusion
                    ranked = stages.rank(of_users(part, mine), graph, CUTOFF, moments=moments[mine], shown=shown)
                    items[mine] = ranked.items
                    for row, found in zip(np.flatnonzero(mine).tolist(), ranked.shown, strict=False):
                        of_test[row] = found
            yield Rankings(tests, items, of_test)

    def answers(
        self,
        model: Create,
        vocabulary: Vocabulary,
        fusion: Fusion | Weights,
        settings: RankingSettings,
        ranker: Ranker | None = None,
    ) -> HoldoutAnswers:
        """Recommendations at each test with these fusion weights and this ranker, as the worker would make them."""
        weights = fusion if isinstance(fusion, Weights) else Weights.same(fusion, self)
        stages = self.stages(model, vocabulary, settings, ranker)
        items = np.zeros((len(self.targets), CUTOFF), np.uint64)
        for found in self.rankings(stages, weights):
            items[found.tests] = found.items
        return self.answered(items)

    def stages(
        self, model: Create, vocabulary: Vocabulary, settings: RankingSettings, ranker: Ranker | None = None
    ) -> Stages:
        """Stages that rank at the tests, without reasons."""
        return Stages(model, vocabulary, INITIAL_FUSION, msgspec.structs.replace(settings, because=False), ranker)

    def answered(self, items: Ids) -> HoldoutAnswers:
        """The answers at the tests, from the recommended items [T, CUTOFF]."""
        match = items == self.targets[:, None]
        return HoldoutAnswers(np.where(match.any(1), match.argmax(1), CUTOFF), items)

    def seconds(
        self, versions: Sequence[tuple[Create, Vocabulary, Ranker | None]], settings: RankingSettings
    ) -> list[list[float]]:
        """Processor seconds that each version takes to rank one batch of tests, measured in turns.

        Only the time of this thread counts, so that a busy machine does not count against a version.
        """
        largest = max(len(vocabulary) for _, vocabulary, _ in versions)
        part = slice_sequences(self.sequences, 0, tests_per_batch(largest))
        all_stages = [Stages(model, items, INITIAL_FUSION, settings, ranker) for model, items, ranker in versions]
        taken: list[list[float]] = [[] for _ in all_stages]
        for turn in range(1 + TIMED_RANKINGS if len(part.users) else 0):
            for stages, times in zip(all_stages, taken, strict=True):
                started = time.thread_time()
                stages.rank(part, self._graph, CUTOFF)
                if turn:  # the first ranking also counts clicks
                    times.append(time.thread_time() - started)
        return taken

    def scores(
        self, model: Create, vocabulary: Vocabulary, fusion: Fusion, settings: RankingSettings
    ) -> dict[str, float]:
        """hit@10 and ndcg@10 with these fusion weights; empty without tests."""
        return self.answers(model, vocabulary, fusion, settings).scores()


def tests_per_batch(items: int) -> int:
    """Number of tests in a batch, for a catalogue of `items`."""
    return max(1, min(TESTS_PER_BATCH, MAX_SCORES_PER_BATCH // (items + 1)))


def _events(sequences: Sequences) -> Records:
    steps, users = sequences.steps, np.repeat(sequences.users, np.diff(sequences.indptr))
    return make_events(users, steps["item"], ts=steps["ts"], kind=steps["kind"])


def slice_sequences(sequences: Sequences, start: int, end: int) -> Sequences:
    """The users of the rows `start` to `end`, without `end`."""
    indptr = sequences.indptr[start : min(end, len(sequences.users)) + 1]
    return Sequences(sequences.users[start:end], indptr - indptr[0], sequences.steps[indptr[0] : indptr[-1]])
