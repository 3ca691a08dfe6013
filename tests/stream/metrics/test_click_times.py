"""How long a click has waited is known while it is not answered, and is never shown too short."""

from typing import NamedTuple

import pytest

from stream.metrics import click_times
from stream.metrics.click_times import ClickTimes


class Record(NamedTuple):
    offset: int
    timestamp: int


def records(start: int, end: int) -> list[Record]:
    """Records whose time is 1000 + 10 · their offset."""
    return [Record(offset, 1000 + 10 * offset) for offset in range(start, end)]


def test_a_small_batch_is_remembered_exactly():
    times = ClickTimes()
    times.remember(records(5, 9), base=100, answered=0)
    assert times.of([105, 108]) == [1050, 1080]
    assert times.newest_ms == 1080


def test_clicks_from_before_the_start_have_no_time():
    times = ClickTimes()
    times.remember(records(5, 9), base=0, answered=0)
    assert times.of([4]) == []
    assert times.of([4, 6]) == [1060]


@pytest.mark.parametrize("size", [600, 5_000, 50_000])
def test_a_large_batch_is_sampled_and_no_wait_is_too_short(size):
    times = ClickTimes()
    times.remember(records(0, size), base=0, answered=0)
    for offset in (0, 1, size // 3, size - 1):
        [found] = times.of([offset])
        true = 1000 + 10 * offset
        assert true - 10 * (size // 64 + 1) <= found <= true


def test_memory_is_bounded_and_unanswered_clicks_keep_a_time(monkeypatch):
    monkeypatch.setattr(click_times, "MAX_REMEMBERED", 2048)
    times = ClickTimes()
    for start in range(0, 50_000, 500):
        times.remember(records(start, start + 500), base=0, answered=0)
    [oldest, newest] = times.of([0, 49_999])
    assert oldest == 1000
    assert 0 <= 1000 + 499_990 - newest <= 10 * 100
    for offset in range(0, 50_000, 1000):
        [found] = times.of([offset])
        assert 0 <= 1000 + 10 * offset - found <= 10 * 100


def test_what_is_answered_makes_room_first(monkeypatch):
    monkeypatch.setattr(click_times, "MAX_REMEMBERED", 1024)
    times = ClickTimes()
    for start in range(0, 5000, 250):
        times.remember(records(start, start + 250), base=0, answered=start - 100)
    for offset in (4700, 4950):
        [found] = times.of([offset])
        assert 0 <= 1000 + 10 * offset - found <= 10 * 3
