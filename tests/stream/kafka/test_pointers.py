"""Which version is the champion: the newest pointer wins, in any order of arrival, and a pin holds."""

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
from stream.kafka.pointers import (
    MAX_MOVED_TS,
    Pointers,
    apply_pointer,
    decode_pointer,
    key_of,
    pointer_to,
    read_last_pointers,
    roll_back,
    write_last_pointers,
)
from tests.model.examples import cycling, learned


def pointer(moved_ts: int, version: str = "000001", **more) -> Pointer:
    return Pointer("create", version, "models", "abc", moved_ts, **more)


def followed(*arrived: Pointer | None) -> Pointers:
    return reduce(apply_pointer, arrived, Pointers())


@given(st.lists(st.integers(0, 50), min_size=1, unique=True))
def test_the_newest_pointer_wins_in_any_order_of_arrival(times):
    assert followed(*map(pointer, [*times, *times])).champion == pointer(max(times))


def test_a_message_that_is_not_a_pointer_changes_nothing():
    assert decode_pointer(None) is None
    for junk in (b"junk", b"[" * 5000, b'{"name": "caf\xe9"}'):
        assert decode_pointer(junk) is None
    assert followed(pointer(3), None).champion == pointer(3)


def test_only_an_operator_replaces_a_pinned_champion():
    pinned = pointer(3, "000002", pinned=True, by="operator")
    assert followed(pinned, pointer(4, "000003")).champion == pinned
    moved = pointer(5, "000001", pinned=True, by="operator")
    assert followed(pinned, moved).champion == moved
    unpinned = pointer(6, "000001", by="operator")
    assert followed(pinned, moved, unpinned, pointer(7, "000004")).champion.version == "000004"


def test_a_candidate_is_scored_until_it_serves_or_is_removed():
    served, candidate = pointer(1), pointer(2, "000002", role="candidate")
    assert followed(served, candidate).scored == candidate
    assert followed(candidate, served).scored == candidate
    assert followed(served, candidate, pointer(3, "000002")).scored is None
    assert followed(served, candidate, pointer(3, "", role="candidate")).scored is None
    assert key_of(served) != key_of(candidate)


def test_the_last_pointers_are_read_back_from_beside_the_state(tmp_path):
    assert read_last_pointers(tmp_path) == Pointers()
    both = followed(pointer(3), pointer(4, "000002", role="candidate"))
    write_last_pointers(tmp_path, both)
    assert read_last_pointers(tmp_path) == both
    assert decode_pointer(msgspec.json.encode(pointer(3))) == pointer(3)


def test_an_operators_pointer_wins_after_the_clock_went_back(tmp_path):
    ahead = pointer(2**50)
    made = pointer_to(Config(data=tmp_path), "", ahead)
    assert apply_pointer(Pointers(ahead), made).champion == made
    with pytest.raises(ArtifactError, match="has no manifest"):
        pointer_to(Config(data=tmp_path), "000009", ahead)


def test_roll_back_pins_the_version_that_the_champion_was_trained_from(tmp_path, monkeypatch):
    config = Config(data=tmp_path)
    first = learned(cycling())
    publish(config.artifacts_url, "create", first, {0: 1})
    for _ in range(2):  # both learned from the first one
        publish(config.artifacts_url, "create", learned(cycling(items=8), first), {0: 2})
    published = []

    async def publish_pointer(_config: Config, moved: Pointer) -> Pointer:
        published.append(moved)
        return moved

    monkeypatch.setattr(pointers, "publish_pointer", publish_pointer)
    served = pointer_to(config, "000003", None)
    back = asyncio.run(roll_back(config, served, None))
    assert (back.version, back.pinned, back.by) == ("000001", True, "operator")
    assert published == [back]
    assert apply_pointer(Pointers(served), back).champion == back
    assert asyncio.run(roll_back(config, served, "000002")).version == "000002"
    with pytest.raises(AnabranchError, match="there is no version before the serving one"):
        asyncio.run(roll_back(config, back, None))
    with pytest.raises(AnabranchError, match="there is no version '000009' to serve"):
        asyncio.run(roll_back(config, back, "000009"))
    assert len(published) == 2


@given(st.integers(0, MAX_MOVED_TS) | st.sampled_from([MAX_MOVED_TS, MAX_MOVED_TS - 1]), st.booleans())
def test_no_pointer_is_the_last_one(moved_ts, pinned):
    arrived = decode_pointer(msgspec.json.encode(pointer(moved_ts, "000666", pinned=pinned, by="operator")))
    served = followed(pointer(3), arrived)
    for version in ("", ""):
        ours = decode_pointer(msgspec.json.encode(pointer_to(Config(), version, served.champion)))
        served = apply_pointer(served, ours)
        assert served.champion == ours
