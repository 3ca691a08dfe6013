"""The best columns are those of a full sort, for any scores."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.ranking.best_columns import best_columns


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 700), st.integers(1, 12), st.sampled_from([1, 3, 99])
)
def test_the_best_columns_have_the_largest_scores(seed, rows, columns, count, values):
    """With few different values most scores are equal."""
    scores = np.random.default_rng(seed).integers(0, values, (rows, columns)).astype(np.float32)
    row, column = best_columns(torch.from_numpy(scores), count)
    expected = min(count, columns)
    assert row.tolist() == np.repeat(np.arange(rows), expected).tolist()
    for n in range(rows):
        found = column[row == n]
        assert len(set(found.tolist())) == expected
        assert sorted(scores[n, found]) == sorted(np.sort(scores[n])[-expected:])
