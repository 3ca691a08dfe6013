"""The values in the fields of a click: which are accepted, and why another one is refused."""

from stream.times import iso_ms

MAX_ID_BYTES = 512
MIN_TIME_MS = 100_000_000_000
"""A smaller time is in seconds: as ms it lies in 1973."""
MAX_TIME_MS = 4_102_444_800_000
"""The year 2100. A record's own timestamp above it is in micro- or nanoseconds."""


class Invalid(ValueError):
    """A record is not an event; the message is the dead letter's reason."""


def read_identifier(value: object, name: str) -> bytes:
    """The id in the field `name`, text or a whole number, as bytes. Raises Invalid."""
    if value is None:
        raise Invalid(f"{name} is missing or null")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Invalid(f"{name} {show_value(value)} is neither text nor a whole number")
    try:
        identifier = str(value).encode()
    except UnicodeEncodeError:
        raise Invalid(f"{name} is not valid UTF-8") from None
    if not identifier:
        raise Invalid(f"{name} is empty")
    if len(identifier) > MAX_ID_BYTES:
        raise Invalid(f"{name} is {len(identifier)} bytes long, more than {MAX_ID_BYTES}")
    return identifier


def read_time(ts: object, broker_ms: int, max_future_ms: float) -> int:
    """`ts` in ms; the record's own time `broker_ms` if it is None. Raises Invalid."""
    if not MIN_TIME_MS <= broker_ms <= MAX_TIME_MS:
        raise Invalid(
            f"the record's own timestamp {broker_ms} is not a time in milliseconds: its producer sets it wrongly"
        )
    if ts is None:
        return broker_ms
    if isinstance(ts, str):
        try:
            ms: float = iso_ms(ts)
        except ValueError:
            raise Invalid(f"ts {show_value(ts)} is neither milliseconds nor ISO-8601") from None
    elif isinstance(ts, bool) or not isinstance(ts, int | float) or ts != ts:
        raise Invalid(f"ts {show_value(ts)} is neither milliseconds nor ISO-8601")
    else:
        ms = ts
    if ms < 0:
        raise Invalid(f"ts {show_value(ts)} is negative")
    if ms < MIN_TIME_MS and not isinstance(ts, str):
        raise Invalid(f"ts {show_value(ts)} looks like seconds: milliseconds are expected")
    if abs(ms) > 2**62:  # Python's integers are unbounded; a float() of a larger one raises
        raise Invalid(f"ts {show_value(ts)} is not a time in milliseconds")
    if ms > broker_ms + max_future_ms:
        raise Invalid(
            f"ts {show_value(ts)} is {(ms - broker_ms) / 1000:.0f} s ahead of the broker's clock, more than "
            f"clicks.max_future_s = {max_future_ms / 1000:.0f}"
        )
    return int(ms)


def show_value(value: object) -> str:
    """A value in a dead letter's reason, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def type_name(value: object) -> str:
    """The JSON type of a decoded value."""
    return {list: "an array", str: "a string", int: "a number", float: "a number", bool: "a boolean"}.get(
        type(value), "null"
    )
