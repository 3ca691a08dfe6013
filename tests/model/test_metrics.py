"""Ties count against the target. Leads are paired, with intervals over users."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.metrics import gains, lead, ranks_of, summary


@given(st.lists(st.lists(st.integers(0, 4), min_size=5, max_size=5), min_size=1, max_size=6), st.integers(0, 4))
def test_a_rank_is_the_worst_among_equal_scores(rows, target):
    scores = torch.tensor(rows, dtype=torch.float32)
    found = ranks_of(scores, torch.full((len(rows),), target))
    for row, rank in zip(rows, found, strict=True):
        assert rank == sum(score >= row[target] for score in row) - 1


def test_equal_scores_for_all_items_give_no_hits():
    assert summary(ranks_of(torch.zeros(3, 100), torch.tensor([1, 50, 99])))["recall@20"] == 0.0


def test_a_summary_has_the_first_ten_the_first_twenty_and_all_ranks():
    found = summary(np.array([0, 9, 10, 19, 20]))
    mrr = (1 + 1 / 10 + 1 / 11 + 1 / 20 + 1 / 21) / 5
    assert found == pytest.approx(
        {"ndcg@10": (1 + 1 / np.log2(11)) / 5, "recall@10": 0.4, "recall@20": 0.8, "mrr": mrr}, abs=1e-6
    )


def test_gains_are_the_discounts_of_ndcg():
    assert gains(np.array([0, 1, 9, 10])).tolist() == pytest.approx([1.0, 1 / np.log2(3), 1 / np.log2(11), 0.0])


def test_the_lead_is_0_over_the_same_ranks_and_significant_over_worse_ranks():
    users = np.repeat(np.arange(200, dtype=np.uint64), 3)
    ranks = np.random.default_rng(0).integers(0, 15, 600)
    assert lead(ranks, ranks, users) == (0.0, 0.0, 0.0)
    middle, low, high = lead(ranks, ranks + 3, users)
    assert 0 < low < middle < high


def test_the_interval_depends_on_the_number_of_users_and_not_on_that_of_events():
    users, draw = np.arange(200, dtype=np.uint64), np.random.default_rng(0)
    ranks, over = draw.integers(0, 15, (2, 200))
    once = lead(ranks, over, users)
    assert lead(np.repeat(ranks, 9), np.repeat(over, 9), np.repeat(users, 9)) == pytest.approx(once)


def test_the_interval_is_wider_if_seeds_disagree():
    users, draw = np.arange(200, dtype=np.uint64), np.random.default_rng(0)
    over = draw.integers(3, 15, (3, 200))
    alike, unlike = over - 1, over - [[0], [1], [2]]
    (one, low, high), (other, lower, higher) = lead(alike, over, users), lead(unlike, over, users)
    assert one == pytest.approx(other, abs=0.1)
    assert higher - lower > 2 * (high - low)
    assert 0.0 <= lower < low < high < higher
