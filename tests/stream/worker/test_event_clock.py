"""Requests are ranked in the time of the events: a replay's, or now."""

from stream.worker.event_clock import EventClock

NOW, HOUR = 1_700_000_000_000, 3_600_000


class Clocks:
    """A wall clock and a monotonic one that go on together."""

    def __init__(self) -> None:
        self.passed_ms = 0
        self.events = EventClock(lambda: NOW + self.passed_ms, lambda: self.passed_ms / 1000)


def test_a_shop_whose_events_come_as_they_happen_is_at_now():
    clocks = Clocks()
    assert clocks.events.now == NOW
    clocks.events.see(NOW)
    clocks.passed_ms = 5 * HOUR
    assert clocks.events.now == NOW + 5 * HOUR


def test_a_replay_of_old_events_stays_in_their_time_and_goes_on_with_the_wall():
    clocks, old = Clocks(), NOW - 1_000 * HOUR
    clocks.events.see(old)
    clocks.passed_ms = 60_000
    assert clocks.events.now == old + 60_000
    clocks.events.see(old + HOUR)
    clocks.events.see(old - HOUR)  # late
    assert clocks.events.now == old + HOUR


def test_events_ahead_of_the_wall_clock_do_not_lead_beyond_it():
    clocks = Clocks()
    clocks.events.see(NOW + HOUR)
    assert clocks.events.now == NOW


def test_an_empty_store_says_nothing():
    clocks = Clocks()
    clocks.events.see(0)
    assert clocks.events.now == NOW
