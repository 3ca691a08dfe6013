"""Which id key stands in the topic `models`: the first, until an operator replaces it, in every order of readers."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from state.id_hash import IdHash, new_key
from stream.kafka.id_key_record import FoundKey, IdKey, standing
from stream.kafka.pointers import decode_pointer
from stream.kafka.signing import signed

encode = msgspec.json.encode
ONE, TWO, THREE = IdKey("1" * 32), IdKey("2" * 32), IdKey("3" * 32)


def replacing(key: IdKey, *before: IdKey) -> IdKey:
    return IdKey(key.id_key, [record.ids.fingerprint for record in before])


def test_the_first_of_two_inits_that_ran_at_once_makes_the_key():
    assert standing([encode(ONE), encode(TWO)]) == FoundKey(ONE, repeat=True)


def test_the_key_that_stands_is_sent_again_so_that_compaction_keeps_it():
    assert standing(map(encode, [ONE, TWO, ONE])) == FoundKey(ONE)
    assert standing([encode(ONE)]) == FoundKey(ONE)


def test_a_key_that_names_the_one_before_replaces_it():
    third = replacing(THREE, ONE, TWO)
    assert standing(map(encode, [ONE, replacing(TWO, ONE), third])) == FoundKey(third)
    assert standing(map(encode, [ONE, replacing(TWO, ONE), replacing(THREE, ONE)])).record.ids == TWO.ids


def test_a_key_replaces_none_where_it_names_the_installation_from_before_the_key():
    unkeyed, keyed = IdKey(""), IdKey(ONE.id_key, [""])
    assert standing(map(encode, [unkeyed, ONE])) == FoundKey(unkeyed, repeat=True)
    assert standing(map(encode, [unkeyed, keyed])) == FoundKey(keyed)


def test_with_a_signing_key_a_stranger_replaces_no_key(caplog):
    ours, strangers = signed(ONE, ("secret",)), replacing(TWO, ONE)
    assert standing(map(encode, [ours, strangers]), ("secret",)) == FoundKey(ours)
    assert "a record of the id key is not followed: it is not signed" in caplog.text


def test_a_key_that_is_signed_again_stands_in_the_place_of_the_one_before():
    before, after = signed(ONE, ("old",)), signed(ONE, ("new", "old"))
    assert standing(map(encode, [before, after]), ("new", "old")) == FoundKey(after)


def test_a_tombstone_removes_the_key():
    assert standing([encode(ONE), None]) == FoundKey()
    assert standing([encode(ONE), None, encode(TWO)]) == FoundKey(TWO)


@given(st.lists(st.one_of(st.binary(), st.sampled_from([b"{}", b'{"id_key": "short"}', b'{"id_key": 7}'])), max_size=5))
def test_a_record_that_is_no_key_changes_nothing(values):
    assert standing([*values, encode(ONE), *[v for v in values if v]]) == FoundKey(ONE)


@given(st.permutations([ONE, TWO, THREE]), st.integers(1, 3))
def test_all_who_write_and_read_again_agree_on_one_key(order, count):
    topic: list[bytes] = []
    for record in order[:count]:
        topic.append(encode(record))
        assert standing(topic).record == order[0]


def test_a_worker_from_before_the_key_takes_its_record_for_no_pointer():
    assert decode_pointer(encode(ONE)) is None


def test_the_key_is_not_in_the_text_of_a_record():
    record = IdKey(new_key(), ["abc"])
    assert record.id_key not in f"{record} {record!r} {[record]}"
    assert IdHash(record.id_key).fingerprint in repr(record)
