"""A request as people and programs see it: what its entry says, with the sums of what belongs to it. Pure."""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mcpgate.activity.requests import Totals
from mcpgate.errors import McpgateError
from mcpgate.governance.records import Entry, to_usd

NO_TOTALS = Totals()
_MODELS = ("chat", "embedding")
_FAILED_INSIDE = ("tool_error", "code_failed", "limit_reached", "cut_off")
"""Outcomes of requests that were answered, with an error in the answer."""
_CANCELLED = 499
"""As nginx and others log it: the client hung up."""


def shown(
    entry: Entry,
    totals: Totals = NO_TOTALS,
    attempts: Sequence[Entry] = (),
    key_names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """One request. `attempts`: of a request to a model, the entries of its attempts. Times are in milliseconds, money
    is in US dollars, as text."""
    facts = entry.facts
    answered = next((one for one in reversed(attempts) if one.outcome == "ok"), attempts[-1] if attempts else entry)
    return {
        "id": entry.id,
        "parent_id": entry.parent_id,
        "request_id": facts.get("request"),
        "at": _moment(entry.at),
        "face": "llm" if entry.kind in _MODELS else "mcp",
        "kind": entry.kind,
        "key": entry.key,
        "key_name": (key_names or {}).get(entry.key) or None,
        **{name: getattr(entry, name) for name in ("user", "team", "customer", "server", "tool")},
        "provider": answered.provider,
        "model": answered.model,
        "alias": facts.get("alias") or (entry.model if entry.kind in _MODELS and entry.provider is None else None),
        "status": status_of(entry.outcome),
        "outcome": entry.outcome,
        "error": None if entry.outcome == "ok" else entry.outcome,
        "attempts": len(attempts) or int(facts.get("attempts") or 1),
        "child_count": totals.number,
        "latency_ms": _latencies(entry, attempts, answered),
        "tokens": _tokens(entry, totals),
        "cost_usd": _cost(entry, totals),
        "unpriced": totals.unpriced + (entry.cost is None),
        "cache": entry.cache or "off",
        "saved_usd": f"{to_usd(entry.saved.cost):f}",
        "saved_tokens": {
            "definitions": entry.saved.definition_tokens,
            "results": entry.saved.result_tokens,
            "models": entry.saved.model_tokens,
        },
        "code_s": round(entry.usage.seconds, 3),
        "client": facts.get("client"),
        "session": facts.get("session") or None,
        "metadata": dict(entry.metadata),
        "facts": {name: value for name, value in facts.items() if name not in _SHOWN_FACTS},
    }


_SHOWN_FACTS = frozenset(("request", "alias", "attempts", "client", "session"))


def status_of(outcome: str) -> int | None:
    """The HTTP status of the answer; None if it is not known, because the gateway ended first."""
    if outcome == "ok" or outcome in _FAILED_INSIDE:
        return 200
    if outcome == "cancelled":
        return _CANCELLED
    return None if outcome == "unknown" else _STATUSES.get(outcome, 500)


def _statuses(of: type[McpgateError]) -> Iterator[tuple[str, int]]:
    yield of.code, of.http_status
    for one in of.__subclasses__():
        if one.__module__ == McpgateError.__module__:
            yield from _statuses(one)


_STATUSES = {code: status for code, status in reversed([*_statuses(McpgateError)])}


def _moment(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _latencies(entry: Entry, attempts: Sequence[Entry], answered: Entry) -> dict[str, float | None]:
    """`own` is what the gateway itself took: everything but upstreams, tools and running code."""
    upstream = sum(one.timings.get("upstream", 0.0) for one in attempts) or entry.timings.get("upstream")
    parts = {"upstream": upstream, **{name: entry.timings.get(name) for name in ("tools", "sandbox")}}
    own = max(0.0, entry.latency_ms - sum(value or 0.0 for value in parts.values()))
    first = answered.timings.get("first_token")
    if first is not None and answered is not entry:
        first += (answered.at - entry.at) * 1000  # as the client saw it
    found = {"total": entry.latency_ms, "first_token": first, **parts, "own": own}
    return {name: None if value is None else round(value, 3) for name, value in found.items()}


def _tokens(entry: Entry, totals: Totals) -> dict[str, int]:
    usage = entry.usage
    return {
        "input": usage.input_tokens + totals.input_tokens,
        "output": usage.output_tokens + totals.output_tokens,
        "cache_read": usage.cache_read_tokens + totals.cache_read_tokens,
        "cache_write": usage.cache_write_tokens + totals.cache_write_tokens,
        **usage.more,
    }


def _cost(entry: Entry, totals: Totals) -> str | None:
    """None if nothing of it has a known price."""
    if entry.cost is None and totals.unpriced == totals.number:
        return None
    if entry.kind in _MODELS and totals.number and totals.unpriced == totals.number:
        return None
    return f"{to_usd((entry.cost or 0) + totals.cost):f}"
