"""Windows: what counts when, over ten years of calendars with changes of the clock, and how long a rolling window
remembers."""

import datetime
import itertools
import math
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcpgate.config.periods import Period
from mcpgate.governance.windows import CELLS, Aligned, Forever, Rolling, RollingMonths, Window, make_window

UTC = datetime.UTC
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]
DAY_S = 86_400.0
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
MOMENTS = st.integers(10**12, 22 * 10**11).map(lambda milliseconds: milliseconds / 1000)
"""2001 to 2039."""


def epoch(text: str, zone: str = "UTC") -> float:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def counts(window: Window, spent_at: float, now: float) -> bool:
    """Whether what was spent at one moment counts at another."""
    return window.span(spent_at).cell >= window.span(now).oldest


# --- calendar


@pytest.mark.parametrize("zone", ZONES)
def test_months_days_weeks_and_quarters_of_ten_years_begin_at_midnight_by_the_wall_clock(zone: str) -> None:
    local = ZoneInfo(zone)
    first = datetime.date(2024, 1, 1)
    days = [first + datetime.timedelta(days=n) for n in range(366 * 10)]
    starts = {
        "1d": days,
        "1w": [day for day in days if day.weekday() == 0],
        "1M": [day for day in days if day.day == 1],
        "1Q": [day for day in days if day.day == 1 and day.month % 3 == 1],
        "1Y": [day for day in days if day.day == 1 and day.month == 1],
    }
    for period, edges in starts.items():
        window = make_window(period, True, zone)
        moments = [datetime.datetime(day.year, day.month, day.day, tzinfo=local).timestamp() for day in edges]
        for start, end in itertools.pairwise(moments):
            for at in (start, start + 0.5, (start + end) / 2, end - 0.001):
                span = window.span(at)
                assert (span.cell, span.oldest, span.ends_at) == (start, start, end), (period, at)
            assert window.frees_at(int(start)) == end


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("America/New_York", "2026-03-08", 23),
        ("America/New_York", "2026-11-01", 25),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("Australia/Lord_Howe", "2026-10-04", 23.5),
        ("Europe/Berlin", "2026-06-01", 24),
    ],
)
def test_a_day_is_as_long_as_the_clock_makes_it(zone: str, day: str, hours: float) -> None:
    span = make_window("1d", True, zone).span(epoch(f"{day}T12:00", zone))
    assert (span.ends_at - span.cell) / 3600 == hours


@pytest.mark.parametrize(
    ("moment", "days"),
    [("2026-02-15", 28), ("2028-02-29", 29), ("2026-01-31", 31), ("2026-04-30", 30), ("2100-02-28", 28)],
)
def test_a_month_is_as_long_as_the_calendar_makes_it(moment: str, days: int) -> None:
    span = make_window("1M", True).span(epoch(moment))
    assert (span.ends_at - span.cell) / DAY_S == days


@given(
    at=MOMENTS,
    later=st.integers(0, 4 * 10**8),
    period=st.sampled_from(["1h", "6h", "7h", "15m", "1d", "3d", "1w", "1M", "2M", "1Q", "1Y"]),
    zone=st.sampled_from(ZONES),
)
def test_calendar_windows_follow_each_other_without_gaps(at: float, later: float, period: str, zone: str) -> None:
    window = make_window(period, True, zone)
    span = window.span(at)
    assert span.cell <= at < span.ends_at
    assert window.span(span.ends_at).cell == span.ends_at, "the next begins where one ends"
    assert window.span(span.ends_at - 0.001).cell == span.cell
    assert counts(window, at, at + later) == (at + later < span.ends_at)
    assert make_window(period, True, zone).span(at) == span, (
        "and what is remembered of the last question changes nothing"
    )


# --- rolling


PERIODS = st.builds(
    lambda count, unit: f"{count}{unit}", st.integers(1, 90), st.sampled_from(["s", "m", "h", "d", "w"])
)


@given(at=MOMENTS, period=PERIODS, share=st.floats(0, 1.2, allow_nan=False))
@settings(max_examples=300)
def test_a_rolling_window_never_forgets_early_and_at_most_a_sixtieth_late(at: float, period: str, share: float) -> None:
    window = make_window(period, False)
    assert isinstance(window, Rolling)
    whole = Period.parse(period).count * SECONDS[period[-1]]
    now = at + share * whole
    tiny = 1e-6
    if now - at <= whole - tiny:
        assert counts(window, at, now)
    if now - at >= whole * (1 + 1 / CELLS) + tiny:
        assert not counts(window, at, now)


@given(at=MOMENTS, period=PERIODS)
def test_a_rolling_window_forgets_exactly_when_it_says(at: float, period: str) -> None:
    window = make_window(period, False)
    frees = window.frees_at(window.span(at).cell)
    assert window.span(at).ends_at == frees
    assert counts(window, at, frees - 0.001)
    assert not counts(window, at, frees + 0.001)


MONTHS = st.sampled_from(["1M", "2M", "3M", "12M", "36M", "1Q", "4Q", "1Y", "3Y"])
AWKWARD = [epoch(f"{year}-{day}T23:59:59") for year in (2027, 2028) for day in ("01-29", "01-30", "01-31", "02-28")]


@given(at=st.one_of(MOMENTS, st.sampled_from(AWKWARD)), period=MONTHS, days=st.floats(-4, 4, allow_nan=False))
@example(at=epoch("2028-02-29T12:00"), period="1Y", days=0.0)
@settings(max_examples=300)
def test_a_window_of_months_never_forgets_early_and_at_most_a_day_late(at: float, period: str, days: float) -> None:
    """By the calendar: a month after the 31st is the last of the next month, if it has no 31st."""
    window = make_window(period, False)
    assert isinstance(window, RollingMonths)
    parsed = Period.parse(period)
    months = parsed.count * {"M": 1, "Q": 3, "Y": 12}[parsed.unit]
    now = at + months * 30.4375 * DAY_S + days * DAY_S
    before = parsed.before(datetime.datetime.fromtimestamp(now, UTC)).timestamp()
    if at >= before:
        assert counts(window, at, now)
    if at < before - DAY_S:
        assert not counts(window, at, now)


@given(at=st.one_of(MOMENTS, st.sampled_from(AWKWARD)), period=MONTHS)
@settings(max_examples=300)
def test_a_window_of_months_forgets_exactly_when_it_says(at: float, period: str) -> None:
    window = make_window(period, False)
    cell = window.span(at).cell
    frees = window.frees_at(cell)
    assert counts(window, at, frees - 0.001)
    assert not counts(window, at, frees)


@given(at=st.one_of(MOMENTS, st.sampled_from(AWKWARD)), period=MONTHS)
@settings(max_examples=200)
def test_what_still_counts_is_never_pruned(at: float, period: str) -> None:
    window = make_window(period, False)
    assert not counts(window, at, window.span(at).ends_at + 0.001), "after its end it may go"
    assert window.span(at).ends_at >= window.frees_at(window.span(at).cell)


@given(period=st.one_of(PERIODS, MONTHS), at=MOMENTS)
def test_a_rolling_window_has_a_bounded_number_of_cells(period: str, at: float) -> None:
    window = make_window(period, False)
    span = window.span(at)
    assert span.cell - span.oldest <= (
        CELLS if isinstance(window, Rolling) else 31 * 36 + 20 if "Y" not in period else 1100
    )


def test_without_a_period_nothing_is_ever_forgotten() -> None:
    window = make_window(None, False)
    assert isinstance(window, Forever)
    assert counts(window, 0.0, 1e12)
    assert window.frees_at(0) == math.inf


def test_threads_that_share_a_calendar_window_do_not_disturb_each_other() -> None:
    """What it remembers of the last question is one value."""
    window = Aligned(Period.parse("1d"), ZoneInfo("Europe/Berlin"))
    for at in (1.7e9, 1.8e9, 1.7e9, 1.9e9):
        span = window.span(at)
        assert span.cell <= at < span.ends_at
