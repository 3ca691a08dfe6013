"""Which version is the champion: the newest word counts, whatever order words arrive in."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stream.messages import Pointer
from stream.pointers import decode_pointer, newer, remember, remembered


def pointer(moved_ts: int, version: str = "000001") -> Pointer:
    return Pointer("create", version, "models", "abc", moved_ts)


@given(st.lists(st.integers(0, 50), min_size=1, unique=True))
def test_the_newest_pointer_is_followed_in_whatever_order_they_come(times):
    champion = None
    for ts in [*times, *times]:
        champion = newer(champion, pointer(ts))
    assert champion == pointer(max(times))


def test_what_is_no_pointer_changes_nothing():
    assert decode_pointer(None) is None
    assert decode_pointer(b"junk") is None
    assert newer(pointer(3), None) == pointer(3)


def test_a_pointer_is_remembered_beside_the_state(tmp_path):
    assert remembered(tmp_path) is None
    remember(tmp_path, pointer(3))
    assert remembered(tmp_path) == pointer(3)
    assert decode_pointer(msgspec.json.encode(pointer(3))) == pointer(3)
