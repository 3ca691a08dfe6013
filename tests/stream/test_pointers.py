"""Which version is the champion: the newest word counts, whatever order words arrive in, and a pin holds."""

from functools import reduce

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ArtifactError
from stream.config import Config
from stream.messages import Pointer
from stream.pointers import Pointers, decode_pointer, heard, key_of, pointer_to, remember, remembered


def pointer(moved_ts: int, version: str = "000001", **more) -> Pointer:
    return Pointer("create", version, "models", "abc", moved_ts, **more)


def followed(*arrived: Pointer | None) -> Pointers:
    return reduce(heard, arrived, Pointers())


@given(st.lists(st.integers(0, 50), min_size=1, unique=True))
def test_the_newest_pointer_is_followed_in_whatever_order_they_come(times):
    assert followed(*map(pointer, [*times, *times])).champion == pointer(max(times))


def test_what_is_no_pointer_changes_nothing():
    assert decode_pointer(None) is None
    assert decode_pointer(b"junk") is None
    assert followed(pointer(3), None).champion == pointer(3)


def test_a_pinned_champion_gives_way_to_an_operator_and_to_nobody_else():
    pinned = pointer(3, "000002", pinned=True, by="operator")
    assert followed(pinned, pointer(4, "000003")).champion == pinned
    moved = pointer(5, "000001", pinned=True, by="operator")
    assert followed(pinned, moved).champion == moved
    unpinned = pointer(6, "000001", by="operator")
    assert followed(pinned, moved, unpinned, pointer(7, "000004")).champion.version == "000004"


def test_a_candidate_is_scored_until_it_serves_or_is_taken_away():
    served, candidate = pointer(1), pointer(2, "000002", role="candidate")
    assert followed(served, candidate).scored == candidate
    assert followed(candidate, served).scored == candidate
    assert followed(served, candidate, pointer(3, "000002")).scored is None
    assert followed(served, candidate, pointer(3, "", role="candidate")).scored is None
    assert key_of(served) != key_of(candidate)


def test_pointers_are_remembered_beside_the_state(tmp_path):
    assert remembered(tmp_path) == Pointers()
    both = followed(pointer(3), pointer(4, "000002", role="candidate"))
    remember(tmp_path, both)
    assert remembered(tmp_path) == both
    assert decode_pointer(msgspec.json.encode(pointer(3))) == pointer(3)


def test_a_clock_that_jumps_back_does_not_hold_an_operator_up(tmp_path):
    ahead = pointer(2**50)
    made = pointer_to(Config(data=tmp_path), "", ahead)
    assert heard(Pointers(ahead), made).champion == made
    with pytest.raises(ArtifactError, match="has no manifest"):
        pointer_to(Config(data=tmp_path), "000009", ahead)
