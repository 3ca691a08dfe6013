"""Sorting of whole columns, faster than `np.argsort` and `np.unique`.

numpy sorts values with vector instructions; `np.argsort` and the hash tables of `np.unique` do not use them.
"""

import numpy as np
import numpy.typing as npt

from state.events import Floats, Ids, Ints
from state.kinds import Mask


def distinct(hashes: Ids) -> Ids:
    """Every hash once, ascending.

    >>> distinct(np.array([7, 3, 7], np.uint64)).tolist()
    [3, 7]
    """
    ordered = np.sort(hashes)
    return ordered[begins(ordered)]


def begins(ordered: Ids | Ints) -> Mask:
    """Where a value of a sorted column appears for the first time."""
    first = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return first


def order_of(keys: npt.NDArray[np.integer]) -> Ints:
    """Indices that sort whole numbers >= 0 in ascending order; equal numbers keep their order.

    A number and its index are sorted as one number where both fit into 64 bits.

    >>> order_of(np.array([5, 0, 5, 2])).tolist()
    [1, 3, 0, 2]
    """
    bits = len(keys).bit_length()
    if len(keys) and int(keys.max()).bit_length() + bits > 64:
        return np.argsort(keys, kind="stable")
    packed = (keys.astype(np.uint64) << np.uint64(bits)) | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    return (packed & np.uint64((1 << bits) - 1)).astype(np.int64)


def descending(values: Floats) -> Ints:
    """Indices that sort 32-bit floats >= 0 in descending order; equal values keep their order.

    The bits of such floats, read as whole numbers, have the order of the floats; inverted, the opposite order.

    >>> descending(np.array([1.5, 0.0, 4.0, 1.5], np.float32)).tolist()
    [2, 0, 3, 1]
    """
    return order_of(~values.view(np.uint32))
