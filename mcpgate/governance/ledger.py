"""What reports can request from the ledger: its dimensions, its sums, and how both derive from an entry. Pure; the
store does the adding up."""

import csv
import datetime
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mcpgate.config.governance import METADATA
from mcpgate.config.periods import Period
from mcpgate.errors import InvalidRequest
from mcpgate.governance.records import Entry, to_usd
from mcpgate.governance.store import Query

DIMENSIONS = (*("kind", "key", "user", "team", "customer", "server", "tool", "provider", "model", "outcome", "cache"),)
"""What entries can be grouped and filtered by, in addition to `metadata.NAME`."""
BUCKETS = ("hour", "day", "month")
"""In UTC."""
SUMS = (
    *("entries", "requests", "executions", "tool_calls", "failed", "unpriced", "cost", "input_tokens"),
    *("output_tokens", "cache_read_tokens", "cache_write_tokens", "seconds", "latency_ms"),
    *("definition_tokens_saved", "result_tokens_saved", "model_tokens_saved", "cost_saved"),
)
"""What is added up. `entries` counts ledger entries, `requests` those not made from inside an execution; `cost` is in
nano-dollars, for those with a price, and so is `cost_saved`; `unpriced` counts the others. `seconds` are of running
code."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The first characters of formulas; the last four are the wide forms, which some spreadsheets accept too."""
FRACTIONS = ("seconds", "latency_ms")
"""Those of `SUMS` that are not whole numbers."""


def facts_of(entry: Entry) -> dict[str, str | None]:
    """An entry's dimensions and buckets."""
    facts: dict[str, str | None] = {name: getattr(entry, name) or None for name in DIMENSIONS}
    moment = datetime.datetime.fromtimestamp(entry.at, datetime.UTC)
    facts |= {"hour": f"{moment:%Y-%m-%dT%H:00Z}", "day": f"{moment:%Y-%m-%d}", "month": f"{moment:%Y-%m}"}
    return facts | {f"metadata.{name}": value for name, value in entry.metadata.items()}


def sums_of(entry: Entry) -> dict[str, float]:
    """What an entry adds to each of `SUMS`."""
    usage = entry.usage
    return {
        "entries": 1,
        "requests": int(entry.parent_id is None),
        "executions": int(entry.kind == "execution"),
        "tool_calls": int(entry.kind == "tool"),
        "failed": int(entry.outcome != "ok"),
        "unpriced": int(entry.cost is None),
        "cost": entry.cost or 0,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "seconds": usage.seconds,
        "latency_ms": entry.latency_ms,
        "definition_tokens_saved": entry.saved.definition_tokens,
        "result_tokens_saved": entry.saved.result_tokens,
        "model_tokens_saved": entry.saved.model_tokens,
        "cost_saved": entry.saved.cost,
    }


def make_query(by: Sequence[str], where: Mapping[str, str], since: str, until: str | None, now: float) -> Query:
    """A query as people write it. Raises InvalidRequest, which lists what exists."""
    for name in by:
        if name not in (*DIMENSIONS, *BUCKETS) and not METADATA.fullmatch(name):
            known = ", ".join((*BUCKETS, *DIMENSIONS))
            raise InvalidRequest(f"cannot group by {name!r}; there are {known} and metadata.NAME")
    for name in where:
        if name not in DIMENSIONS and not METADATA.fullmatch(name):
            raise InvalidRequest(f"cannot filter by {name!r}; there are {', '.join(DIMENSIONS)} and metadata.NAME")
    if len(set(by)) < len(by):
        raise InvalidRequest("duplicate dimension")
    return Query(
        parse_moment(since, now), now + 1 if until is None else parse_moment(until, now), tuple(by), dict(where)
    )


def parse_where(pairs: Iterable[str]) -> dict[str, str]:
    """`NAME=VALUE` each. Raises InvalidRequest."""
    where = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise InvalidRequest(f"{pair[:80]!r} is not a valid filter; expected NAME=VALUE, e.g. team=search")
        where[name.strip()] = value
    return where


def render_csv(by: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows from `shown_row`, with a header even without rows. Names from others are text: if a spreadsheet would read
    one as a formula, it gets a `'` in front. Sums stay numbers."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(shown_row(dict.fromkeys((*by, *SUMS), 0))))
    writer.writeheader()
    writer.writerows({**row, **{name: _no_formula(row[name]) for name in by}} for row in rows)
    return text.getvalue()


def _no_formula(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def shown_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a report for people and programs: dollars instead of nano-dollars, integers where possible."""
    shown: dict[str, Any] = {}
    for name, value in row.items():
        if name in ("cost", "cost_saved"):
            shown[f"{name}_usd"] = f"{to_usd(int(value)):f}"
        elif name in FRACTIONS:
            shown[name] = round(float(value), 3)
        elif name in SUMS:
            shown[name] = int(value)
        else:
            shown[name] = value or None
    return shown


def parse_moment(text: str, now: float) -> float:
    """A date, a time, or a period before `now`, as epoch seconds. Raises InvalidRequest."""
    today = datetime.datetime.fromtimestamp(now, datetime.UTC)
    try:
        return Period.parse(text).before(today).timestamp()
    except (ValueError, OverflowError):
        pass
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        takes = "a date like 2026-11-01, a time like 2026-11-01T12:00Z, or a period like 7d or 1M"
        raise InvalidRequest(f"{text!r} is not a valid time; expected {takes}") from None
    return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp()
