"""Which headers carry the context of a trace, and whose context waits for an answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.events import EVENT
from state.pending import Unanswered
from stream.tracing.headers import Trace, WaitingTraces, trace_headers, traces_of
from tests.stream.kafka.test_decode import Record

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = b"00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def events(*rows: tuple[int, int]) -> np.ndarray:
    """EVENTs of users at offsets."""
    made = np.zeros(len(rows), EVENT)
    made["user"], made["offset"] = zip(*rows, strict=True)
    return made


def trace(value: bytes = PARENT) -> Trace:
    return Trace((("traceparent", value),), 0)


def newest(offset: int) -> Unanswered:
    return Unanswered(0, offset, 0)


def test_the_context_is_passed_on_as_it_came():
    state = ("tracestate", b"shop=1,other=2")
    assert trace_headers([("x", b"1"), ("traceparent", PARENT), state, ("traceparent", OTHER)]) == (
        ("traceparent", PARENT),
        state,
    )


@pytest.mark.parametrize(
    "value",
    [
        b"", b"00", PARENT[:-1], PARENT + b"0", PARENT.upper(), PARENT + b"\n", b"ff" + PARENT[2:], None, b"\xff" * 55,
        b"00-" + b"0" * 32 + PARENT[35:], PARENT[:36] + b"0" * 16 + b"-01",
    ],
)  # fmt: skip
def test_what_is_not_a_context_is_not_passed_on(value):
    assert trace_headers([("traceparent", value), ("tracestate", b"shop=1")]) == ()


@pytest.mark.parametrize("state", [b"", b"x" * 513, "é".encode(), None])
def test_a_state_that_is_not_allowed_does_not_cost_the_context(state):
    assert trace_headers([("tracestate", state), ("traceparent", PARENT)]) == (("traceparent", PARENT),)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=12), st.none() | st.binary(max_size=60)), max_size=4))
def test_headers_of_others_raise_nothing(headers):
    assert trace_headers(headers) == ()


def test_whether_a_trace_is_recorded_is_in_its_flags():
    assert trace().sampled
    assert not trace(OTHER).sampled


def test_the_contexts_of_records_are_found_by_offset():
    records = [
        Record(b"", 7),
        Record(b"", 8, headers=(("traceparent", PARENT),)),
        Record(b"", 9, headers=(("x", b""),)),
    ]
    found = traces_of(records)
    assert {offset: one.headers for offset, one in found.items()} == {8: (("traceparent", PARENT),)}
    assert traces_of(records[:1]) == {}


def test_an_answer_takes_the_context_of_the_newest_click_that_it_reflects():
    waiting = WaitingTraces()
    waiting.add(0, {4: trace(), 6: trace(OTHER)}, events((1, 4), (2, 5), (1, 6)))
    assert waiting.take(0, {1: newest(6), 2: newest(5)}) == {1: trace(OTHER)}
    assert len(waiting) == 0


def test_a_newer_click_without_a_context_leaves_none():
    waiting = WaitingTraces()
    waiting.add(0, {4: trace()}, events((1, 4)))
    assert waiting.take(0, {1: newest(5)}) == {}
    assert len(waiting) == 0


def test_partitions_are_kept_apart():
    waiting = WaitingTraces()
    waiting.add(0, {4: trace()}, events((1, 4)))
    assert waiting.take(1, {1: newest(4)}) == {}
    assert waiting.take(0, {1: newest(4)}) == {1: trace()}


def test_an_answer_that_was_not_sent_gives_its_context_to_the_next_try_unless_a_newer_one_waits():
    waiting = WaitingTraces()
    users = {1: newest(4), 2: newest(5)}
    waiting.add(0, {4: trace(), 5: trace()}, events((1, 4), (2, 5)))
    taken = waiting.take(0, users)
    waiting.add(0, {6: trace(OTHER)}, events((1, 6)))
    waiting.put_back(0, taken, users)
    assert waiting.take(0, {1: newest(6), 2: newest(5)}) == {1: trace(OTHER), 2: trace()}


def test_a_flood_of_contexts_stays_within_the_limit_and_the_newest_are_kept():
    waiting = WaitingTraces(limit=3)
    waiting.add(0, {n: trace() for n in range(10)}, events(*((n, n) for n in range(10))))
    assert waiting.take(0, {n: newest(n) for n in range(10)}).keys() == {7, 8, 9}
