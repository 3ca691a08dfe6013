"""Sorting by value gives the same order as numpy's stable sort, for all numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.sorting import begins, distinct, order_of

small = st.lists(st.integers(0, 40), max_size=200).map(lambda n: np.array(n, np.int64))
hashes = st.lists(st.integers(0, 2**64 - 1), max_size=50).map(lambda n: np.array(n + n[::2], np.uint64))


@given(small)
def test_equal_numbers_keep_their_order(keys):
    assert order_of(keys).tolist() == np.argsort(keys, kind="stable").tolist()


@given(hashes)
def test_numbers_too_large_to_pack_with_their_index_are_ordered_too(keys):
    assert order_of(keys).tolist() == np.argsort(keys, kind="stable").tolist()


@given(hashes)
def test_distinct_returns_every_hash_once(found):
    assert distinct(found).tolist() == sorted(set(found.tolist()))


@pytest.mark.parametrize(("column", "first"), [([], []), ([3], [True]), ([3, 3, 4, 4], [True, False, True, False])])
def test_begins_marks_the_first_of_equal_values(column, first):
    assert begins(np.array(column, np.int64)).tolist() == first
