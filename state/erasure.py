"""What is left to do after a user's state was erased: the journal, the tombstone, and the bytes themselves.

The state is erased at once, with the forget event. An `Erasure` stands in the store until the journal's chunks of the
user's days were written anew, a few between two batches, and a tombstone was sent for the user's recommendation. Then
compaction rewrites the files, so that the bytes are gone too.
"""

from collections.abc import Iterator
from itertools import islice

import msgspec
from rocksdict import WriteBatch

from state.partition import Partition
from state.removal import forget_in_journal

CHUNKS_AT_ONCE = 200

ERASING = b"erasing"
COMPACTING = b"compacting"


class Erasure(msgspec.Struct):
    """A user to be forgotten, and what is still to do."""

    user: int
    id: str
    offset: int
    """Of the forget event: what comes after it is a new beginning."""
    days: list[int]
    """Of event time, in which the journal may name the user; none once it does not."""
    told: bool = False
    """Whether the tombstone was sent."""


def sweep(partition: Partition, erasure: Erasure, chunks: Iterator[bytes], write: WriteBatch) -> None:
    """Write some of the journal's chunks without the user; the erasure has no days once there are no more."""
    seen = 0
    for key in islice(chunks, CHUNKS_AT_ONCE):
        seen += 1
        forget_in_journal(partition, erasure.user, erasure.offset, key, write)
    if seen < CHUNKS_AT_ONCE:
        erasure.days = []


def days_of(partition: Partition, erasure: Erasure) -> Iterator[bytes]:
    """The chunks in which the user may be named."""
    for day in list(erasure.days):
        yield from partition._journal.chunks(day, day)
