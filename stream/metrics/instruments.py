"""What is counted and timed as it happens. Everything else is read when somebody asks (`stream/metrics/samples.py`).

An observation costs about a microsecond, and there is one for a batch. What is observed of each message is counted a
batch at a time.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from stream.metrics.catalogue import BY_NAME

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each, and nobody asks for it

M = TypeVar("M", bound=MetricWrapperBase)


class BatchHistogram(Collector):
    """A histogram without labels that takes many values at once: `Histogram` takes 2 µs for each."""

    def __init__(self, name: str) -> None:
        known = BY_NAME[name]
        self._name, self._meaning = known.full_name, known.meaning
        self._bounds = np.array([*known.buckets, np.inf])
        self._counts = np.zeros(len(self._bounds), np.int64)
        self._sum = 0.0

    def observe(self, values: Sequence[float]) -> None:
        """Count each value in its bucket."""
        if len(values):
            found = np.searchsorted(self._bounds, values, side="left")
            self._counts += np.bincount(found, minlength=len(self._bounds))
            self._sum += float(np.sum(values))

    def collect(self) -> Iterator[Metric]:
        """The buckets, each with what is in the ones below it."""
        upto = np.cumsum(self._counts).tolist()
        names = [floatToGoString(bound) for bound in self._bounds.tolist()]  # type: ignore[no-untyped-call]
        yield HistogramMetricFamily(self._name, self._meaning, list(zip(names, upto, strict=True)), self._sum)


class Instruments:
    """The counters and histograms of one process. They can be used before they are registered, and without."""

    def __init__(self) -> None:
        self._made: list[Collector] = []

    def register(self, registry: CollectorRegistry) -> None:
        """Expose them."""
        for metric in self._made:
            registry.register(metric)

    def _make(self, kind: type[M], name: str) -> M:
        """A metric of the catalogue."""
        known = BY_NAME[name]
        more: dict[str, Any] = {"buckets": known.buckets} if known.buckets else {}
        made = kind(known.full_name, known.meaning, tuple(known.labels), registry=None, **more)
        self._made.append(made)
        return made

    def _make_batched(self, name: str) -> BatchHistogram:
        """A histogram of the catalogue that takes a batch of values."""
        made = BatchHistogram(name)
        self._made.append(made)
        return made

    def _make_each(self, kind: type[M], name: str) -> dict[str, M]:
        """The children of a metric with one label, by its values. All are there from the start, with 0."""
        made, [values] = self._make(kind, name), BY_NAME[name].labels.values()
        return {value: made.labels(value) for value in values}


class WorkerInstruments(Instruments):
    """Of a worker."""

    def __init__(self) -> None:
        super().__init__()
        self._steps = self._make_each(Histogram, "step_duration_seconds")
        self._latency = self._make_batched("recommendation_latency_seconds")
        self._recommendations = self._make_each(Counter, "recommendations_total")
        self._dead_letters = self._make_each(Counter, "dead_letters_total")
        self._requests = self._make_each(Counter, "requests_total")
        self._request_duration = self._make_batched("request_duration_seconds")
        self._examples = self._make_each(Counter, "examples_total")

    def step(self, name: str, seconds: float) -> None:
        """A step of a batch took so long."""
        self._steps[name].observe(seconds)

    def recommended(self, source: str, count: int) -> None:
        """So many recommendations were acknowledged."""
        self._recommendations[source].inc(count)

    def examples(self, outcome: str, count: int) -> None:
        """So many examples came to this."""
        self._examples[outcome].inc(count)

    def waited(self, clicks_ms: Iterable[int]) -> None:
        """The clicks of these times, ms of the broker, have their recommendations now."""
        self._latency.observe(seconds_since(clicks_ms))

    def dead_letters(self, words: Iterable[str]) -> None:
        """Dead letters were acknowledged."""
        for word in words:
            self._dead_letters.get(word, self._dead_letters["event"]).inc()

    def requests(self, outcome: str, sent_ms: Iterable[int]) -> None:
        """Requests of these times, ms of the broker, were replied to."""
        waited = seconds_since(sent_ms)
        self._requests[outcome].inc(len(waited))
        if outcome == "ok":
            self._request_duration.observe(waited)


class TrainerInstruments(Instruments):
    """Of a trainer."""

    def __init__(self) -> None:
        super().__init__()
        self._cycles = self._make_each(Counter, "trainer_cycles_total")
        self._phases = self._make_each(Histogram, "trainer_phase_duration_seconds")

    def cycle(self, outcome: str) -> None:
        """A cycle has ended."""
        self._cycles[outcome].inc()

    def phase(self, name: str, seconds: float) -> None:
        """A phase of a cycle has ended."""
        self._phases[name].observe(seconds)


class HttpInstruments(Instruments):
    """Of an HTTP interface."""

    def __init__(self) -> None:
        super().__init__()
        self._requests = self._make(Counter, "http_requests_total")
        self._durations = self._make(Histogram, "http_request_duration_seconds")

    def answered(self, route: str, code: int, seconds: float) -> None:
        """A request was answered. `route` is the route's pattern, never the path: callers choose paths."""
        self._requests.labels(route, str(code)).inc()
        self._durations.labels(route).observe(seconds)


def seconds_since(times_ms: Iterable[int]) -> list[float]:
    """For how long these times, ms, are past; 0 where a clock is ahead."""
    now = time.time()
    return [max(now - ms / 1000, 0.0) for ms in times_ms]
