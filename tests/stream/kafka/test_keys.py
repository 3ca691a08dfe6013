"""Events that are in another partition than their key's, and events without a key, are counted."""

import zlib

from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as murmur2_of_aiokafka
from hypothesis import given
from hypothesis import strategies as st

from stream.kafka.keys import Misplaced, explain_foreign, explain_keyless, misplaced, murmur2, partition_of

KEYS = st.lists(st.binary(max_size=64), max_size=30)
USERS = [f"user-{n}".encode() for n in range(300)]


def in_partition(partition: int, partitions: int, hashed: list[tuple[bytes, int]]) -> list[bytes | None]:
    return [key for key, value in hashed if value % partitions == partition]


@given(KEYS)
def test_the_hash_is_the_one_of_kafka(keys):
    assert murmur2(keys).tolist() == [murmur2_of_aiokafka(key) & 0x7FFFFFFF for key in keys]


@given(st.text(min_size=1, max_size=40), st.integers(1, 50))
def test_a_user_is_in_the_partition_where_kafkas_partitioner_puts_the_key(user, partitions):
    numbers = list(range(partitions))
    assert partition_of(user, partitions) == DefaultPartitioner()(user.encode(), numbers, numbers)


@given(KEYS, st.integers(2, 50))
def test_keys_that_kafka_placed_are_never_foreign(keys, partitions):
    hashed = [(key, murmur2_of_aiokafka(key) & 0x7FFFFFFF) for key in keys]
    for partition in range(partitions):
        assert misplaced(in_partition(partition, partitions, hashed), partition, partitions) == Misplaced()


def test_keys_that_librdkafka_placed_by_default_are_counted_and_recognised():
    keys = in_partition(1, 4, [(user, zlib.crc32(user)) for user in USERS])
    by_kafka = sum(murmur2_of_aiokafka(key) & 0x7FFFFFFF == 1 for key in keys if key)
    found = misplaced([*keys, None, None], 1, 4)
    assert found.keyless == 2
    assert 0 < found.foreign <= len(keys) - by_kafka
    assert found.crc32


def test_keys_of_any_other_partitioner_are_counted_and_not_taken_for_librdkafkas():
    assert misplaced([*USERS, b"x" * 100_000], 1, 4) == Misplaced(foreign=226)


def test_in_a_single_partition_every_key_is_right():
    assert misplaced([*USERS, None], 0, 1) == Misplaced(keyless=1)


def test_many_keys_are_counted_as_few_are():
    assert misplaced(USERS * 30, 1, 4).foreign == 30 * misplaced(USERS, 1, 4).foreign


def test_the_sentences_name_the_setting():
    assert "-X topic.partitioner=murmur2_random" in explain_foreign("clicks", 3)
    assert "librdkafka puts it by default" in explain_foreign("clicks", 3, crc32=True)
    assert explain_keyless("clicks", 3).startswith("3 messages in 'clicks' have no key")
