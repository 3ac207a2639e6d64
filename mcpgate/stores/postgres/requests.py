"""The request log in PostgreSQL. A table of its own holds the terms of entries as numbers, with an inverted index."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import asyncpg

from mcpgate.activity.requests import Totals, Wanted, terms_of_wanted
from mcpgate.governance.records import Entry
from mcpgate.governance.store import StoreUnavailable
from mcpgate.stores import request_rows
from mcpgate.stores.postgres.borrowed import fetch
from mcpgate.stores.request_rows import FINDABLE, SELECT, Conditions, entries_of, terms_of_rows

_AT_ONCE = 2000
_FRESH = (
    "xid >= (SELECT split_part(value, '/', 1)::xid8 FROM facts WHERE name = 'indexed')"
    " AND (xid, seq) > (SELECT split_part(value, '/', 1)::xid8, split_part(value, '/', 2)::bigint"
    " FROM facts WHERE name = 'indexed')"
)
"""Not in the index yet. Numbers are not handed out in the order in which transactions end, so it goes by those."""
_ADD = "INSERT INTO entry_terms (seq, terms) VALUES ($1, $2) ON CONFLICT DO NOTHING"


class _PostgresFacts:
    def parameter(self, number: int) -> str:
        return f"${number}"

    def part_of(self, column: str, name: str) -> str:
        return f"COALESCE({column} ->> {name}::text, '')"


_FACTS = _PostgresFacts()


class PostgresRequests:
    """Implements activity.requests.Requests. Borrows the connections of the PostgresStore."""

    in_order = False

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool = pool
        self._fetch = partial(fetch, pool, StoreUnavailable)

    async def scan(self, wanted: Wanted, before: int, most: int) -> tuple[list[tuple[int, Entry]], int | None]:
        numbers = await self._candidates(wanted, *await self._bounds(wanted, before), most)
        conditions = Conditions(_FACTS)
        chosen = f"seq = ANY ({conditions.value(numbers)}::bigint[]) AND {conditions.of(wanted)}"
        found = await self._fetch(f"{SELECT} WHERE {chosen} ORDER BY seq DESC", *conditions.values)
        return entries_of(found), numbers[-1] if len(numbers) == most else None

    async def after(self, wanted: Wanted, number: int, skip: Sequence[int], most: int) -> list[tuple[int, Entry]]:
        conditions = Conditions(_FACTS)
        chosen = f"seq > {conditions.value(number)} AND {conditions.of(wanted)}"
        chosen += f" AND seq <> ALL ({conditions.value(list(skip))}::bigint[])"
        statement = f"{SELECT} WHERE {chosen} ORDER BY seq LIMIT {int(most)}"
        return entries_of(await self._fetch(statement, *conditions.values))

    async def newest(self) -> int:
        ((newest,),) = await self._fetch("SELECT COALESCE(MAX(seq), 0) FROM entries")
        return int(newest)

    async def find(self, id: str) -> Entry | None:
        found = await self._fetch(f"{SELECT} WHERE id = $1", id)
        return entries_of(found)[0][1] if found else None

    async def children(self, ids: Sequence[str], most: int) -> list[Entry]:
        statement = f"{SELECT} WHERE {_OF_PARENTS} ORDER BY at, seq LIMIT $2"
        return [entry for _, entry in entries_of(await self._fetch(statement, list(ids), most))]

    async def totals(self, ids: Sequence[str]) -> Mapping[str, Totals]:
        statement = request_rows.totals_statement(_FACTS, _OF_PARENTS)
        return request_rows.totals_of(await self._fetch(statement, list(ids)))

    async def index(self) -> int:
        chosen = f"{_FRESH} AND xid < pg_snapshot_xmin(pg_current_snapshot())"
        statement = f"{FINDABLE} WHERE {chosen} ORDER BY xid, seq LIMIT $1"
        done = (
            "UPDATE facts SET value = (SELECT xid::text || '/' || seq::text FROM entries WHERE seq = $1)"
            " WHERE name = 'indexed'"
        )
        try:
            async with self._pool.acquire() as db, db.transaction():
                await db.execute("SELECT value FROM facts WHERE name = 'indexed' FOR UPDATE")
                found = await db.fetch(statement, _AT_ONCE)
                if not found:
                    return 0
                await db.executemany(_ADD, await asyncio.to_thread(terms_of_rows, [tuple(row) for row in found]))
                await db.execute(done, found[-1][0])
                return len(found)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StoreUnavailable(str(error)) from error

    async def close(self) -> None:
        pass

    async def _bounds(self, wanted: Wanted, before: int) -> tuple[int, int]:
        """Numbers between which all entries of a span of time are."""
        low, high = 0, before
        if wanted.since is not None:
            statement = "SELECT seq FROM entries WHERE at <= $1 ORDER BY at DESC LIMIT 1"
            found = await self._fetch(statement, wanted.since - request_rows.DAY_S)
            low = found[0][0] if found else low
        if wanted.until is not None:
            statement = "SELECT seq FROM entries WHERE at >= $1 ORDER BY at LIMIT 1"
            found = await self._fetch(statement, wanted.until + request_rows.DAY_S)
            high = min(high, found[0][0]) if found else high
        return low, high

    async def _candidates(self, wanted: Wanted, low: int, high: int, most: int) -> list[int]:
        """The numbers of the newest entries between two that may be wanted: those with the terms, and those that are
        not in the index yet."""
        if wanted.text:
            statement = request_rows.with_text(_SAYING, wanted.nested, "$2", "$3", "$4")
            return [seq for (seq,) in await self._fetch(statement, wanted.text, low, high, most)]
        parents = [value for name, value in wanted.where if name == "parent" and value]
        between = "seq > $1 AND seq < $2 ORDER BY seq DESC LIMIT $3"
        values: list[Any] = [low, high, most]
        if parents:
            statement = f"SELECT seq FROM entries WHERE parent_id = $4 AND parent_id <> '' AND {between}"
            values.append(parents[0])
        elif terms := terms_of_wanted(wanted):
            fresh = f"(SELECT seq FROM entries WHERE {_FRESH} AND {between})"
            known = f"(SELECT seq FROM entry_terms WHERE terms @> $4::bigint[] AND {between})"
            statement = f"SELECT seq FROM ({fresh} UNION {known}) AS found ORDER BY seq DESC LIMIT $3"
            values.append(terms)
        else:
            statement = f"SELECT seq FROM entries WHERE {between}"
        return [seq for (seq,) in await self._fetch(statement, *values)]


_SAYING = (
    "SELECT id FROM request_contents WHERE words @@ plainto_tsquery('simple', $1)"
    f" ORDER BY number DESC LIMIT {request_rows.MOST_SAYING}"
)
_OF_PARENTS = "parent_id = ANY ($1::text[]) AND parent_id <> ''"
"""The last part lets PostgreSQL use the index, which has only entries with a parent."""
