"""Calendar arithmetic: months of every length, leap years, days of 23 and 25 hours."""

import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.config.periods import Period

UTC = datetime.UTC
ZONES = [
    *("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Cairo"),
    *("America/Asuncion", "Asia/Beirut", "Pacific/Apia", "America/St_Johns", "Africa/Casablanca"),
]
"""Half-hour offsets and changes, changes at midnight, a skipped day."""


def at(text: str, zone: str = "UTC") -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


@pytest.mark.parametrize("text", ["30s", "5m", "1h", "1d", "2w", "1M", "1Q", "3Y", " 7d "])
def test_a_period_is_read_as_it_is_written(text: str) -> None:
    assert str(Period.parse(text)) == text.strip()


@pytest.mark.parametrize("text", ["", "d", "0d", "-1d", "1", "1.5h", "1 d", "1D", "100000d", "١d", "1month"])
def test_an_invalid_period_is_rejected_with_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="like 1h"):
        Period.parse(text)


@pytest.mark.parametrize(
    ("period", "moment", "before"),
    [
        ("1M", "2026-03-31T12:00", "2026-02-28T12:00"),
        ("1M", "2028-03-31T12:00", "2028-02-29T12:00"),
        ("1M", "2026-01-31T00:00", "2025-12-31T00:00"),
        ("1Q", "2026-05-31T00:00", "2026-02-28T00:00"),
        ("1Y", "2028-02-29T00:00", "2027-02-28T00:00"),
        ("4Y", "2028-02-29T00:00", "2024-02-29T00:00"),
        ("2w", "2026-01-03T05:06", "2025-12-20T05:06"),
        ("36h", "2026-01-01T00:00", "2025-12-30T12:00"),
    ],
)
def test_a_period_back_keeps_the_day_where_there_is_one(period: str, moment: str, before: str) -> None:
    assert Period.parse(period).before(at(moment)) == at(before)


def test_a_period_that_reaches_before_all_calendars_says_so() -> None:
    with pytest.raises(OverflowError):
        Period.parse("9999Y").before(at("2026-01-01T00:00"))


@pytest.mark.parametrize(
    ("period", "zone", "moment", "start", "end"),
    [
        ("1d", "Europe/Berlin", "2026-03-29T12:00", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("1d", "Europe/Berlin", "2026-10-25T12:00", "2026-10-24T22:00", "2026-10-25T23:00"),
        ("1w", "UTC", "2026-11-21T10:00", "2026-11-16T00:00", "2026-11-23T00:00"),
        ("1M", "UTC", "2028-02-29T23:59", "2028-02-01T00:00", "2028-03-01T00:00"),
        ("1Q", "UTC", "2026-11-21T10:00", "2026-10-01T00:00", "2027-01-01T00:00"),
        ("1Y", "Asia/Kolkata", "2025-12-31T18:29", "2024-12-31T18:30", "2025-12-31T18:30"),
        ("1Y", "Asia/Kolkata", "2025-12-31T18:30", "2025-12-31T18:30", "2026-12-31T18:30"),
        ("2M", "UTC", "2026-11-21T10:00", "2026-11-01T00:00", "2027-01-01T00:00"),
        ("6h", "Europe/Berlin", "2026-03-29T03:00", "2026-03-28T23:00", "2026-03-29T04:00"),
        ("1h", "Asia/Kolkata", "2026-11-21T10:45", "2026-11-21T10:30", "2026-11-21T11:30"),
        ("7h", "Europe/Berlin", "1970-01-01T08:00", "1970-01-01T07:00", "1970-01-01T14:00"),
        # The clock skips midnight: the day begins at one.
        ("1d", "Africa/Cairo", "2024-04-26T05:00", "2024-04-25T22:00", "2024-04-26T21:00"),
        # The 30th of December 2011 was left out.
        ("1d", "Pacific/Apia", "2011-12-30T12:00", "2011-12-30T10:00", "2011-12-31T10:00"),
    ],
)
def test_a_calendar_window_is_the_zones_own(period: str, zone: str, moment: str, start: str, end: str) -> None:
    assert Period.parse(period).window(at(moment), ZoneInfo(zone)) == (at(start), at(end))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("period", ["1h", "6h", "1d", "3d", "1w", "1M", "1Q", "1Y", "5M", "7h", "15m"])
def test_windows_tile_ten_years_without_a_gap(period: str, zone: str) -> None:
    parsed, place = Period.parse(period), ZoneInfo(zone)
    moment, stop = at("2020-01-01T00:00"), at("2030-01-01T00:00")
    step = datetime.timedelta(days=11) if period in ("1h", "6h", "7h", "15m") else None
    while moment < stop:
        start, end = parsed.window(moment, place)
        assert start <= moment < end
        assert parsed.window(end - datetime.timedelta(microseconds=1), place) == (start, end)
        assert parsed.window(end, place)[0] == end
        moment = max(end, moment + step) if step else end


@given(
    st.datetimes(datetime.datetime(1972, 1, 1), datetime.datetime(2099, 1, 1), timezones=st.just(UTC)),
    st.integers(1, 400),
    st.sampled_from("smhdwMQY"),
    st.sampled_from(ZONES),
)
def test_every_moment_is_in_exactly_one_window(moment: datetime.datetime, count: int, unit: str, zone: str) -> None:
    period, place = Period(count, unit), ZoneInfo(zone)
    start, end = period.window(moment, place)
    assert start <= moment < end
    assert period.window(start, place) == (start, end)
    assert period.window(end, place)[0] == end


@given(
    st.datetimes(datetime.datetime(1972, 1, 1), datetime.datetime(2099, 1, 1), timezones=st.just(UTC)),
    st.integers(1, 100),
    st.sampled_from("smhdwMQY"),
)
def test_a_period_back_is_never_longer_than_it_says(moment: datetime.datetime, count: int, unit: str) -> None:
    back = Period(count, unit).before(moment)
    longest = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 31 * 86400, "Q": 92 * 86400, "Y": 366 * 86400}
    assert 0 < (moment - back).total_seconds() <= count * longest[unit]
