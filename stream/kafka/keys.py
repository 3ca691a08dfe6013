"""Where Kafka's partitioners put a key, and how many events lie elsewhere: a user in two partitions is two users.

What matters is that every producer puts a user's events into the same partition. A custom partitioner that does so is
as good as Kafka's own, which we can only compare with.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from aiokafka.partitioner import murmur2 as murmur2_of
from numpy.typing import NDArray

COMPARED_TOGETHER = 2048
LONGEST_COMPARED = 64
"""Longer keys, in bytes, are not compared: one of them would make all others in the batch as expensive."""
SEED, M, R = 0x9747B28C, 0x5BD1E995, 24
POSITIVE = 0x7FFFFFFF
TAIL_MASK = np.array([0, 0xFF, 0xFFFF, 0xFFFFFF], np.uint32)


class Misplaced(NamedTuple):
    """How many events of a batch may be apart from the other events of their user."""

    keyless: int = 0
    """Events whose record has no key: Kafka puts it into any partition."""
    foreign: int = 0
    """Events whose record lies in another partition than the one where Kafka's partitioner puts its key."""
    crc32: bool = False
    """Whether librdkafka's default partitioner puts all the foreign ones where they are."""


def misplaced(keys: Sequence[bytes | None], partition: int, partitions: int) -> Misplaced:
    """Compare the keys of records in one of so many partitions. About 0.25 µs a key."""
    keyless = keys.count(None)
    if partitions < 2:
        return Misplaced(keyless)
    compared = [key for key in keys if key is not None and len(key) <= LONGEST_COMPARED]
    foreign, crc32 = 0, True
    for start in range(0, len(compared), COMPARED_TOGETHER):
        some = compared[start : start + COMPARED_TOGETHER]
        elsewhere = np.flatnonzero(murmur2(some) % np.uint32(partitions) != partition).tolist()
        foreign += len(elsewhere)
        crc32 = crc32 and all(zlib.crc32(some[row]) % partitions == partition for row in elsewhere)
    return Misplaced(keyless, foreign, crc32 and foreign > 0)


def partition_of(user: str, partitions: int) -> int:
    """Where Kafka's default partitioner puts the events of a user, in a topic of so many partitions.

    >>> partition_of("alice", 2), partition_of("alice", 6)
    (1, 3)
    """
    return int(murmur2_of(user.encode()) & POSITIVE) % partitions  # of one key: 2 µs, where `murmur2` takes 29


def murmur2(keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """Kafka's hash of each key, positive as its default partitioner takes it.

    >>> murmur2([b"alice", b""]).tolist()
    [1951417749, 275646681]
    """
    lengths = np.fromiter(map(len, keys), np.uint32, len(keys))
    width = max(int(lengths.max(initial=0)) + 3 & ~3, 4)
    words = np.array(keys, f"S{width}").view("<u4").reshape(len(keys), width // 4).astype(np.uint32)
    m, whole, hashes = np.uint32(M), lengths // 4, np.uint32(SEED) ^ lengths
    for at in range(width // 4):
        word = words[:, at] * m
        mixed = hashes * m ^ (word ^ word >> np.uint32(R)) * m
        hashes = np.where(whole > at, mixed, hashes)
    tail = lengths % 4
    last = np.take_along_axis(words, np.minimum(whole, width // 4 - 1)[:, None].astype(np.int64), 1)[:, 0]
    hashes = np.where(tail > 0, (hashes ^ last & TAIL_MASK[tail]) * m, hashes)
    hashes = (hashes ^ hashes >> np.uint32(13)) * m
    return (hashes ^ hashes >> np.uint32(15)) & np.uint32(POSITIVE)


def explain_keyless(topic: str, count: int) -> str:
    """What a person does about messages without a key."""
    return (
        f"{count:,} messages in {topic!r} have no key: Kafka puts each into any partition, and a user whose events lie "
        f"in several gets recommendations from a part of them. Key messages by their user (kcat: -K:)"
    )


def explain_foreign(topic: str, count: int, *, crc32: bool = False) -> str:
    """What a person does about messages in another partition than the one of their key."""
    librdkafka = ", but where librdkafka puts it by default (crc32)" if crc32 else ""
    return (
        f"{count:,} messages in {topic!r} lie in another partition than the one where Kafka's own partitioner "
        f"(murmur2) puts their key{librdkafka}. A user's events, and the user's requests, must all get into one "
        f"partition: if not every producer puts them alike, set "
        f"partitioner=murmur2_random in those made from librdkafka (kcat: -X topic.partitioner=murmur2_random), or the "
        f"same partitioner in all"
    )
