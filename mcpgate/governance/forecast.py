"""How far a limit will be used if requests go on as they did in its window. Pure."""

import math
from typing import NamedTuple

from mcpgate.governance.records import Balance
from mcpgate.governance.windows import CELLS, Window


class Forecast(NamedTuple):
    amount: int
    """What will be spent in a whole window, in the unit of the limit. Of a calendar period: at its end."""
    runs_out_at: float
    """When nothing will be left, epoch seconds; infinity if the limit is enough."""


def forecast(window: Window, limit: int, balance: Balance, now: float) -> Forecast | None:
    """None without a window, and while nothing has been spent in it."""
    span = window.span(now)
    if balance.first is None or not balance.spent or not math.isfinite(span.ends_at):
        return None
    whole_s = span.ends_at - window.began_at(span.cell)
    # A window that has just begun says little: at least the length of a cell is taken.
    past_s = max(now - window.began_at(balance.first), whole_s / CELLS)
    amount = max(balance.spent, round(balance.spent / past_s * whole_s))
    left = limit - balance.spent - balance.held
    if left <= 0:
        return Forecast(amount, now)
    runs_out_at = now + left * past_s / balance.spent if amount > limit else math.inf
    return Forecast(amount, runs_out_at)
