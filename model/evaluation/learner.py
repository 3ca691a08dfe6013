"""Cycles over a recorded stream, run by `model.learning.cycle` as in production."""

import time
from collections.abc import Sequence
from typing import Literal, Protocol

from model.evaluation.recorded_stream import RecordedStream
from model.evaluation.reports import CycleReport
from model.learning.cycle import CycleSettings, collect_input, run_cycle
from model.learning.trained import Trained
from model.metrics import CUTOFF, Ranks
from model.ranker.examples import Example


class CycleTrigger(Protocol):
    """Decides when a cycle is due."""

    def due(self, new_events: int, tested: int, hits: int) -> bool:
        """`new_events` arrived since the last cycle. Of the `tested` events so far, `hits` were in the top ten."""


class AfterEvents:
    """A cycle is due after a number of events."""

    def __init__(self, events: int) -> None:
        self._events = events

    def due(self, new_events: int, tested: int, hits: int) -> bool:
        """Whether enough events have arrived since the last cycle."""
        return new_events >= self._events


class NeverDue:
    """No cycle is due: the model is trained once."""

    def due(self, new_events: int, tested: int, hits: int) -> bool:
        """Always False."""
        return False


class Learner:
    """The versions of one model on a recorded stream, learned in cycles and judged by the gate as the trainer does."""

    def __init__(
        self,
        settings: CycleSettings,
        trigger: CycleTrigger,
        how: Literal["increment", "retrain"] = "increment",
        *,
        seed: int = 0,
    ) -> None:
        self._settings, self._trigger, self._how, self._seed = settings, trigger, how, seed
        self._learned = 0
        """Number of events that the serving version has learned."""
        self._last_cycle = 0
        self._tested = self._hits = 0
        self.serving: Trained | None = None
        self.cycles: list[CycleReport] = []

    def begin(self, stream: RecordedStream, first: Trained | None = None) -> Trained:
        """Learn the first version, or start from `first`, the first version of a learner with the same settings."""
        self.serving = self._run_cycle(stream) if first is None else first
        self._learned = self._last_cycle = stream.count
        return self.serving

    def count_tests(self, ranks: Ranks) -> None:
        """Count tests of the serving version, for the trigger."""
        self._tested += len(ranks)
        self._hits += int((ranks < CUTOFF).sum())

    def learn_if_due(self, stream: RecordedStream, examples: Sequence[Example] = ()) -> bool:
        """Run a cycle if one is due, with the newest examples of its ranker. Returns whether one was due."""
        if not self._trigger.due(stream.count - self._last_cycle, self._tested, self._hits):
            return False
        candidate = self._run_cycle(stream, examples)
        self._last_cycle = stream.count
        if candidate.verdict.promoted:
            self.serving, self._learned = candidate, stream.count
        return True

    def _run_cycle(self, stream: RecordedStream, examples: Sequence[Example] = ()) -> Trained:
        started, seed = time.process_time(), self._seed * 1_000_003 + stream.count
        champion = self.serving if self._how == "increment" else None
        new_events = stream.events(self._learned if champion is not None else 0)
        cycle_input = collect_input(stream, new_events, champion, self._settings, seed, examples=examples)
        candidate = run_cycle(champion, cycle_input, self._settings)
        self.cycles.append(
            CycleReport(
                at=stream.count,
                cpu_s=round(time.process_time() - started, 1),
                promoted=candidate.verdict.promoted,
                reason=candidate.verdict.reason,
                fusion=candidate.fusion,
                metrics=candidate.metrics,
            )
        )
        return candidate
