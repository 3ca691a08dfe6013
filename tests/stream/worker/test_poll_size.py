"""Polls are as large as can be applied while the event loop is held for a moment."""

import pytest

from stream.worker.poll_size import FIRST_POLL_EVENTS, MIN_POLL_EVENTS, PollSize


def settled(us_per_event: float, max_events: int = 50_000) -> int:
    size = PollSize(max_events, 0.5)
    for _ in range(50):
        size.update(size.events, size.events * us_per_event / 1e6)
    return size.events


@pytest.mark.parametrize(
    ("us_per_event", "events"), [(1, 50_000), (10, 50_000), (25, 20_000), (100, 5_000), (10_000, MIN_POLL_EVENTS)]
)
def test_slow_events_make_polls_smaller(us_per_event, events):
    assert settled(us_per_event) == pytest.approx(events, rel=0.01)


def test_a_small_batch_does_not_change_the_poll_size():
    size = PollSize(50_000, 0.5)
    size.update(3, 0.004)
    assert size.events == FIRST_POLL_EVENTS


def test_a_poll_is_never_larger_than_the_setting():
    assert settled(1, max_events=200) == PollSize(200, 0.5).events == 200
