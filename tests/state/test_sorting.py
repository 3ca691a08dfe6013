"""Sorting by value instead of by place: the same order, whatever the numbers are."""

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
def test_numbers_too_large_to_carry_their_place_are_ordered_all_the_same(keys):
    assert order_of(keys).tolist() == np.argsort(keys, kind="stable").tolist()


@given(hashes)
def test_every_hash_is_there_once(found):
    assert distinct(found).tolist() == sorted(set(found.tolist()))


@pytest.mark.parametrize(("column", "first"), [([], []), ([3], [True]), ([3, 3, 4, 4], [True, False, True, False])])
def test_where_a_value_begins(column, first):
    assert begins(np.array(column, np.int64)).tolist() == first
