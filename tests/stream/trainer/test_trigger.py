"""When a cycle is due, and when it is not."""

import numpy as np

from stream.config import TrainerSettings
from stream.trainer.drift import Drift
from stream.trainer.trigger import Trigger

SETTINGS = TrainerSettings(every_events=1000, every_s=60.0, min_events=100, user_events=50)


def users(*counts: int) -> np.ndarray:
    return np.repeat(np.arange(1, len(counts) + 1, dtype=np.uint64), counts)


def test_enough_events_make_a_cycle_due_and_its_start_resets_the_count():
    trigger = Trigger(SETTINGS, 0.0)
    trigger.update(users(*[10] * 99))
    assert trigger.due(1.0) is None
    trigger.update(users(*[1] * 10))
    assert trigger.due(1.0) == "1,000 new events"
    trigger.began(1.0)
    assert trigger.due(2.0) is None
    assert trigger.events == 0


def test_time_makes_a_cycle_due_only_where_there_is_something_to_learn():
    trigger = Trigger(SETTINGS, 0.0)
    trigger.update(users(*[1] * 99))
    assert trigger.due(1000.0) is None
    trigger.update(users(1))
    assert trigger.due(59.0) is None
    assert trigger.due(61.0) == "61 s and 100 new events"


def test_a_bots_million_events_do_not_make_a_cycle_due():
    trigger = Trigger(SETTINGS, 0.0)
    for _ in range(10):
        trigger.update(users(100_000))
    assert trigger.events == 50
    assert trigger.due(1000.0) is None


def test_drift_makes_a_cycle_due_at_once_but_not_without_events():
    trigger = Trigger(SETTINGS, 0.0)
    trigger.on_drift("drift")
    assert trigger.due(1.0) is None
    trigger.update(users(*[1] * 100))
    assert trigger.due(1.0) == "drift"
    trigger.began(1.0)
    trigger.update(users(*[1] * 100))
    assert trigger.due(2.0) is None


def test_the_pause_grows_with_each_failure_until_a_cycle_succeeds():
    trigger = Trigger(SETTINGS, 0.0)
    trigger.began(0.0)
    assert trigger.failed(0.0) == 10.0
    assert trigger.due(9.0) is None
    assert trigger.due(10.0) == "the last cycle failed", "though there are no new events"
    assert [trigger.failed(0.0) for _ in range(4)] == [20.0, 40.0, 60.0, 60.0]
    trigger.ended()
    assert trigger.due(1000.0) is None
    assert trigger.failed(0.0) == 10.0


def watched(*shares: float, quiet_s: float = 600.0, tests: int = 300, looks: int = 100) -> list[int]:
    """The updates at which drift is found, when events are predicted with these probabilities, one after the other."""
    draw, drift = np.random.default_rng(0), Drift(0.002, quiet_s)
    events, hits, found = 0, 0.0, []
    for look in range(looks * len(shares)):
        events, hits = events + tests, hits + draw.binomial(tests, shares[look // looks])
        if drift.update(events, hits, float(look)):
            found.append(look)
    return found


def test_drift_is_found_soon_and_once_when_fewer_events_are_predicted():
    (look,) = watched(0.1, 0.05)
    assert 100 <= look < 110


def test_an_unchanged_or_better_rate_is_not_drift():
    assert watched(0.1, 0.1) == []
    assert watched(0.05, 0.1) == []


def test_a_change_that_goes_on_is_reported_again_only_after_the_quiet_time():
    looks = watched(0.5, 0.4, 0.3, 0.2, 0.1, 0.05, quiet_s=250.0)
    assert 1 < len(looks) <= 3
    assert np.diff(looks).min() >= 250


def test_counts_that_were_reset_are_not_drift():
    drift = Drift(0.002, 600.0)
    assert drift.update(1000, 900.0, 0.0) is None
    assert drift.update(10, 0.0, 1.0) is None
    assert Drift(0.0, 600.0).update(1000, 0.0, 0.0) is None
