"""The ledger's tables and reports in SQL. What differs between databases is in a `Dialect`."""

import json
import math
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, Protocol

import orjson

from mcpgate import jsontext
from mcpgate.governance.ledger import BUCKETS, DIMENSIONS, FRACTIONS, SUMS
from mcpgate.governance.records import Entry, Saved, Usage
from mcpgate.governance.store import Query

HOUR_S = 3600
DAY_S = 24 * HOUR_S
FOREVER = 9e15
USAGE = ("calls", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "seconds")
SAVED = ("definition_tokens_saved", "result_tokens_saved", "model_tokens_saved", "cost_saved")
MAPPINGS = ("metadata", "more", "timings", "facts")
COLUMNS = ("id", "parent_id", "at", *DIMENSIONS, "cost", *USAGE, *SAVED, "latency_ms", *MAPPINGS)
"""Of the table `entries`. A dimension that an entry lacks is an empty string; mappings are JSON."""
_ADDED = {
    "entries": "1",
    "requests": "CASE WHEN parent_id = '' THEN 1 ELSE 0 END",
    "executions": "CASE WHEN kind = 'execution' THEN 1 ELSE 0 END",
    "tool_calls": "CASE WHEN kind = 'tool' THEN 1 ELSE 0 END",
    "failed": "CASE WHEN outcome = 'ok' THEN 0 ELSE 1 END",
    "unpriced": "CASE WHEN cost IS NULL THEN 1 ELSE 0 END",
    "cost": "COALESCE(cost, 0)",
}
"""How a sum is computed from an entry, if it is not a column of the same name."""


class Dialect(Protocol):
    """The parts of statements that differ between databases."""

    fresh: str
    """A condition on `entries`: not yet in the hourly sums."""

    counted: str
    """A condition on `entries`: admitted, and so part of every report. The request log has refused requests too."""

    def start(self, span_s: int) -> str:
        """The start of the hour or day of an entry's `at`, in whole epoch seconds."""
        ...

    def digest(self, columns: str) -> str:
        """A digest of the columns that identify a row of sums, if the columns themselves may be too long for an index;
        else an empty string."""
        ...

    def parameter(self, number: int) -> str:
        """The placeholder of the n-th parameter, from 1."""
        ...

    def name_of(self, name: str) -> str:
        """The value of one name (a parameter) in the column `metadata`; null if it is absent."""
        ...

    def some_of(self, names: Sequence[str]) -> str:
        """The column `metadata` with only these names."""
        ...

    def bucket(self, bucket: str, at: str) -> str:
        """The hour, day or month of a column of epoch seconds, as text, in UTC."""
        ...


def quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def finite(ends_at: float) -> float:
    """The end of a cell as a finite number, as JSON and indexes require; for a cell that never ends, the year 285
    million."""
    return min(ends_at, FOREVER)


def clean(text: str) -> str:
    """Text that every database accepts: without NUL and lone surrogates, which upstreams may send."""
    if text.isprintable():
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


_dimensions, _usage = attrgetter(*DIMENSIONS), attrgetter(*USAGE)


def row_of(entry: Entry) -> tuple[Any, ...]:
    """An entry's columns."""
    return (
        entry.id,
        entry.parent_id or "",
        entry.at,
        *[clean(value) if value else "" for value in _dimensions(entry)],
        entry.cost,
        *_usage(entry.usage),
        entry.saved.definition_tokens,
        entry.saved.result_tokens,
        entry.saved.model_tokens,
        entry.saved.cost,
        entry.latency_ms,
        _text(entry.metadata),
        _numbers(entry.usage.more),
        _numbers(entry.timings),
        _text(entry.facts),
    )


def _text(values: Mapping[str, str]) -> str:
    if not values:
        return "{}"
    cleaned = {clean(name): clean(value) for name, value in values.items()}
    return orjson.dumps(cleaned, option=orjson.OPT_SORT_KEYS).decode()


def _numbers(values: Mapping[str, float]) -> str:
    if not values:
        return "{}"
    finite = {clean(name): value for name, value in values.items() if math.isfinite(value)}
    return jsontext.dumps(finite).decode()


def entry_of(row: Sequence[Any]) -> Entry:
    """The entry of a row with the columns `COLUMNS`."""
    columns = dict(zip(COLUMNS, row, strict=True))
    mappings = {name: json.loads(columns.pop(name)) for name in MAPPINGS}
    usage = Usage(**{name: columns.pop(name) for name in USAGE}, more=mappings.pop("more"))
    saved = Saved(*(columns.pop(name) for name in SAVED))
    columns |= {name: columns[name] or None for name in ("parent_id", "user", "team", "customer")}
    columns |= {name: columns[name] or None for name in ("server", "tool", "provider", "model")}
    return Entry(**columns, **mappings, usage=usage, saved=saved)


def entry_to_json(entry: Entry) -> str:
    """An entry as it is stored with a reservation, in case the reservation is abandoned."""
    return orjson.dumps(dict(zip(COLUMNS, row_of(entry), strict=True))).decode()


def entry_from_json(text: str) -> Entry:
    """The inverse of `entry_to_json`, also of earlier versions: what they did not have is empty."""
    columns = dict.fromkeys(MAPPINGS, "{}") | dict.fromkeys(SAVED, 0) | json.loads(text)
    return entry_of([columns[name] for name in COLUMNS])


def roll_up_statement(dialect: Dialect, span_s: int, chosen: str, names: Sequence[str]) -> str:
    """A statement that adds the entries of a condition to the hourly or daily (UTC) sums. Of their metadata, only
    `names` are kept; the configuration has checked that these are safe to insert into SQL."""
    keys = ["span", "start", *DIMENSIONS, "metadata"]
    group = f"{span_s}, {dialect.start(span_s)}, {quoted(DIMENSIONS)}, {dialect.some_of(names)}"
    added = ", ".join(f"SUM({_ADDED.get(name, name)})" for name in SUMS)
    updates = ", ".join(f'"{name}" = sums."{name}" + excluded."{name}"' for name in SUMS)
    columns, target = quoted([*keys, *SUMS]), quoted(keys)
    if digest := dialect.digest(group):
        columns, added, target = f"{columns}, digest", f"{added}, {digest}", "digest"
    return (
        f"INSERT INTO sums ({columns}) SELECT {group}, {added} FROM entries WHERE {chosen} AND {dialect.counted}"
        f" GROUP BY {group.partition(', ')[2]} ON CONFLICT ({target}) DO UPDATE SET {updates}"
    )


class _Statement:
    """A statement under construction, which numbers its parameters as they are added."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.values: list[Any] = []

    def value(self, value: Any) -> str:
        self.values.append(value)
        return self.dialect.parameter(len(self.values))

    def dimension(self, name: str, at: str) -> str:
        if name in BUCKETS:
            return self.dialect.bucket(name, at)
        if name.startswith("metadata."):
            return f"COALESCE({self.dialect.name_of(self.value(name.removeprefix('metadata.')))}, '')"
        return f'"{name}"'

    def chosen(self, query: Query) -> str:
        return "".join(f" AND {self.dimension(name, '')} = {self.value(value)}" for name, value in query.where.items())


def report_statement(
    dialect: Dialect, query: Query, report_metadata: Sequence[str], pruned_before: float
) -> tuple[str, list[Any]]:
    """Reads whole days from the daily sums (unless single hours are requested), further whole hours from the hourly
    sums, and the rest from the entries: what is not yet rolled up, and the partial hours at both ends. If a query needs
    metadata that the sums do not have, everything is read from the entries."""
    statement = _Statement(dialect)
    names = {name.removeprefix("metadata.") for name in (*query.by, *query.where) if name.startswith("metadata.")}
    first, last = math.ceil(query.since / HOUR_S) * HOUR_S, math.floor(query.until / HOUR_S) * HOUR_S
    if query.since < pruned_before:
        first = math.floor(query.since / HOUR_S) * HOUR_S  # single entries are gone; the hour is all there is
    sums = ", ".join(f'"{name}"' for name in SUMS)
    read = ", ".join(f"{_ADDED.get(name, chr(34) + name + chr(34))} AS {name}" for name in SUMS)
    parts = []
    if first >= last or not names <= set(report_metadata):
        parts.append(_part(statement, query, "entries", "at", read, [(query.since, query.until)], ""))
    else:
        days = (math.ceil(first / DAY_S) * DAY_S, math.floor(last / DAY_S) * DAY_S)
        hours = [(first, last)]
        if days[0] < days[1] and "hour" not in query.by:
            hours = [(first, days[0]), (days[1], last)]
            parts.append(_part(statement, query, "sums", "start", sums, [days], f"span = {DAY_S}"))
        parts.append(_part(statement, query, "sums", "start", sums, hours, f"span = {HOUR_S}"))
        parts.append(_part(statement, query, "entries", "at", read, [(first, last)], dialect.fresh))
        parts.append(_part(statement, query, "entries", "at", read, [(query.since, first), (last, query.until)], ""))
    groups = [f"g{number}" for number in range(len(query.by))]
    added = [f"SUM({name}) AS {name}" for name in SUMS]
    text = f"SELECT {', '.join([*groups, *added])} FROM ({' UNION ALL '.join(parts)}) AS parts"
    if groups:
        order = [f"{len(groups) + SUMS.index(query.order) + 1} DESC"] if query.order else []  # by its column
        text += f" GROUP BY {', '.join(groups)} ORDER BY {', '.join([*order, *groups])}"
        text += "" if query.limit is None else f" LIMIT {int(query.limit)}"
    return text, statement.values


def _part(
    statement: _Statement, query: Query, table: str, at: str, read: str, spans: Sequence[tuple[float, float]], also: str
) -> str:
    """One source of a report. Parameters are numbered as the text grows."""
    by = [f"{statement.dimension(name, at)} AS g{number}" for number, name in enumerate(query.by)]
    within = " OR ".join(
        f"({at} >= {statement.value(since)} AND {at} < {statement.value(until)})" for since, until in spans
    )
    if table == "entries":
        also = " AND ".join(filter(None, (also, statement.dialect.counted)))
    condition = f"({within})" + (f" AND {also}" if also else "") + statement.chosen(query)
    return f"SELECT {', '.join([*by, read])} FROM {table} WHERE {condition}"


def report_rows(query: Query, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        # Without groups, SQL returns one row of nulls if nothing was found. Some databases return decimals.
        sums = (float(value or 0) if name in FRACTIONS else int(value or 0)
                for name, value in zip(SUMS, row[len(query.by):], strict=True))  # fmt: skip
        found.append({**dict(zip(query.by, row, strict=False)), **dict(zip(SUMS, sums, strict=True))})
    return [row for row in found if row["entries"] or not query.by]


def entries_statement(dialect: Dialect, query: Query, limit: int, before: int | None) -> tuple[str, list[Any]]:
    statement = _Statement(dialect)
    condition = f"at >= {statement.value(query.since)} AND at < {statement.value(query.until)} AND {dialect.counted}"
    if before is not None:
        condition += f" AND seq < {statement.value(before)}"
    condition += statement.chosen(query)
    text = f"SELECT seq, {quoted(COLUMNS)} FROM entries WHERE {condition} ORDER BY seq DESC LIMIT {int(limit)}"
    return text, statement.values
