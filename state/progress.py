"""How far a store has come, and what it holds."""

import msgspec

from state.settings import StateSettings


class Progress(msgspec.Struct):
    """How far the state has come, written in the same batch as the state itself."""

    next_offset: int = 0
    """Logical offset of the first event not applied."""
    base: int = 0
    """Logical offset of the log's offset 0: other than 0 only when an embedded broker began a new log."""
    applied: int = 0
    dead: int = 0
    duplicate: int = 0
    too_old: int = 0
    """Events behind the horizon when they arrived."""
    expired: int = 0
    """Edges that were applied and have expired since."""
    erased: int = 0
    """Edges of users who were to be forgotten."""
    key_mismatch: int = 0
    lost: int = 0
    """Offsets that retention deleted from the log before they were read."""
    users: int = 0
    items: int = 0
    oldest_ts: int = 0
    newest_ts: int = 0

    @property
    def log_offset(self) -> int:
        """Offset in the log of the first event not applied: what is sought, committed and shown."""
        return self.next_offset - self.base

    def logical(self, offset: int) -> int:
        """The logical offset of an offset in the log."""
        return offset + self.base

    @property
    def edges(self) -> int:
        """Edges there are."""
        return self.applied - self.expired - self.erased

    def horizon(self, settings: StateSettings) -> int:
        """Event time, ms, before which everything has expired."""
        return max(self.newest_ts - int(settings.window_s * 1000), 0) if settings.window_s else 0
