"""What is read when somebody asks: a process describes its present, and Prometheus' client turns it into series.

A process gives a function that fills `Samples`. It runs in the event loop and reads memory only: no store is closed
meanwhile, and no disk is waited for. A series that it does not fill is not there, so those of a partition go with it.
"""

from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stream.metrics.catalogue import BY_NAME, Process
from stream.metrics.instruments import Instruments

Labels = tuple[str, ...]


class Samples:
    """Values by metric and labels."""

    def __init__(self, kind: Process) -> None:
        self._kind = kind
        self.values: dict[str, dict[Labels, float]] = {}

    def add(self, name: str, value: float, *labels: object) -> None:
        """Set the value of a series. The labels are in the order of the catalogue."""
        known = BY_NAME[name]
        if self._kind not in known.of or len(labels) != len(known.labels):
            raise ValueError(f"the catalogue has no metric {name} of a {self._kind} with {len(labels)} labels")
        self.values.setdefault(name, {})[tuple(map(str, labels))] = float(value)

    def add_one_of(self, name: str, chosen: str, *labels: object) -> None:
        """Set 1 for the chosen value of the last label, and 0 for its others."""
        *_, values = BY_NAME[name].labels.values()
        for value in values:
            self.add(name, value == chosen, *labels, value)


class Present(Collector):
    """Asks for the present state at each scrape."""

    def __init__(self, kind: Process, look: Callable[[Samples], None]) -> None:
        self._kind, self._look = kind, look
        self._read: dict[tuple[str, Labels], float] = {}
        """Each counter as it was read by the scrape before."""
        self._exposed: dict[tuple[str, Labels], float] = {}
        """Each counter as it was exposed last, also that of a partition that is away."""

    def describe(self) -> Iterable[Metric]:
        """Nothing: a look before the process is complete would fail."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The series of now."""
        samples = Samples(self._kind)
        samples.add("build_info", 1, version("anabranch"), self._kind)
        self._look(samples)
        read: dict[tuple[str, Labels], float] = {}
        for name, values in samples.values.items():
            known = BY_NAME[name]
            family: CounterMetricFamily | GaugeMetricFamily
            if known.type == "counter":
                family = CounterMetricFamily(known.full_name, known.meaning, labels=tuple(known.labels))
                for labels, value in values.items():
                    read[name, labels] = value
                    family.add_metric(labels, self._grown((name, labels), value))
            else:
                family = GaugeMetricFamily(known.full_name, known.meaning, labels=tuple(known.labels))
                for labels, value in values.items():
                    family.add_metric(labels, value)
            yield family
        owned = {number for number, _ in samples.values.get("partition_phase", {})}
        # A store that is opened again by this process has grown here meanwhile: by events that retention deleted, say.
        opened_again = {series: value for series, value in self._read.items() if {*series[1][:1]} & owned}
        self._read = opened_again | read

    def _grown(self, series: tuple[str, Labels], value: float) -> float:
        """A counter's value, which never falls: a store can be replaced by one of an earlier checkpoint.

        Prometheus would take a lower value for a restart, and count all of it again. What a partition's counter grew by
        while it was away is another worker's.
        """
        grown = self._exposed.get(series, value) + max(value - self._read.get(series, value), 0.0)
        self._exposed[series] = grown
        return grown


def make_registry(kind: Process, look: Callable[[Samples], None], instruments: Instruments) -> CollectorRegistry:
    """All metrics of a process: its present state, what it counts as it happens, and what the system knows of it."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(Present(kind, look))
    instruments.register(registry)
    return registry
