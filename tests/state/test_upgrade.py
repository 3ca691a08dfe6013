"""A store whose journal is folded again into a new one goes on as if nothing had happened."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from state.erasure import read_erasures
from state.events import hash_id
from state.graph import Rows, combine
from state.identity import Identity
from state.journal import DAY_MS
from state.settings import StateSettings
from state.store import Store
from state.upgrade import build_again
from tests.state.oracle import Event, apply
from tests.state.test_as_of_t import UNSHRUNK
from tests.state.test_graph import assert_same_rows
from tests.state.test_rehash import content

SETTINGS = StateSettings(sequence_events=6, neighbours_per_item=8, window_s=9 * DAY_MS / 1000, dedup_window_events=20)
LOG = Identity("cluster", "clicks", 0, 1, 6, 8)
USERS, ITEMS = ("ann", "bob", "cid"), ("milk", "bread", "tea", "jam")
HASHES = np.array([hash_id(item) for item in ITEMS], np.uint64)

events = st.builds(
    lambda user, item, quarter, kind, given: Event(user, item, quarter * DAY_MS // 4, kind, given),
    st.sampled_from(USERS),
    st.sampled_from(ITEMS),
    st.integers(400, 480),
    st.sampled_from(("click", "click", "click", "purchase", "view", "hide", "undo", "forget")),
    st.sampled_from((None, None, "one", "two", "three")),
)


@settings(max_examples=25, deadline=None, phases=UNSHRUNK)
@given(st.lists(events, min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 3), st.lists(events, max_size=12))
def test_the_new_store_holds_what_the_old_one_holds_and_counts_what_follows_in_the_same_way(log, size, answered, more):
    folder = Path(tempfile.mkdtemp())
    try:
        old = Store(folder / "old", LOG, SETTINGS)
        for start in range(0, len(log), size):
            apply(old, *log[start : start + size])
            old.record_answers([(user, b"{}") for user in old.pending.claim(answered)])
        for _ in range(len(log)):
            apply(old)  # everything behind the horizon is removed
        new = Store(folder / "new", LOG, SETTINGS)
        build_again(old, new)
        gone = erasing(old)
        assert all(event[3] > gone.get(event[0], -1) for event in content(new)["journal"])
        old, new = again(old), again(new)
        assert_same(old, new)
        assert {*new.pending.claim(9)} == {*old.pending.claim(9)}
        assert apply(old, *more).duplicate == apply(new, *more).duplicate
        assert_same(old, new)
        assert {*new.pending.claim(9)} == {*old.pending.claim(9)}
        for store in (old, new):
            store.close()
    finally:
        shutil.rmtree(folder)


def again(store: Store) -> Store:
    """The store, closed and opened."""
    store.close()
    return Store(store.path, LOG, SETTINGS)


def erasing(store: Store) -> dict[str, int]:
    """Users of whom the files may still have bytes, whether their tombstone was sent or not, and since which offset."""
    return {erasure.id: erasure.offset for erasure in read_erasures(store.database.default)}


def assert_same(old: Store, new: Store) -> None:
    found, right = content(new), content(old)
    counts = ("next_offset", "applied", "users", "items", "newest_ts", "too_old", "duplicate", "erased", "expired")
    for name in counts:
        assert found["progress"][name] == right["progress"][name], name
    erasures = erasing(old)
    assert erasing(new) == erasures
    for one in (found, right):  # what is left of erased users in the journal goes later
        one["journal"] = [event for event in one["journal"] if event[3] > erasures.get(event[0], -1)]
    for what in right.keys() - {"progress"}:
        assert found[what] == right[what], what
    # An event that is gone has left the time to which its row is decayed: both are compared at the same times.
    mine, theirs = new.rows(HASHES), old.rows(HASHES)
    nothing = Rows(*(np.zeros_like(column) for column in mine))._replace(ts=np.maximum(mine.ts, theirs.ts))
    assert_same_rows(combine([mine, nothing], SETTINGS), combine([theirs, nothing], SETTINGS))
    users = [hash_id(user) for user in USERS]
    assert [new.recommended(user) for user in users] == [old.recommended(user) for user in users]
