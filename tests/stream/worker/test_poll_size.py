"""Polls are as large as can be folded while the loop is held for a moment."""

import pytest

from stream.worker.poll_size import FEWEST, FIRST, PollSize


def settled(us_per_event: float, most: int = 50_000) -> int:
    stride = PollSize(most, 0.5)
    for _ in range(50):
        stride.took(stride.events, stride.events * us_per_event / 1e6)
    return stride.events


@pytest.mark.parametrize(
    ("us_per_event", "events"), [(1, 50_000), (10, 50_000), (25, 20_000), (100, 5_000), (10_000, FEWEST)]
)
def test_events_that_take_longer_are_polled_fewer_at_once(us_per_event, events):
    assert settled(us_per_event) == pytest.approx(events, rel=0.01)


def test_a_trickle_of_events_says_nothing_about_a_flood():
    stride = PollSize(50_000, 0.5)
    stride.took(3, 0.004)
    assert stride.events == FIRST


def test_no_more_are_polled_than_is_set():
    assert settled(1, most=200) == PollSize(200, 0.5).events == 200
