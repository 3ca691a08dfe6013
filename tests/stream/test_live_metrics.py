"""Every event tests the last recommendation to its user, and then counts."""

import numpy as np
import pytest

from state.events import make_events
from state.graph import MemoryGraph
from state.sequences import from_events
from state.settings import StateSettings
from stream.live_metrics import (
    ALL_VERSIONS,
    FALLBACK,
    MAX_SCORES,
    OWN,
    POPULARITY,
    TRANSITIONS,
    LastRecommendation,
    LiveMetrics,
    Score,
    ScoreKey,
    Scores,
    baselines,
    decode_scores,
    encode_scores,
    parse_key,
    total,
)

V1 = ScoreKey("v1")


def events(*clicks: tuple[int, int]) -> np.ndarray:
    n = np.arange(len(clicks))
    return make_events([user for user, _ in clicks], [item for _, item in clicks], ts=1000 + n, offset=n)


def test_an_event_tests_what_was_last_recommended_to_its_user():
    metrics, scores = LiveMetrics(10), {}
    metrics.remember(1, LastRecommendation(V1, [7, 8], {POPULARITY: [8, 7]}))
    assert metrics.test(events((1, 8), (1, 9)), scores)
    assert scores[V1].events == 2
    assert scores[V1].hits == 1
    assert scores[V1].ndcg == pytest.approx(1 / np.log2(3))
    assert scores[POPULARITY].ndcg == pytest.approx(1.0)
    assert scores[ALL_VERSIONS].events == 2


def test_an_event_of_a_user_without_a_recommendation_tests_nothing():
    scores: Scores = {}
    assert not LiveMetrics(10).test(events((1, 8)), scores)
    assert scores == {}


def test_the_fallback_is_counted_apart_from_the_models():
    metrics, scores = LiveMetrics(10), {}
    metrics.remember(1, LastRecommendation(FALLBACK, [7], {}))
    metrics.test(events((1, 7)), scores)
    assert set(scores) == {FALLBACK}


def test_the_oldest_recommendation_is_dropped_first():
    metrics, scores = LiveMetrics(1), {}
    metrics.remember(1, LastRecommendation(V1, [7], {}))
    metrics.remember(2, LastRecommendation(V1, [7], {}))
    metrics.test(events((1, 7), (2, 7)), scores)
    assert scores[V1].events == 1


def test_partitions_add_up():
    a, b = Score(), Score()
    for hit in (1.0, 0.0):
        a.update(hit, hit)
    b.update(1.0, 1.0)
    both = total([{V1: a}, {V1: b}])[V1]
    assert (both.events, both.hits) == (3, 2)
    assert both.rolling_hit == pytest.approx(2 / 3)


def test_each_baseline_recommends_by_its_definition():
    log = events((1, 7), (1, 8), (1, 7), (2, 7), (2, 9))
    graph = MemoryGraph(StateSettings(neighbours_per_item=4, user_item_cap=0))
    graph.apply(log)
    sequences = from_events(log)
    last = sequences.steps["item"][sequences.indptr[1:] - 1]
    lists = baselines(sequences, graph.rows(last), graph.popular(10))
    assert lists[0][OWN] == [7, 8]
    assert lists[0][POPULARITY][0] == 7
    assert set(lists[0][TRANSITIONS]) == {8, 9, 7}


ON_DISK = (
    b'{"000001":{"events":2,"hits":1.0,"ndcg":0.5,"rolling_hit":0.5,"rolling_ndcg":0.25},'
    b'"popularity":{"events":1,"hits":0.0,"ndcg":0.0,"rolling_hit":0.0,"rolling_ndcg":0.0},'
    b'"000001 (shadow 000001/000002)":{"events":1,"hits":1.0,"ndcg":1.0,"rolling_hit":1.0,"rolling_ndcg":1.0},'
    b'"000002 (ab 000001/000002)":{"events":1,"hits":1.0,"ndcg":1.0,"rolling_hit":1.0,"rolling_ndcg":1.0}}'
)


def test_scores_of_an_old_store_are_read_and_written_as_they_are():
    scores = decode_scores(ON_DISK)
    pair = ("000001", "000002")
    assert list(scores) == [
        ScoreKey("000001"), POPULARITY, ScoreKey("000001", "shadow", pair), ScoreKey("000002", "ab", pair)
    ]  # fmt: skip
    assert encode_scores(scores) == ON_DISK


def test_a_key_has_one_text_and_the_text_one_key():
    for text in ("000001", "popularity", "my version (old)", "000002 (ab 000001/000002)"):
        assert str(parse_key(text)) == text


def test_the_oldest_versions_scores_are_dropped_and_the_baselines_stay():
    scores: Scores = {key: Score(1) for key in (ALL_VERSIONS, POPULARITY, OWN, TRANSITIONS, FALLBACK)}
    scores |= {ScoreKey(f"{n:06}"): Score(1) for n in range(MAX_SCORES)}
    metrics = LiveMetrics(10)
    metrics.remember(1, LastRecommendation(ScoreKey("000099"), [7], {}))
    assert metrics.test(events((1, 7)), scores)
    assert len(scores) == MAX_SCORES // 2
    assert scores.keys() >= {
        ALL_VERSIONS,
        POPULARITY,
        OWN,
        TRANSITIONS,
        FALLBACK,
        ScoreKey("000099"),
        ScoreKey("000059"),
    }
    assert ScoreKey("000000") not in scores
