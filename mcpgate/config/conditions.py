"""Conditions of routes that are more than globs: comparisons with a number, times of the day. Pure."""

import functools
import re
import zoneinfo
from dataclasses import dataclass

_AMOUNTS = ("input_tokens", "budget_used")
NAMES = (*_AMOUNTS, "time")
"""What such conditions are about."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A condition on a number."""

    sign: str
    number: float

    def holds(self, value: float) -> bool:
        match self.sign:
            case "<":
                return value < self.number
            case "<=":
                return value <= self.number
            case ">":
                return value > self.number
        return value >= self.number


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """A condition on the time, in minutes since midnight. The end is not part of it, and may lie on the next day."""

    begin: int
    end: int
    zone: zoneinfo.ZoneInfo

    def holds(self, minute: int) -> bool:
        if self.begin <= self.end:
            return self.begin <= minute < self.end
        return minute >= self.begin or minute < self.end


@functools.lru_cache(maxsize=4096)
def parse(name: str, text: str) -> str | Comparison | TimeOfDay:
    """The condition that a text is; a glob for other names. Raises ValueError."""
    if name in _AMOUNTS:
        return _comparison(text)
    return _time_of_day(text) if name == "time" else text


def _comparison(text: str) -> Comparison:
    found = re.fullmatch(r"\s*(<=|>=|<|>)\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
    if found is None:
        raise ValueError(f"{text!r} must compare with a number, such as '>8000' or '>80%'")
    return Comparison(found[1], float(found[2]) / (100 if found[3] else 1))


def _time_of_day(text: str) -> TimeOfDay:
    found = re.fullmatch(r"\s*(\d\d?):([0-5]\d)\s*-\s*(\d\d?):([0-5]\d)(?:\s+(\S+))?\s*", text)
    if found is None:
        raise ValueError(f"{text!r} must be such as '22:00-06:00' or '09:00-17:00 Europe/Berlin'")
    begin, end = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
    if max(begin, end) > 24 * 60:
        raise ValueError(f"{text!r} holds a time that does not exist")
    try:
        zone = zoneinfo.ZoneInfo(found[5] or "UTC")
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{text!r}: there is no time zone {found[5]!r}") from None
    return TimeOfDay(begin, end, zone)
