"""Times as people and systems write them: one reader for all of them."""

import contextlib
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream.times import LIKELY_MS, MAX_MS, NotATime, as_number, iso, moment, to_ms, unit_of

T = 1_795_800_000_000


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01T01:00:01+01:00", 1_000),
        ("1970-01-01T00:00:01", 1_000),
        ("1970-01-02", 86_400_000),
        ("1969-12-31T23:59:59Z", -1_000),
        ("1970-01-01 00:00:01 UTC", 1_000),
        ("1970-01-01 01:00:01 +0100", 1_000),
        ("1970-01-01 01:00:01+01", 1_000),
        ("1970-01-01T01:00:01+01:00[Europe/Berlin]", 1_000),
        ("1970-01-01t00:00:01z", 1_000),
        ("1970-01-01T00:00:01.123456789Z", 1_123),
        ("1970-01-01T00:00:01,5", 1_500),
        ("19700101T000001Z", 1_000),
        ("1970-W01-5", 86_400_000),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 1_000),
        ("1 Jan 1970 01:00 +0100", 0),
        ("Thu, 01 Jan 1970 00:00:01 -0000", 1_000),
    ],
)
def test_a_text_without_a_zone_is_utc(text, ms):
    assert to_ms(text) == to_ms(f"  {text}\n") == ms


@pytest.mark.parametrize(
    ("number", "unit"), [(T // 1000, "s"), (T, "ms"), (T * 1000, "us"), (T * 10**6, "ns"), (315_532_800, "s")]
)
def test_the_size_of_a_number_gives_its_unit_away(number, unit):
    assert unit_of(number) == unit
    assert to_ms(number) == to_ms(str(number)) == to_ms(number, unit)


def test_a_number_may_have_a_fraction():
    assert to_ms(1795800000.123) == to_ms("1795800000.123") == T + 123
    assert to_ms(1795800000.1239) == T + 123
    assert to_ms(float(T)) == T


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("soon", "is neither a number nor ISO-8601"),
        ("²", "is neither a number nor ISO-8601"),
        ("1_795_800_000", "is neither a number nor ISO-8601"),
        ("9" * 5000, "is neither a number nor ISO-8601"),
        (0, "is too small to give its unit away: set clicks.fields.ts_unit"),
        ("20240310", "is too small to give its unit away"),
        (10**8 - 1, "is too small"),
        (10**8, "is 1973-03-03 09:46:40 in seconds, which is not likely: set clicks.fields.ts_unit"),
        (10**11 - 1, "is 5138-11-16 09:46:39 in seconds, which is not likely"),
        (10**11, "is 1973-03-03 09:46:40 in milliseconds, which is not likely"),
        (253_402_300_799_000, "is 1978-01-11 21:31:40 in microseconds, which is not likely"),  # 9999 in milliseconds
        (10**20, "is too large to be a time"),
        (10**400, "is too large to be a time"),
        (1e300, "is too large to be a time"),
        (-5, "is negative"),
        ("-1795800000", "is negative"),
        (float("nan"), "is not a finite number"),
        (float("-inf"), "is not a finite number"),
        (True, "is true or false"),
        (None, "is missing"),
        ([T], "is an array"),
        ({"$date": T}, r"is an object, not a time: its field '\$date' needs a path"),
        ({}, "is an empty object"),
        ("1.7958E+12", "has been rounded by a spreadsheet"),
        ("11/11/2019 9:05:58 AM", "may have the day or the month first"),
        ("11.11.2019", "may have the day or the month first"),
        ("10-03-2024", "may have the day or the month first"),
        ("2024-03-10T02:30:00 EST", "has the zone EST, which is ambiguous"),
        ("Tue, 14 Nov 2023 22:13:20 PST", "has the zone PST, which is ambiguous"),
        ("2024-03-10T02:30:00[Europe/Berlin]", "names a region but no offset from UTC"),
        ("2024-02-30", "is not in the calendar"),
        ("2024-03-10T25:00:00Z", "is not in the calendar"),
    ],
)
def test_another_value_is_refused_with_the_reason(value, reason):
    with pytest.raises(NotATime, match=f"^{reason}"):
        to_ms(value)


def test_a_unit_that_is_set_reads_any_number_up_to_the_year_9999():
    assert [to_ms(7, unit) for unit in ("s", "ms", "us", "ns")] == [7_000, 7, 0, 0]
    assert to_ms("0", "ms") == 0
    assert to_ms(MAX_MS, "ms") == MAX_MS
    with pytest.raises(NotATime, match="is later than the year 9999 in seconds"):
        to_ms(T, "s")
    assert to_ms("1970-01-01T00:00:01Z", "ns") == 1_000


def test_only_a_number_is_a_number():
    assert [as_number(value) for value in (7, "7", 1.5, " 8 ")] == [7, 7, 1.5, 8]
    assert [as_number(value) for value in (True, None, "", "x", float("nan"), [1], "1e3")] == [None] * 7


instants = st.integers(LIKELY_MS[0], LIKELY_MS[-1])
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def forms_of(ms: int, zone: timezone) -> list[object]:
    """The instant in every form; those of whole seconds only where it has no fraction."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    there, utc = at.astimezone(zone), at.replace(tzinfo=None).isoformat(timespec="milliseconds")
    whole = [ms // 1000, str(ms // 1000), format_datetime(there)] if ms % 1000 == 0 else []
    return [
        ms, str(ms), float(ms), ms * 1000, f"{ms * 1000}", ms * 10**6, f"{ms * 10**6}", ms / 1000, f"{ms / 1000:.3f}",
        utc, f"{utc}Z", f"{utc} UTC", f"{utc}456789Z", utc.replace("T", " "), there.isoformat(),
        f"{there.isoformat()}[Some/Place]", there.isoformat(sep=" "), iso(ms), *whole,
    ]  # fmt: skip


@given(instants.flatmap(lambda ms: st.sampled_from([ms, ms // 1000 * 1000])), zones)
def test_every_form_of_an_instant_is_the_same_instant(ms, zone):
    for form in forms_of(ms, zone):
        assert to_ms(form) == ms, form


@given(
    st.one_of(st.text(max_size=40), st.integers(), st.floats(), st.text("0123456789TZ:-+. ", max_size=30)),
    st.sampled_from(["auto", "s", "ms", "us", "ns"]),
)
@example(1e31, "us")
@example(10**400, "s")
@example("9" * 39, "ns")
def test_any_value_is_a_time_or_refused(value, unit):
    with contextlib.suppress(NotATime):
        assert -(10**14) < to_ms(value, unit) <= MAX_MS


def test_a_moment_is_shown_in_utc_and_as_a_number_outside_the_calendar():
    assert moment(1_700_000_000_000) == "2023-11-14 22:13:20"
    assert moment(2**62) == str(2**62)
    assert iso(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"
