"""Numbers, money and stretches of time as people write them. Pure."""

from decimal import Decimal

from mcpgate.config.periods import Period

_UNITS = {
    "s": "second",
    "m": "minute",
    "h": "hour",
    "d": "day",
    "w": "week",
    "M": "month",
    "Q": "quarter",
    "Y": "year",
}


def number(value: float) -> str:
    """`1,234`, `2.5 million`."""
    if value >= 10_000_000:
        return f"{value / 1e6:,.0f} million"
    if value >= 1_000_000:
        return f"{value / 1e6:.1f} million"
    return f"{value:,.1f}".removesuffix(".0")


def dollars(usd: str | Decimal) -> str:
    """`$12.50`; below a cent as far as the first two digits that are not zero."""
    value = Decimal(usd)
    if 0 < value < Decimal("0.01"):
        places = 1 - value.adjusted()
        return f"${value:.{places}f}"
    return f"${value:,.2f}"


def seconds(value: float) -> str:
    """`12.5 s`, `3 min`, `2.5 h`."""
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:,.0f} min" if value < 7200 else f"{value / 3600:,.1f} h"


def period(text: str) -> str:
    """`day` for `1d`, `30 days` for `30d`. Raises ValueError."""
    parsed = Period.parse(text)
    unit = _UNITS[parsed.unit]
    return unit if parsed.count == 1 else f"{parsed.count} {unit}s"


def per(text: str | None) -> str:
    """` a day` for `1d`, ` in 30 days` for `30d`, nothing for all time."""
    if not text:
        return ""
    words = period(text)
    if words[0].isdigit():
        return f" in {words}"
    return f" {'an' if words == 'hour' else 'a'} {words}"
