"""Times as people write them."""

import pytest

from stream.times import MAX_MS, instant, iso_ms, moment


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01T01:00:01+01:00", 1_000),
        ("1970-01-01T00:00:01", 1_000),
        ("1970-01-02", 86_400_000),
        ("1969-12-31T23:59:59Z", -1_000),
    ],
)
def test_an_iso_time_without_a_zone_is_utc(text, ms):
    assert iso_ms(text) == instant(text) == ms


def test_an_instant_is_milliseconds_or_an_iso_time():
    assert instant("1500") == 1_500
    assert instant(str(MAX_MS)) == MAX_MS


@pytest.mark.parametrize("text", ["", "soon", "²", "1.5", str(MAX_MS + 1), "9" * 5000])
def test_other_texts_are_not_an_instant(text):
    with pytest.raises(ValueError):
        instant(text)


def test_a_moment_is_shown_in_utc_and_as_a_number_outside_the_calendar():
    assert moment(1_700_000_000_000) == "2023-11-14 22:13:20"
    assert moment(2**62) == str(2**62)
