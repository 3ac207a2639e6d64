"""The request log in SQL. What differs between databases is in a `Facts`."""

import functools
import json
from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from mcpgate.activity.requests import FACTS, Findable, Totals, Wanted, term, terms_of
from mcpgate.governance.ledger import DIMENSIONS
from mcpgate.governance.records import Entry
from mcpgate.stores.rows import COLUMNS, entry_of, quoted

DAY_S = 86_400.0
"""No request takes longer from its admission to its entry: between the times of two entries that are further apart,
numbers have the same order as times."""
MOST_SAYING = 100_000
"""The newest contents with a text that are looked at."""
_TOTALS = (
    "parent_id, COUNT(*), SUM(CASE WHEN cost IS NULL THEN 1 ELSE 0 END), SUM(COALESCE(cost, 0)), SUM(input_tokens),"
    " SUM(output_tokens), SUM(cache_read_tokens), SUM(cache_write_tokens)"
)
SELECT = f"SELECT seq, {quoted(COLUMNS)} FROM entries"


FINDABLE = f"SELECT seq, parent_id, {quoted(DIMENSIONS)}, metadata, facts FROM entries"


class Facts(Protocol):
    """The parts of conditions that differ between databases."""

    def parameter(self, number: int) -> str: ...

    def part_of(self, column: str, name: str) -> str:
        """The value of one name (a parameter) in a column of JSON; an empty text if it is absent."""
        ...


class Conditions:
    """Conditions on `entries` under construction, with their values."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.values: list[Any] = []

    def value(self, value: Any) -> str:
        self.values.append(value)
        return self._facts.parameter(len(self.values))

    def of(self, wanted: Wanted) -> str:
        """All that is wanted of an entry, its content aside; `true` for any."""
        found = [f"{self._column(name)} = {self.value(value)}" for name, value in wanted.where if name != "failed"]
        found += [
            f"outcome {'=' if value == 'false' else '<>'} 'ok'" for name, value in wanted.where if name == "failed"
        ]
        if not wanted.nested:
            found.append("parent_id = ''")
        for condition, value in (
            ("at >=", wanted.since),
            ("at <", wanted.until),
            ("latency_ms >=", wanted.min_latency_ms),
            ("COALESCE(cost, 0) >=", wanted.min_cost),
        ):
            if value is not None:
                found.append(f"{condition} {self.value(value)}")
        return " AND ".join(found) or "true"

    def _column(self, name: str) -> str:
        if name == "parent":
            return "parent_id"
        if name == "cache":
            return f"COALESCE(NULLIF({self._facts.part_of('facts', self.value('cache'))}, ''), cache)"
        if name in FACTS:
            return self._facts.part_of("facts", self.value(name))
        if name in DIMENSIONS:
            return f'"{name}"'
        return self._facts.part_of("metadata", self.value(name.removeprefix("metadata.")))


def with_text(saying: str, nested: bool, low: str = "?2", high: str = "?3", most: str = "?4") -> str:
    """A statement for the numbers of the newest entries whose content says something, or, unless `nested`, of the
    requests that they belong to. `saying`: a statement for their ids."""
    seq = "said.seq" if nested else "COALESCE(whole.seq, said.seq)"
    return (
        f"SELECT DISTINCT {seq} AS found FROM ({saying}) AS texts JOIN entries AS said ON said.id = texts.id"
        " LEFT JOIN entries AS whole ON said.parent_id <> '' AND whole.id = said.parent_id"
        f" WHERE {seq} > {low} AND {seq} < {high} ORDER BY found DESC LIMIT {most}"
    )


def totals_statement(facts: Facts, of_parents: str) -> str:
    """A statement for the totals of what belongs to some requests. `of_parents`: a condition for those."""
    refused_by = facts.part_of("facts", "'refused'")
    return f"SELECT {_TOTALS} FROM entries WHERE {of_parents} AND {refused_by} = '' GROUP BY parent_id"


def entries_of(rows: Sequence[Sequence[Any]]) -> list[tuple[int, Entry]]:
    return [(seq, entry_of(row)) for seq, *row in rows]


def totals_of(rows: Sequence[Sequence[Any]]) -> dict[str, Totals]:
    return {id: Totals(*map(int, sums)) for id, *sums in rows}


def terms_of_rows(rows: Sequence[Sequence[Any]]) -> list[tuple[int, list[int]]]:
    """Numbers and terms of rows of `FINDABLE`."""
    found = []
    for seq, parent, *dimensions, metadata, facts in rows:
        said = orjson.loads(facts)
        others = tuple((name, said[name]) for name in _SHARED if name in said)
        terms = _shared_terms(not parent, tuple(dimensions), metadata, others)
        if request := said.get("request"):
            terms = [*terms, term.__wrapped__("request", request)]  # each is another: not worth remembering
        found.append((seq, terms))
    return found


_SHARED = ("cache", *(name for name in FACTS if name != "request"))


@functools.lru_cache(maxsize=4096)
def _shared_terms(
    is_top: bool, dimensions: tuple[str, ...], metadata: str, facts: tuple[tuple[str, str], ...]
) -> list[int]:
    """Those that many entries share; not to be changed."""
    return terms_of(Findable("" if is_top else "some", dimensions, orjson.loads(metadata), dict(facts)))


def terms_text(terms: Sequence[int]) -> str:
    """Terms as words of a full-text index."""
    return " ".join(f"{one:x}" for one in terms)


def to_json(values: Sequence[Any]) -> str:
    return json.dumps(list(values))
