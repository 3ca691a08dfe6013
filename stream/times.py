"""Reading and writing times. A time is milliseconds since 1970; one without a zone is UTC."""

from datetime import UTC, datetime

MAX_MS = 2**63 - 1
"""The latest time that fits into the eight bytes of the state."""


def iso_ms(text: str) -> int:
    """An ISO-8601 time in ms. Raises ValueError."""
    at = datetime.fromisoformat(text)
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def instant(text: str) -> int:
    """A time as a person writes it, milliseconds or ISO-8601, in ms. Raises ValueError."""
    ms = int(text) if text.isdecimal() else iso_ms(text)
    if ms > MAX_MS:
        raise ValueError(f"{text} is later than {MAX_MS} ms")
    return ms


def moment(ts: int) -> str:
    """A time in ms as a person reads it, in UTC; the plain number if it is outside the calendar."""
    try:
        return datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(ts)
