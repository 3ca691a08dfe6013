"""Examples for the tests of the ranker: choices whose taken item stands out by one feature."""

import numpy as np

from model.ranker.examples import Example


def choices(
    count: int, features: int, by: int, *, seed: int = 0, first_ts: int = 1_000_000, items: int = 12, users: int = 50
) -> list[Example]:
    """Choices a second apart. Users take the item that is highest in feature `by`; all features are random."""
    draw = np.random.default_rng(seed)
    found = []
    for number in range(count):
        rows = draw.normal(size=(items, features)).astype(np.float16)
        best = int(rows[:, by].argmax())
        rows[[0, best]] = rows[[best, 0]]
        ts = first_ts + 1000 * number
        ids = draw.integers(1, 1 << 40, items).astype(np.uint64)
        found.append(Example(number % users + 1, ts - 1, ts, "", ids, rows, np.ones(items, np.float32)))
    return found
