"""Rivals without training score items by their counts."""

import numpy as np
import pytest

from model.encoders.histories import Histories
from model.evaluation.rivals import item_knn, transitions

RECORDED = Histories(np.array([0, 3, 5]), np.array([1, 2, 3, 1, 2]))
"""One user clicked 1, 2, 3, another 1, 2."""
TESTED = Histories(np.array([0, 2]), np.array([1, 2]))
"""A user who clicked 1, then 2."""


@pytest.mark.parametrize(
    ("window", "age_decay", "expected"),
    [
        (1, 0.0, [0, 0, 1]),  # 3 followed 2
        (1, 0.5, [0, 2 * 0.5, 1]),  # and 2 followed 1 twice; 1 is a step older
        (2, 0.5, [0, 2 * 0.5, 1 + 0.5 / 2]),  # 3 also followed two steps after 1
    ],
)
def test_transitions_count_the_items_that_followed_each_item_of_the_history(window, age_decay, expected):
    scores = transitions(RECORDED, 3, window, age_decay)(TESTED)
    assert scores[0, 1:].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("past", [RECORDED, Histories(np.array([0, 5, 7]), np.array([1, 2, 1, 2, 3, 1, 2]))])
def test_item_knn_weighs_older_items_less_and_counts_each_user_once(past):
    beside_1, beside_2 = [0, 1, 2**-0.5], [1, 0, 2**-0.5]  # cosines over the two users; 0 for the item itself
    scores = item_knn(past, 3, 0.5)(TESTED)
    assert scores[0, 1:].tolist() == pytest.approx([0.5 * a + b for a, b in zip(beside_1, beside_2, strict=True)])
