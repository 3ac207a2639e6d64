"""The periods of time in which amounts are counted. Pure.

Time is cut into cells, and a window is a run of cells that ends now. A calendar window is one cell, replaced by the
next. A rolling window is sixty cells (for months and longer, as many as it has days) plus the current one, so that
what was spent counts for at least its period and at most a sixtieth (a day) longer: limits are never exceeded, and
the number of cells is bounded however many calls there are. Rate-limit libraries were considered (`limits` 5.8,
`pyrate-limiter`): none can reserve an amount in several windows in one atomic step and settle it later.
"""

import datetime
import math
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from mcpgate.config.periods import DAY_S, LONGEST_D, SECONDS, Period

CELLS = 60
_UTC = datetime.UTC


@dataclass(frozen=True, slots=True)
class Span:
    """The cells in which an amount is counted at one moment."""

    cell: int
    oldest: int
    """The first cell that still counts."""
    ends_at: float
    """When `cell` itself stops counting, epoch seconds; infinity if never."""


class Window:
    """The sequence of cells of one rule. `at` is epoch seconds."""

    key: str = ""
    """Names the kind of cells: the same for windows with the same cells."""

    def span(self, at: float) -> Span:
        raise NotImplementedError

    def frees_at(self, cell: int) -> float:
        """When a cell stops counting, epoch seconds; infinity if never."""
        raise NotImplementedError

    def began_at(self, cell: int) -> float:
        """When a cell began, epoch seconds."""
        raise NotImplementedError


class Forever(Window):
    """For budgets without a period, and for what is only held, never spent."""

    _span = Span(0, 0, math.inf)

    def span(self, at: float) -> Span:
        return self._span

    def frees_at(self, cell: int) -> float:
        return math.inf

    def began_at(self, cell: int) -> float:
        return -math.inf

    def __str__(self) -> str:
        return ""


class Aligned(Window):
    """Calendar windows in a time zone; a cell is named by its first second."""

    def __init__(self, period: Period, zone: ZoneInfo) -> None:
        self.period, self.zone = period, zone
        self.key = f"{period}@{zone.key}"
        self._last = (math.inf, Span(0, 0, math.inf))

    def span(self, at: float) -> Span:
        start, span = self._last  # one tuple, because several threads may ask
        if not start <= at < span.ends_at:
            start, end = self._edges(at)
            span = Span(int(start), int(start), end)
            self._last = (start, span)
        return span

    def frees_at(self, cell: int) -> float:
        return self._edges(cell)[1]

    def began_at(self, cell: int) -> float:
        return float(cell)

    def _edges(self, at: float) -> tuple[float, float]:
        start, end = self.period.window(datetime.datetime.fromtimestamp(at, _UTC), self.zone)
        return start.timestamp(), end.timestamp()

    def __str__(self) -> str:
        return str(self.period)


class Rolling(Window):
    """The last seconds, hours or days."""

    def __init__(self, period: Period) -> None:
        self.period, self.key = period, str(period)
        self._whole_s = period.count * SECONDS[period.unit]
        self._cell_s = self._whole_s / CELLS
        self._last: Span | None = None

    def span(self, at: float) -> Span:
        cell, last = math.floor(at / self._cell_s), self._last
        if last is None or last.cell != cell:
            last = self._last = Span(cell, cell - CELLS, self.frees_at(cell))
        return last

    def frees_at(self, cell: int) -> float:
        return (cell + CELLS + 1) * self._cell_s

    def began_at(self, cell: int) -> float:
        return cell * self._cell_s

    def __str__(self) -> str:
        return str(self.period)


class RollingMonths(Window):
    """The last months, quarters or years, in UTC days: a month is as long as the calendar says."""

    def __init__(self, period: Period) -> None:
        self.period, self.key = period, str(period)
        self._last: Span | None = None

    def span(self, at: float) -> Span:
        cell, last = math.floor(at / DAY_S), self._last
        if last is None or last.cell != cell:
            last = self._last = Span(cell, self._oldest(cell), self.frees_at(cell))
        return last

    def frees_at(self, cell: int) -> float:
        # The first day whose span begins after the cell; months differ by a few days at most.
        day = cell + 1 + math.ceil(self.period.count * LONGEST_D[self.period.unit])
        while self._oldest(day - 1) > cell:
            day -= 1
        return day * DAY_S

    def began_at(self, cell: int) -> float:
        return float(cell * DAY_S)

    def _oldest(self, day: int) -> int:
        before = self.period.before(datetime.datetime.fromtimestamp(day * DAY_S, _UTC))
        return math.floor(before.timestamp() / DAY_S)

    def __str__(self) -> str:
        return str(self.period)


def make_window(period: str | None, aligned: bool, zone: str = "UTC") -> Window:
    if period is None:
        return Forever()
    parsed = Period.parse(period)
    if aligned:
        return Aligned(parsed, ZoneInfo(zone))
    return Rolling(parsed) if parsed.unit in SECONDS else RollingMonths(parsed)
