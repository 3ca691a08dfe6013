"""Users' last recommendations in bounded memory; a forgotten user does not come back."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stream.kafka.messages import Recommendation, Recommended, encode
from stream.serve.last_recommendations import OVERHEAD_BYTES, LastRecommendations


def message(user: str, *items: str) -> bytes:
    return encode(
        Recommendation(
            user=user,
            items=[Recommended(item, 1.0) for item in items],
            model=None,
            model_age_s=None,
            source="popularity",
            event_ts=None,
            emitted_ts=1,
            partition=0,
            offset=0,
        )
    )


def items(last: LastRecommendations, user: str) -> list[str] | None:
    found = last.of(user)
    return None if found is None else [item.item for item in found.items]


def test_the_newest_message_of_a_user_is_kept():
    last = LastRecommendations(1 << 20)
    last.update(b"ann", message("ann", "milk"))
    last.update(b"ann", message("ann", "tea"))
    assert items(last, "ann") == ["tea"]
    assert items(last, "bob") is None


def test_a_tombstone_removes_the_user():
    last = LastRecommendations(1 << 20)
    last.update(b"ann", message("ann", "milk"))
    last.update(b"ann", None)
    assert items(last, "ann") is None
    assert len(last) == 0


def test_a_message_that_cannot_be_read_is_no_recommendation():
    last = LastRecommendations(1 << 20)
    for value in (b"", b"{}", b"\xff", b"[" * 10_000, b'{"user": "ann"}'):
        last.update(b"ann", value)
        assert items(last, "ann") is None
    last.update(None, message("ann", "milk"))
    assert len(last) == 1, "a message without a key is nobody's"


def test_those_of_the_users_with_the_newest_messages_are_kept():
    size = len(message("u0", "milk")) + 2 + OVERHEAD_BYTES
    last = LastRecommendations(3 * size)
    for user in ("u0", "u1", "u2"):
        last.update(user.encode(), message(user, "milk"))
    last.update(b"u0", message("u0", "beer"))
    last.update(b"u3", message("u3", "milk"))
    assert [items(last, user) for user in ("u0", "u1", "u2", "u3")] == [["beer"], None, ["milk"], ["milk"]]


records = st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.integers(0, 400)), max_size=60)


@given(records, st.integers(300, 3000))
def test_memory_is_bounded_whatever_comes(sent, max_bytes):
    last = LastRecommendations(max_bytes)
    kept: dict[str, bytes] = {}
    for user, size in sent:
        value = None if size is None else message(user, "x" * size)
        last.update(user.encode(), value)
        kept.pop(user, None)
        if value is not None and len(value) + 1 + OVERHEAD_BYTES <= max_bytes:
            kept[user] = value
        while sum(len(v) + 1 + OVERHEAD_BYTES for v in kept.values()) > max_bytes:
            kept.pop(next(iter(kept)))
        assert len(last) == len(kept)
    for user in "abcdef":
        expected = msgspec.json.decode(kept[user], type=Recommendation) if user in kept else None
        assert last.of(user) == expected
