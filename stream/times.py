"""Reading and writing times: the one reader of every entrance. A time is milliseconds since 1970.

The size of a number decides its unit. Each range is March 1973 to the year 5138 in its own unit:

    1e8 ≤ seconds < 1e11 ≤ milliseconds < 1e14 ≤ microseconds < 1e17 ≤ nanoseconds < 1e20

The time must lie in 1980 to 2099: near a border a number is more probably one of the unit beyond. With a unit set
(`clicks.fields.ts_unit`) any number is a time. A text is a number, ISO-8601 or RFC 2822; without a zone it is UTC.
Parts below a millisecond are cut off.
"""

import contextlib
import re
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Literal

Unit = Literal["auto", "s", "ms", "us", "ns"]
"""The unit of numbers; `auto`: their size decides."""
UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
MIN_NUMBER = 10**8
MS_NUMBERS = range(10**11, 10**14)
"""Numbers that are milliseconds, by their size."""
MAX_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""
LIKELY_MS = range(315_532_800_000, 4_102_444_800_000)
"""The years 1980 to 2099. A number outside is probably in another unit than its size says."""
SET_UNIT = "set clicks.fields.ts_unit (s, ms, us or ns) if it is a time"

TOO_LARGE = "is too large to be a time, even in nanoseconds"
_LIMITS: dict[Unit, int] = {"s": 10**11, "ms": 10**14, "us": 10**17, "ns": 10**20}
_PER_MS = {"ms": 1, "us": 1_000, "ns": 1_000_000}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?", re.A)
_SCIENTIFIC = re.compile(r"[+-]?[0-9]+([.,][0-9]*)?[eE][+-]?[0-9]+", re.A)
_ISO = re.compile(
    r"(?P<date>[0-9]{4}[0-9W-]{3,6})(?:[Tt _ ](?P<clock>[0-9:.,]+) ?(?P<zone>[Zz]|UTC|GMT|[+-][0-9:]{2,6})?)?"
)
_REGION = re.compile(r"\[[A-Za-z0-9_+/-]+\]$")
_RFC_2822 = re.compile(
    r"(?:[A-Z][a-z]{2}, ?)?[0-9]{1,2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}(?::[0-9]{2})? "
    r"(?:GMT|UTC|UT|Z|[+-][0-9]{4})(?: \([A-Za-z ]*\))?"
)
_DAY_OR_MONTH_FIRST = re.compile(r"[0-9]{1,2}([/.-])[0-9]{1,2}\1[0-9]{2,4}\b")
_ZONE_LETTERS = re.compile(r"[0-9] ?([A-Z]{2,5})$")


class NotATime(ValueError):
    """A value is not a time. The message is the rest of a sentence that begins with the value."""


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


def to_ms(value: object, unit: Unit = "auto") -> int:
    """The time in ms that a value of JSON, of a CSV or of the command line is. Raises NotATime.

    >>> to_ms(1795800000), to_ms("1795800000000"), to_ms("2026-11-27T18:40:00+02:00")
    (1795800000000, 1795800000000, 1795797600000)
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return _from_number(value, unit)
    if isinstance(value, float):
        if value - value != 0:  # NaN and both infinities
            raise NotATime("is not a finite number")
        return _from_number(Decimal(repr(value)), unit)
    if isinstance(value, str):
        return _from_text(value.strip(), unit)
    if isinstance(value, dict) and value:
        raise NotATime(f"is an object, not a time: its field {next(iter(value))!r} needs a path")
    kinds = {bool: "true or false", list: "an array", dict: "an empty object", type(None): "missing"}
    raise NotATime(f"is {kinds.get(type(value), type(value).__name__)}, not a time")


def unit_of(number: int | float | Decimal) -> Unit:
    """The unit that the size of a number gives away. Raises NotATime."""
    if number < 0:
        raise NotATime("is negative")
    if number < MIN_NUMBER:
        raise NotATime(f"is too small to give its unit away: {SET_UNIT}")
    for unit, limit in _LIMITS.items():
        if number < limit:
            return unit
    raise NotATime(TOO_LARGE)


def as_number(value: object) -> int | Decimal | None:
    """The number in a value, also one of digits in a text; None if it is no number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value - value == 0:
        return Decimal(repr(value))
    if isinstance(value, str) and _NUMBER.fullmatch(text := value.strip()) and len(text) < 40:
        return Decimal(text)
    return None


def moment(ts: int) -> str:
    """A time in ms as a person reads it, in UTC; the plain number if it is outside the calendar."""
    try:
        return datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(ts)


def iso(ms: int) -> str:
    """A time in ms as ISO-8601 in UTC, which every unit setting reads alike."""
    return (_EPOCH + ms * _MS).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _from_number(number: int | Decimal, unit: Unit) -> int:
    if number < 0:
        raise NotATime("is negative")
    if number >= _LIMITS["ns"]:  # before a division that a Decimal might refuse
        raise NotATime(TOO_LARGE)
    if unit == "auto":
        unit = unit_of(number)
        if (ms := _from_number(number, unit)) not in LIKELY_MS:
            raise NotATime(f"is {moment(ms)} in {UNIT_NAMES[unit]}, which is not likely: {SET_UNIT}")
        return ms
    ms = int(number * 1000 if unit == "s" else number // _PER_MS[unit])
    if ms > MAX_MS:
        raise NotATime(f"is later than the year 9999 in {UNIT_NAMES[unit]}")
    return ms


def _from_text(text: str, unit: Unit) -> int:
    if text[4:5] == "-" and text[10:11] in ("T", " "):  # the most frequent form
        with contextlib.suppress(ValueError, OverflowError):
            return _since_epoch(datetime.fromisoformat(text))
    if not text:
        raise NotATime("is empty, not a time")
    if (number := as_number(text)) is not None:
        return _from_number(number, unit)
    if _SCIENTIFIC.fullmatch(text):
        raise NotATime("has been rounded by a spreadsheet: export the column as text or as ISO-8601")
    region = _REGION.search(text)
    found = _ISO.fullmatch(text[: region.start()] if region else text)
    try:
        if found:
            if region and not found["zone"]:
                raise NotATime("names a region but no offset from UTC: add one, as in 2024-03-10T02:30:00+01:00")
            clock, zone = found["clock"], (found["zone"] or "Z").upper()
            zone = "Z" if zone in ("UTC", "GMT") else zone
            return _since_epoch(datetime.fromisoformat(f"{found['date']}T{clock}{zone}" if clock else found["date"]))
        if _RFC_2822.fullmatch(text):
            return _since_epoch(parsedate_to_datetime(text))
    except NotATime:
        raise
    except (ValueError, OverflowError) as error:
        raise NotATime(f"is not in the calendar: {error}") from None
    if _DAY_OR_MONTH_FIRST.match(text):
        raise NotATime("may have the day or the month first: write it as 2024-03-10T02:30:00Z")
    if letters := _ZONE_LETTERS.search(text):
        raise NotATime(f"has the zone {letters[1]}, which is ambiguous: write Z, or an offset such as +01:00")
    raise NotATime("is neither a number nor ISO-8601")


def _since_epoch(at: datetime) -> int:
    return min(((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // _MS, MAX_MS)
