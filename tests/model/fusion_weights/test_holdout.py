"""Held-out events are tests. Each has its user's history and the graph of the time before it."""

import time

import numpy as np
import pytest

from model.fusion_weights.holdout import Holdout, HoldoutAnswers, split_holdout
from model.settings import RankingSettings
from state.sequences import from_events
from tests.model.examples import cycling, holdout_of, learned


def test_the_split_is_at_one_moment_for_all_users():
    past, held = split_holdout(from_events(cycling(users=40)), 10)
    assert len(held.steps) == 10
    users = np.flatnonzero(np.diff(held.indptr))
    assert all(past.of(user)["ts"].max() < held.steps["ts"].min() for user in users)
    assert len(past.steps) + len(held.steps) == 40 * 12


def test_users_without_a_past_are_tested_from_their_second_event_on():
    events = cycling(users=40)
    events["user"][-6:] = [101, 102, 101, 103, 101, 102]
    holdout = holdout_of(events, 10)
    new = np.flatnonzero(holdout.sequences.users > 100)
    found = [(holdout.sequences.users[row], len(holdout.sequences.of(row)), holdout.targets[row]) for row in new]
    assert found == [(101, 1, events["item"][-4]), (101, 2, events["item"][-2]), (102, 1, events["item"][-1])]
    assert len(holdout.targets) == 4 + 3


def test_before_each_test_the_graph_has_applied_earlier_events_only():
    events = cycling(users=40)
    holdout = holdout_of(events, 10)
    for tests, _, graph in holdout.batches(items=1 << 25):
        assert tests.stop - tests.start == 1
        ts = held_ts(holdout, tests.start, events)
        for item in np.unique(events["item"]):
            clicks = ((events["item"] == item) & (events["ts"] < ts)).sum()
            assert graph.rows(np.array([item])).degree[0] == clicks


def held_ts(holdout: Holdout, test: int, events: np.ndarray) -> int:
    """The time of the held-out event, which is the first event of its user after the history."""
    own = np.sort(events["ts"][events["user"] == holdout.sequences.users[test]])
    return own[np.diff(holdout.sequences.indptr)[test]]


def test_a_busy_machine_does_not_count_against_a_version(monkeypatch):
    trained = learned(cycling(users=60, items=30))
    monkeypatch.setattr("model.ranking.stages.Stages.rank", lambda *_: time.sleep(0.02))
    ((one, other),) = [
        holdout_of(cycling(users=60, items=30), 60).seconds([(*trained[:2], None)] * 2, RankingSettings())
    ]
    assert len(one) == len(other) > 0
    assert max(one + other) < 0.01


def test_a_target_that_is_not_recommended_is_not_a_hit():
    found = HoldoutAnswers(np.array([0, 9, 10, 10]), np.zeros((4, 10), np.uint64)).scores()
    assert found == pytest.approx({"hit@10": 0.5, "ndcg@10": (1 + 1 / np.log2(11)) / 4})
