"""A store that is folded again under a new id key holds what one holds that was built from the log with that key."""

import shutil
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.errors import StateError
from state.identity import KEYED_LAYOUT, Identity
from state.partition import Partition
from state.rehash import rehash
from state.settings import StateSettings
from state.store import Store
from tests.state.oracle import Event, apply

T = 1_600_000_000_000
DAY_S = 86_400
SETTINGS = StateSettings(sequence_events=6, neighbours_per_item=8, window_s=30 * DAY_S, dedup_window_events=50)
PLAIN = Identity("cluster", "clicks", 0, 1, 6, 8)
KEYED = msgspec.structs.replace(PLAIN, layout=KEYED_LAYOUT, id_key="ab" * 16)
USERS, ITEMS = ["ann", "bob", "cid"], ["milk", "bread", "tea", "jam"]

events = st.builds(
    lambda user, item, at_s, kind: Event(user, item, T + 1000 * at_s, kind),
    st.sampled_from(USERS),
    st.sampled_from(ITEMS),
    st.integers(0, 60 * DAY_S),
    st.sampled_from(["click", "purchase", "view", "hide", "undo", "click"]),
)


def content(store: Partition) -> dict[str, object]:
    """What a store holds, by the names of users and items."""
    ids, users = store.ids, [user.encode() for user in USERS]
    items = ids.of_many([item.encode() for item in ITEMS])
    name = {int(ids.of(name)): name for name in (*USERS, *ITEMS)} | {0: None}
    hashes = ids.of_many(users)
    rows = store.rows(items)
    journal = store.journal(0, 10**9)
    journal = journal[journal["ts"] >= store.horizon()]
    return {
        "ids": (store.user_ids(hashes), store.item_ids(items)),
        "sequences": [[(name[int(s["item"])], int(s["ts"])) for s in store.sequences(hashes).of(n)] for n in range(3)],
        "positives": [[(name[int(s["item"])], int(s["ts"])) for s in store.positives(hashes).of(n)] for n in range(3)],
        "hidden": [{name[item] for item in hidden.tolist()} for hidden in store.hidden(hashes)],
        "edges": [[(name[int(e["user"])], int(e["ts"])) for e in store.edges(i, 99)] for i in items.tolist()],
        "journal": [(name[int(e["user"])], name[int(e["item"])], int(e["ts"]), int(e["offset"])) for e in journal],
        "degree": rows.degree.tolist(),
        "progress": msgspec.structs.asdict(store.read_progress()),
        "answered": store.answered(),
    }  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(st.lists(events, max_size=30), st.integers(1, 7))
def test_nothing_is_lost_and_nothing_is_added(log, batch):
    folder = Path(tempfile.mkdtemp())
    try:
        stores = [Store(folder / name, identity, SETTINGS) for name, identity in (("plain", PLAIN), ("keyed", KEYED))]
        for start in range(0, len(log), batch):
            for store in stores:
                apply(store, *log[start : start + batch])
        plain, expected = stores
        again = Store(folder / "again", KEYED, SETTINGS)
        rehash(plain, again)
        found, right = content(again), content(expected)
        for what in right.keys() - {"progress"}:
            assert found[what] == right[what], what
        assert again.progress.edges == expected.progress.edges
        for name in ("next_offset", "users", "items", "newest_ts", "too_old", "duplicate"):
            assert found["progress"][name] == right["progress"][name], name
        for store in (*stores, again):
            store.close()
    finally:
        shutil.rmtree(folder)


def test_the_new_store_goes_on_where_the_old_one_stopped(tmp_path):
    plain = Store(tmp_path / "plain", PLAIN, SETTINGS)
    plain.skip_to(1_000)
    apply(plain, Event("ann", "milk", T), Event("bob", "bread", T + 1))
    plain.pending.claim(9)
    plain.record_answers([(plain.ids.of("ann"), b"{}"), (plain.ids.of("bob"), b"{}")])
    apply(plain, Event("ann", "bread", T + 2))
    again = Store(tmp_path / "again", KEYED, SETTINGS)
    assert rehash(plain, again) == 3
    again.close()
    again = Store(tmp_path / "again", KEYED, SETTINGS)
    assert again.progress == plain.progress
    assert again.progress.lost == 1_000
    assert list(again.pending.claim(9)) == [again.ids.of("ann")], "only what was not answered is pending"
    apply(again, Event("cid", "tea", T + 3))
    assert again.sequences(again.ids.of_many([b"cid"])).of(0)["ts"].tolist() == [T + 3]
    for store in (plain, again):
        store.close()


def test_it_waits_for_the_end_of_an_erasure(tmp_path):
    plain, again = Store(tmp_path / "plain", PLAIN, SETTINGS), Store(tmp_path / "again", KEYED, SETTINGS)
    apply(plain, Event("ann", "milk", T), Event("ann", "", T, "forget"))
    with pytest.raises(StateError, match="still erasing forgotten users: run this again"):
        rehash(plain, again)
    for store in (plain, again):
        store.close()
