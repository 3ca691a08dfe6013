"""Series are there while what they describe is, and a counter never falls."""

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from stream.metrics.samples import Present, Samples


class Page:
    """A page whose state a test sets: applied events by partition."""

    def __init__(self) -> None:
        self.applied: dict[int, int] = {}
        self.opening: list[int] = []
        self.registry = CollectorRegistry()
        self.registry.register(Present("worker", self._look))

    def _look(self, samples: Samples) -> None:
        for number in self.opening:
            samples.add_one_of("partition_phase", "opening", number)
        for number, count in self.applied.items():
            samples.add("events_total", count, number, "applied")

    def scrape(self) -> dict[str, float]:
        """Applied events by partition, as a scrape sees them."""
        families: list[Metric] = list(self.registry.collect())
        found = [s for f in families if f.name == "anabranch_events" for s in f.samples]
        return {sample.labels["partition"]: sample.value for sample in found}


def test_a_counter_of_the_state_begins_with_what_the_state_has():
    page = Page()
    page.applied = {0: 1000}
    assert page.scrape() == {"0": 1000}
    page.applied = {0: 1010}
    assert page.scrape() == {"0": 1010}


def test_the_series_of_a_partition_go_with_it():
    page = Page()
    page.applied = {0: 5, 1: 7}
    assert page.scrape() == {"0": 5, "1": 7}
    del page.applied[0]
    assert page.scrape() == {"1": 7}


def test_a_store_that_is_replaced_by_an_older_one_makes_no_counter_fall():
    """Prometheus would count all 900 events again."""
    page = Page()
    page.applied = {0: 1000}
    page.scrape()
    page.applied = {0: 900}
    assert page.scrape() == {"0": 1000}
    page.applied = {0: 930}
    assert page.scrape() == {"0": 1030}


def test_what_another_worker_applied_while_it_owned_the_partition_is_not_counted_here():
    page = Page()
    page.applied = {0: 1000}
    page.scrape()
    page.applied = {}
    page.scrape()
    page.applied = {0: 1500}
    assert page.scrape() == {"0": 1000}
    page.applied = {0: 1504}
    assert page.scrape() == {"0": 1004}


def test_what_a_store_lost_while_this_worker_opened_it_again_is_counted():
    """Retention deleted what a worker had not read, and the alert of lost events looks at the growth."""
    page = Page()
    page.applied = {0: 1000}
    page.scrape()
    page.applied, page.opening = {}, [0]
    assert page.scrape() == {}
    page.applied = {0: 1040}
    assert page.scrape() == {"0": 1040}
