"""How far a store has read its log, and what it holds.

The state counts in logical offsets: they go on when an embedded broker begins a new log at offset 0. Everything outside
the state uses offsets of the log. Only this module converts between the two.
"""

from typing import TypeVar

import msgspec

from state.events import Ints
from state.settings import StateSettings

PROGRESS_KEY = b"marks"
"""The progress's key in the default column family of a store."""
Offset = TypeVar("Offset", int, Ints)
"""One offset, or a column of them."""


class Progress(msgspec.Struct):
    """How far the state has come, written in the same WriteBatch as the state itself."""

    next_offset: int = 0
    """Logical offset of the first event not applied."""
    base: int = 0
    """Logical offset of the log's offset 0; not 0 after an embedded broker began a new log, or a log lost its end."""
    applied: int = 0
    """Events applied."""
    dead: int = 0
    """Records that were not valid events."""
    duplicate: int = 0
    """Events dropped because their id was seen before."""
    too_old: int = 0
    """Events behind the horizon when they arrived."""
    expired: int = 0
    """Edges that have expired since they were applied."""
    erased: int = 0
    """Edges of forgotten users."""
    key_mismatch: int = 0
    """Events whose record key was not their user."""
    keyless: int = 0
    """Events whose record had no key."""
    foreign_partition: int = 0
    """Events whose record was in another partition than the one where Kafka's partitioner puts its key."""
    lost: int = 0
    """Offsets that retention deleted from the log before they were read, or whose batch cannot be read."""
    truncated: int = 0
    """Offsets whose records were applied and are no longer in the log: the broker lost its newest records."""
    users: int = 0
    """Users with a step."""
    items: int = 0
    """Items with an edge."""
    oldest_ts: int = 0
    """Event time, ms, before which the journal is empty."""
    newest_ts: int = 0
    """Newest event time, ms, of the log."""

    @property
    def log_offset(self) -> int:
        """Offset in the log of the first event not applied: the one to seek to, to commit and to show."""
        return self.in_log(self.next_offset)

    def logical(self, offset: Offset) -> Offset:
        """The logical offset of an offset of the log; also for a column of offsets."""
        return offset + self.base

    def in_log(self, offset: int) -> int:
        """The offset of the log of a logical offset."""
        return offset - self.base

    def in_messages(self, offset: int) -> int:
        """A logical offset as messages name it: that of the log, and larger after the log lost its end.

        The log gives the lost offsets away again. Readers keep the message with the highest one.
        """
        return self.in_log(offset) + self.truncated

    @property
    def edges(self) -> int:
        """Edges that the store holds."""
        return self.applied - self.expired - self.erased

    def horizon(self, settings: StateSettings) -> int:
        """Event time, ms, before which everything has expired."""
        return max(self.newest_ts - int(settings.window_s * 1000), 0) if settings.window_s else 0
