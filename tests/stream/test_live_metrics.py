"""Test, then learn: what a standing recommendation counts for."""

import numpy as np
import pytest

from state.events import make_events
from state.graph import MemoryGraph
from state.sequences import from_events
from state.settings import StateSettings
from stream.live_metrics import FALLBACK, LastRecommendation, LiveMetrics, Score, Scores, baselines, total


def events(*clicks: tuple[int, int]) -> np.ndarray:
    n = np.arange(len(clicks))
    return make_events([user for user, _ in clicks], [item for _, item in clicks], ts=1000 + n, offset=n)


def test_an_event_tests_what_stood_for_its_user():
    prequential, scores = LiveMetrics(10), {}
    prequential.remember(1, LastRecommendation("v1", [7, 8], {"popularity": [8, 7]}))
    assert prequential.test(events((1, 8), (1, 9)), scores)
    assert scores["v1"].events == 2
    assert scores["v1"].hits == 1
    assert scores["v1"].ndcg == pytest.approx(1 / np.log2(3))
    assert scores["popularity"].ndcg == pytest.approx(1.0)
    assert scores["model"].events == 2


def test_an_event_nothing_stood_for_tests_nothing():
    scores: Scores = {}
    assert not LiveMetrics(10).test(events((1, 8)), scores)
    assert scores == {}


def test_the_fallback_is_counted_apart_from_the_models():
    prequential, scores = LiveMetrics(10), {}
    prequential.remember(1, LastRecommendation(FALLBACK, [7], {}))
    prequential.test(events((1, 7)), scores)
    assert set(scores) == {FALLBACK}


def test_the_user_longest_unanswered_is_forgotten_first():
    prequential, scores = LiveMetrics(1), {}
    prequential.remember(1, LastRecommendation("v1", [7], {}))
    prequential.remember(2, LastRecommendation("v1", [7], {}))
    prequential.test(events((1, 7), (2, 7)), scores)
    assert scores["v1"].events == 1


def test_partitions_add_up():
    a, b = Score(), Score()
    for hit in (1.0, 0.0):
        a.learn_one(hit, hit)
    b.learn_one(1.0, 1.0)
    both = total([{"v1": a}, {"v1": b}])["v1"]
    assert (both.events, both.hits) == (3, 2)
    assert both.rolling_hit == pytest.approx(2 / 3)


def test_the_baselines_say_what_their_names_say():
    log = events((1, 7), (1, 8), (1, 7), (2, 7), (2, 9))
    graph = MemoryGraph(StateSettings(neighbours_per_item=4))
    graph.apply(log)
    sequences = from_events(log)
    last = sequences.steps["item"][sequences.indptr[1:] - 1]
    said = baselines(sequences, graph.rows(last), graph.popular(10))
    assert said[0]["own"] == [7, 8]
    assert said[0]["popularity"][0] == 7
    assert set(said[0]["transitions"]) == {8, 9, 7}
