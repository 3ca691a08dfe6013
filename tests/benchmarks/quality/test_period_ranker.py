"""The second stage over periods: it is tested first and learns then, and each reading knows what it says."""

import numpy as np

from benchmarks.quality.period_ranker import PeriodRanker
from benchmarks.quality.period_sessions import Periods, SessionTests, from_lists, sessions_to_test
from model.encoders.create import Create
from model.encoders.histories import Histories
from model.ranking.fusion import Fusion
from model.settings import ModelSettings, RankingSettings
from state.settings import StateSettings

ITEMS = 40
BY_POPULARITY = Fusion(model=0.0, evidence=0.0, repeat=0.0, popularity=1.0)


def timed(sessions, first_ms=0, step_ms=1_000):
    """Sessions one after the other; each click comes a step after the one before."""
    found = from_lists(sessions)
    return Histories(found.indptr, found.items, first_ms + step_ms * np.arange(len(found.items)))


def model():
    return Create(ITEMS, ModelSettings(dim=8, heads=1))


def ranker():
    return PeriodRanker(StateSettings(), RankingSettings(), seed=0, examples=130)


def pairs_of(count, draw):
    """Sessions that go from an odd item to the next even one, always."""
    first = 2 * draw.integers(0, ITEMS // 2, count) + 1
    return [[int(item), int(item) + 1] for item in first]


def test_tests_of_sessions_know_the_steps_before_and_the_time_of_the_target():
    tests = SessionTests.of(timed([[5, 6, 7], [8, 9]], first_ms=100, step_ms=10))
    before = tests.before
    assert [before.take(np.array([row])).items.tolist() for row in range(len(before))] == [[5], [5, 6], [8]]
    assert tests.targets.tolist() == [6, 7, 9]
    assert tests.ts.tolist() == [110, 120, 140]
    assert before.ts.tolist() == [100, 100, 110, 130]


def test_tests_can_be_read_in_order_of_time():
    sessions = timed([[1, 2, 3], [4, 5]])
    interleaved = Histories(sessions.indptr, sessions.items, np.array([0, 30, 50, 10, 40]))
    assert SessionTests.of(interleaved).in_time().targets.tolist() == [2, 5, 3]


def test_the_first_period_is_cut_where_its_later_sessions_begin():
    whole = Periods([timed([[1, 2], [2, 3], [4, 1], [5, 2]])], [5])
    halves = whole.first_in_two(0.5)
    assert [part.items.tolist() for part in halves.sessions] == [[1, 2, 2, 3], [4, 1, 5, 2]]
    assert halves.known == [3, 5]


def test_items_without_a_version_leave_the_tests_with_their_times():
    kept = sessions_to_test(timed([[1, 9, 2], [9, 1]]), 5, 10, 0)
    assert kept.items.tolist() == [1, 2]
    assert kept.ts.tolist() == [0, 2_000]


def test_a_ranker_learns_what_always_follows_and_only_after_it_was_tested():
    draw = np.random.default_rng(0)
    system, readings = ranker(), []
    system.learn_graph(timed(pairs_of(130, draw)))
    for start in (10_000_000, 20_000_000):
        period = timed(pairs_of(130, draw), start)
        readings.append(system.test(model(), BY_POPULARITY, period, period))
    before, after = (reading["strict"] for reading in readings)
    assert before.candidate_recall == after.candidate_recall == 100.0
    assert before.mrr < 20.0  # popularity alone: nothing was learned yet
    assert after.mrr > 2 * before.mrr, (before, after)


def test_only_the_streaming_reading_knows_earlier_events_of_the_tested_period():
    system = ranker()
    system.learn_graph(timed([[item, item] for item in range(1, ITEMS)]))
    period = timed([[1, 2]] * 140, 10_000_000)
    found = system.test(model(), BY_POPULARITY, period, period)
    assert found["streaming"].mrr > 2 * found["strict"].mrr
