"""Which version is the champion: the newest word counts, whatever order words arrive in, and a pin holds."""

import asyncio
from functools import reduce

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ArtifactError
from model.learning.versions import publish
from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka import pointers
from stream.kafka.messages import Pointer
from stream.kafka.pointers import Pointers, decode_pointer, heard, key_of, pointer_to, remember, remembered, roll_back
from tests.model.examples import cycling, learned


def pointer(moved_ts: int, version: str = "000001", **more) -> Pointer:
    return Pointer("create", version, "models", "abc", moved_ts, **more)


def followed(*arrived: Pointer | None) -> Pointers:
    return reduce(heard, arrived, Pointers())


@given(st.lists(st.integers(0, 50), min_size=1, unique=True))
def test_the_newest_pointer_is_followed_in_whatever_order_they_come(times):
    assert followed(*map(pointer, [*times, *times])).champion == pointer(max(times))


def test_what_is_no_pointer_changes_nothing():
    assert decode_pointer(None) is None
    for junk in (b"junk", b"[" * 5000, b'{"name": "caf\xe9"}'):
        assert decode_pointer(junk) is None
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


def test_back_is_to_the_version_that_the_champion_was_learned_from_and_pinned(tmp_path, monkeypatch):
    config = Config(data=tmp_path)
    first = learned(cycling())
    publish(config.artifacts_url, "create", first, {0: 1})
    for _ in range(2):  # both learned from the first one
        publish(config.artifacts_url, "create", learned(cycling(items=8), first), {0: 2})
    said = []

    async def publish_pointer(_config: Config, moved: Pointer) -> Pointer:
        said.append(moved)
        return moved

    monkeypatch.setattr(pointers, "publish_pointer", publish_pointer)
    served = pointer_to(config, "000003", None)
    back = asyncio.run(roll_back(config, served, None))
    assert (back.version, back.pinned, back.by) == ("000001", True, "operator")
    assert said == [back]
    assert heard(Pointers(served), back).champion == back
    assert asyncio.run(roll_back(config, served, "000002")).version == "000002"
    with pytest.raises(AnabranchError, match="there is no version before the serving one"):
        asyncio.run(roll_back(config, back, None))
    with pytest.raises(AnabranchError, match="there is no version '000009' to serve"):
        asyncio.run(roll_back(config, back, "000009"))
    assert len(said) == 2
