"""A histogram that takes a batch shows what Prometheus' own shows of each value."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from stream.metrics.catalogue import BY_NAME
from stream.metrics.instruments import BatchHistogram

NAME = "request_duration_seconds"
EDGES = BY_NAME[NAME].buckets
values = st.lists(st.one_of(st.sampled_from(EDGES), st.integers(0, 4_000).map(lambda ms: ms / 1_000)), max_size=30)


@given(st.lists(values, max_size=4))
def test_batches_count_as_their_values_one_by_one(batches):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    made = BatchHistogram(NAME)
    ours.register(made)
    known = BY_NAME[NAME]
    each = Histogram(known.full_name, known.meaning, buckets=known.buckets, registry=theirs)
    for batch in batches:
        made.observe(batch)
        for value in batch:
            each.observe(value)
    assert exposed(ours) == exposed(theirs)


def exposed(registry: CollectorRegistry) -> list[tuple[str, float]]:
    lines = [line.rsplit(" ", 1) for line in generate_latest(registry).decode().splitlines() if line[0] != "#"]
    return [(series, round(float(value), 9)) for series, value in lines if "_created" not in series]
