"""Questions to the request log as people and programs write them. Pure."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from mcpgate.activity.requests import Wanted, check_filter
from mcpgate.errors import InvalidRequest
from mcpgate.governance.ledger import parse_moment
from mcpgate.governance.records import to_nano

_TRUE, _FALSE = ("1", "true", "yes"), ("", "0", "false", "no")
_MOST_TEXT = 500


def make_wanted(where: Mapping[str, str], given: Mapping[str, str], now: float) -> Wanted:
    """What a question asks for. `given`: since, until, min_latency_ms, min_cost_usd, q, nested; all may be missing.
    Raises InvalidRequest."""
    for name in where:
        check_filter(name)
    if where.get("failed", "true") not in ("true", "false"):
        raise InvalidRequest(f"failed must be true or false, not {where['failed'][:40]!r}")
    moments = {name: parse_moment(given[name], now) if given.get(name) else None for name in ("since", "until")}
    cost = _number(given, "min_cost_usd")
    text = given.get("q", "").strip()
    if len(text) > _MOST_TEXT:
        raise InvalidRequest(f"q is longer than {_MOST_TEXT} characters")
    latency = _number(given, "min_latency_ms")
    return Wanted(
        tuple(where.items()),
        **moments,
        min_latency_ms=None if latency is None else float(latency),
        min_cost=None if cost is None else to_nano(cost),
        text=text,
        nested=flag(given, "nested") or "parent" in where,
    )


def flag(given: Mapping[str, str], name: str) -> bool:
    """Raises InvalidRequest."""
    value = given.get(name, "").lower()
    if value not in (*_TRUE, *_FALSE):
        raise InvalidRequest(f"{name} must be 1 or 0, not {value[:40]!r}")
    return value in _TRUE


def _number(given: Mapping[str, str], name: str) -> Decimal | None:
    text = given.get(name)
    if not text:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal(-1)
    if not (number.is_finite() and 0 <= number < Decimal(10) ** 9):
        raise InvalidRequest(f"{name} must be a number of at least 0, not {text[:40]!r}")
    return number
