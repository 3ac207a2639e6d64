"""How long limits last."""

import math

import pytest

from mcpgate.governance.forecast import forecast
from mcpgate.governance.records import Balance
from mcpgate.governance.windows import Forever, Window, make_window

DAY = 86_400.0
NOON = 20_000 * DAY + DAY / 2


def balance(window: Window, spent: int, began_at: float, held: int = 0) -> Balance:
    return Balance(spent, held, window.span(began_at).cell)


def test_what_was_spent_by_noon_is_half_of_a_calendar_day() -> None:
    window = make_window("1d", aligned=True)
    ahead = forecast(window, 100, balance(window, 40, NOON), NOON)
    assert ahead is not None and ahead.amount == 80 and ahead.runs_out_at == math.inf


def test_a_limit_that_will_not_last_says_when_it_ends() -> None:
    window = make_window("1d", aligned=True)
    ahead = forecast(window, 100, balance(window, 80, NOON), NOON)
    assert ahead is not None and ahead.amount == 160 and ahead.runs_out_at == NOON + DAY / 8


def test_what_is_reserved_is_not_left() -> None:
    window = make_window("1d", aligned=True)
    ahead = forecast(window, 100, balance(window, 80, NOON, held=20), NOON)
    assert ahead is not None and ahead.runs_out_at == NOON


@pytest.mark.parametrize("period", ["1h", "1d", "1M"])
def test_a_rolling_window_goes_on_as_it_did_since_it_was_first_used(period: str) -> None:
    window = make_window(period, aligned=False)
    whole_s = window.span(NOON).ends_at - window.began_at(window.span(NOON).cell)
    began = NOON - whole_s / 4
    ahead = forecast(window, 10_000, balance(window, 1000, began), NOON)
    assert ahead is not None and ahead.amount == pytest.approx(4000, rel=0.15)


def test_a_single_request_is_not_taken_for_a_pace() -> None:
    window = make_window("1d", aligned=False)
    ahead = forecast(window, 1000, balance(window, 10, NOON), NOON)
    assert ahead is not None and ahead.amount <= 600


def test_there_is_no_forecast_without_a_window_or_before_anything_is_spent() -> None:
    window = make_window("1d", aligned=False)
    assert forecast(Forever(), 100, Balance(50, 0, 0), NOON) is None
    assert forecast(window, 100, Balance(), NOON) is None
