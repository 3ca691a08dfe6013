"""Figures of a prequential run: kinds of tests, and leads with their intervals."""

import numpy as np
import pytest

from model.evaluation.prequential import NOT_FOUND
from model.evaluation.prequential_figures import RunResult, groups_of, leads, report
from model.metrics import lead

HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def drawn(hit_share: float, tests: int, seed: int) -> np.ndarray:
    """Ranks of a model that finds this share of the targets."""
    draw = np.random.default_rng(seed)
    return np.where(draw.random(tests) < hit_share, draw.integers(0, 10, tests), NOT_FOUND)


def run_of(ranks: dict[str, np.ndarray], **changed: np.ndarray) -> RunResult:
    tests = len(next(iter(ranks.values())))
    return RunResult(
        ranks=ranks,
        at=np.arange(tests),
        users=changed.get("users", np.arange(tests).astype(np.uint64)),
        new=np.zeros(tests, bool),
        own=changed.get("own", np.zeros(tests, bool)),
        age_ms=changed.get("age_ms", np.zeros(tests, np.int64)),
        history=changed.get("history", np.ones(tests, np.int64)),
    )


def test_each_test_is_in_one_group_of_each_way_to_group():
    ages = np.array([-1, 0, DAY_MS - 1, DAY_MS, 7 * DAY_MS])
    found = groups_of(
        run_of(
            {"create": np.zeros(5, int)},
            own=np.array([False, True, True, False, False]),
            age_ms=ages,
            history=np.array([1, 2, 4, 5, 15]),
        )
    )
    assert {name: np.flatnonzero(chosen).tolist() for name, chosen in found.items()} == {
        "first visits": [0, 3, 4],
        "repeats": [1, 2],
        "item's first event": [0],
        "item < 1 day old": [1, 2],
        "item < 1 week old": [3],
        "item older": [4],
        "history 1": [0],
        "history 2-4": [1, 2],
        "history 5-14": [3],
        "history 15+": [4],
    }


def test_a_group_has_the_figures_of_its_tests_alone():
    own = np.arange(400) % 4 == 0
    ranks = {"create": np.where(own, 0, NOT_FOUND), "frozen": np.full(400, NOT_FOUND)}
    found = report(run_of(ranks, own=own), {})
    assert found.groups["repeats"].tested == 100
    assert (found.groups["repeats"].models["create"].hit, found.groups["first visits"].models["create"].hit) == (1, 0)
    assert found.models["create"].hit == 0.25
    assert found.leads["frozen"].hit.lead == 0.25
    assert found.leads["frozen"].ndcg is None, "nothing is so many times nothing"


def test_the_lead_of_a_better_model_is_that_of_the_bootstrap_over_users():
    better, worse = drawn(0.3, 4_000, 1), drawn(0.2, 4_000, 2)
    users = np.random.default_rng(3).integers(0, 300, 4_000).astype(np.uint64)
    [found] = leads({"create": better, "frozen": worse}, users, [np.ones(4_000, bool)])
    over = found["frozen"]
    assert over.hit.low < over.hit.lead < over.hit.high
    assert over.hit.lead == pytest.approx((better < 10).mean() - (worse < 10).mean(), abs=1e-6)
    assert over.ndcg is not None
    assert (over.ndcg.lead, over.ndcg.low, over.ndcg.high) == pytest.approx(lead(better, worse, users), rel=0.1)
    assert over.ndcg.low > 0


def test_a_model_does_not_lead_over_its_equal():
    ranks, users = drawn(0.3, 500, 1), np.arange(500).astype(np.uint64) // 5
    [found] = leads({"create": ranks, "frozen": ranks}, users, [np.ones(500, bool)])
    assert (found["frozen"].hit.low, found["frozen"].hit.high) == (0, 0)


def test_few_users_give_a_wider_interval_than_many():
    better, worse = drawn(0.3, 2_000, 1), drawn(0.2, 2_000, 2)
    widths = []
    for users in (np.arange(2_000) % 5, np.arange(2_000)):
        better_of = np.where(users % 5 == 0, 0, better)  # one in five users is easy
        [found] = leads({"create": better_of, "frozen": worse}, users.astype(np.uint64), [np.ones(2_000, bool)])
        widths.append(found["frozen"].hit.high - found["frozen"].hit.low)
    assert widths[0] > 2 * widths[1]


def test_without_the_leader_there_are_no_leads():
    assert leads({"frozen": drawn(0.2, 10, 0)}, np.zeros(10, np.uint64), [np.ones(10, bool)]) == [{}]
