"""What needs no training says what was counted."""

import numpy as np
import pytest

from model.encoders.histories import Histories
from model.evaluation.rivals import item_knn, transitions

PAST = Histories(np.array([0, 3, 5]), np.array([1, 2, 3, 1, 2]))
"""One user had 1, 2, 3, another 1, 2."""
ASKED = Histories(np.array([0, 2]), np.array([1, 2]))
"""A user who had 1, then 2."""


@pytest.mark.parametrize(
    ("window", "age_decay", "expected"),
    [
        (1, 0.0, [0, 0, 1]),  # 3 came right after 2
        (1, 0.5, [0, 2 * 0.5, 1]),  # and 2 twice right after 1, which lies a step back
        (2, 0.5, [0, 2 * 0.5, 1 + 0.5 / 2]),  # 3 also came two steps after 1
    ],
)
def test_transitions_count_what_followed_each_item_of_the_history(window, age_decay, expected):
    scores = transitions(PAST, 3, window, age_decay)(ASKED)
    assert scores[0, 1:].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("past", [PAST, Histories(np.array([0, 5, 7]), np.array([1, 2, 1, 2, 3, 1, 2]))])
def test_item_knn_lets_older_items_say_less_and_counts_a_user_once(past):
    beside_1, beside_2 = [0, 1, 2**-0.5], [1, 0, 2**-0.5]  # cosines over the two users; nothing beside itself
    scores = item_knn(past, 3, 0.5)(ASKED)
    assert scores[0, 1:].tolist() == pytest.approx([0.5 * a + b for a, b in zip(beside_1, beside_2, strict=True)])
