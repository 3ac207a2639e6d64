"""Periods of time over which usage is counted: the last seven days, this month in Berlin. Pure."""

import calendar
import datetime
import re
from dataclasses import dataclass
from zoneinfo import ZoneInfo

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_MONTHS = {"M": 1, "Q": 3, "Y": 12}
DAY_S = 86_400
LONGEST_D = {"s": 1 / 86_400, "m": 1 / 1440, "h": 1 / 24, "d": 1, "w": 7, "M": 31, "Q": 92, "Y": 366}
"""Most days in a unit of a period."""
_SMALLEST_CHANGE_S = 1800
"""The smallest change of a clock: usually an hour, half an hour on Lord Howe Island."""
_UTC = datetime.UTC
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=_UTC)


@dataclass(frozen=True, slots=True)
class Period:
    """A number of seconds, minutes, hours, days, weeks, months, quarters or years."""

    count: int
    unit: str
    """One of s m h d w M Q Y."""

    @classmethod
    def parse(cls, text: str) -> "Period":
        """`30s 5m 1h 1d 2w 1M 1Q 1Y`. Raises ValueError, which says what is expected."""
        found = re.fullmatch(r"([1-9]\d{0,4})([smhdwMQY])", text.strip())
        if found is None:
            raise ValueError(f"{text!r} is not a valid period; expected a number and one of s m h d w M Q Y, like 1h")
        return cls(int(found[1]), found[2])

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"

    def before(self, moment: datetime.datetime) -> datetime.datetime:
        """The moment one period earlier. Months keep the day if it exists, else use the last day of the month.
        Raises OverflowError before the year 1."""
        if self.unit in SECONDS:
            return moment - datetime.timedelta(seconds=self.count * SECONDS[self.unit])
        year, month = divmod(moment.year * 12 + moment.month - 1 - self.count * _MONTHS[self.unit], 12)
        if year < 1:
            raise OverflowError(f"{self} before {moment:%Y-%m-%d} is before the year 1")
        return moment.replace(year=year, month=month + 1, day=min(moment.day, calendar.monthrange(year, month + 1)[1]))

    def window(self, moment: datetime.datetime, zone: ZoneInfo) -> tuple[datetime.datetime, datetime.datetime]:
        """The calendar window that holds a moment: start and end in UTC, the end not included. Windows of
        one period and zone follow each other without gaps. Days, weeks (from Monday) and months begin at the first
        instant of their first day in the zone; multiples are counted from the year 1, so that 1Q begins in January,
        April, July and October. Shorter periods that divide the day begin with the day."""
        local = moment.astimezone(zone)
        if self.unit in _MONTHS:
            size = self.count * _MONTHS[self.unit]
            index = (local.year * 12 + local.month - 1) // size
            return _month(index * size, zone), _month((index + 1) * size, zone)
        seconds = self.count * SECONDS[self.unit]
        if seconds % DAY_S == 0:
            days = seconds // DAY_S
            index = (local.toordinal() - 1) // days  # the first day of the year 1 was a Monday
            return _midnight(1 + index * days, zone), _midnight(1 + (index + 1) * days, zone)
        if DAY_S % seconds or _SMALLEST_CHANGE_S % seconds == 0:
            # Either independent of the day, or so short that no clock change falls inside.
            offset = datetime.timedelta(0) if DAY_S % seconds else local.utcoffset() or datetime.timedelta(0)
            index = int((moment - _EPOCH + offset).total_seconds() // seconds)
            start = _EPOCH + datetime.timedelta(seconds=index * seconds) - offset
            return start, start + datetime.timedelta(seconds=seconds)
        # By the wall clock: on days of 23 or 25 hours, one window is shorter or longer.
        today = local.toordinal()
        edges = [_midnight(today, zone, at) for at in range(0, DAY_S, seconds)] + [_midnight(today + 1, zone)]
        start = max(edge for edge in edges if edge <= moment)
        return start, min(edge for edge in edges if edge > moment)


def _month(index: int, zone: ZoneInfo) -> datetime.datetime:
    """The first instant of a month, counted from the year 0."""
    year, month = divmod(index, 12)
    return _midnight(datetime.date(year, month + 1, 1).toordinal(), zone)


def _midnight(ordinal: int, zone: ZoneInfo, seconds: int = 0) -> datetime.datetime:
    """The moment so many wall-clock seconds after midnight. Where the clock skips it, the moment of the change;
    where it occurs twice, the first."""
    hour, rest = divmod(seconds, 3600)
    wall = datetime.time(hour, rest // 60, rest % 60, tzinfo=zone)
    return datetime.datetime.combine(datetime.date.fromordinal(ordinal), wall).astimezone(_UTC)
