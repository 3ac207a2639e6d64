"""The cache in PostgreSQL."""

import time
from collections.abc import Sequence
from typing import Any

import asyncpg

from mcpgate.cache.entry import CacheUnavailable, Row
from mcpgate.cache.store import Selection, Total
from mcpgate.stores.postgres.borrowed import fetch
from mcpgate.stores.rows import clean

_COLUMNS = "id, kind, tenant, key, server, tool, provider, model, tags, partition, at, until"
_FIELDS = (*_COLUMNS.split(", "), "value")
_USED_S = 60.0
"""How exactly it is known when an entry was used."""


class PostgresCache:
    """Implements cache.store.CacheStore, over the connections of the PostgresStore."""

    name, outlives = "PostgreSQL", True

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool = pool

    async def get(self, id: str) -> Row | None:
        found = await self._fetch(f"SELECT {_COLUMNS}, value, used FROM cache_entries WHERE id = $1", clean(id))
        if not found:
            return None
        *columns, used = found[0]
        now = time.time()
        if now - used > _USED_S:
            await self._fetch("UPDATE cache_entries SET used = $1 WHERE id = $2", now, id)
        return _row(columns)

    async def put(self, row: Row, epoch: int | None = None) -> None:
        # A drop of the server that begins meanwhile waits until this is over, because of the lock; what has ended
        # before is seen here.
        condition = "TRUE"
        more: tuple[object, ...] = ()
        if epoch is not None:
            condition = "COALESCE((SELECT epoch FROM cache_epochs WHERE server = $16 FOR SHARE), 0) = $17::BIGINT"
            more = (clean(row.server), epoch)
        await self._fetch(
            f"INSERT INTO cache_entries ({_COLUMNS}, used, size, value)"
            " SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9::TEXT[], $10, $11::FLOAT8, $12::FLOAT8, $13::FLOAT8,"
            f" $14::BIGINT, $15::BYTEA WHERE {condition}"
            " ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, tenant = excluded.tenant, key = excluded.key,"
            " server = excluded.server, tool = excluded.tool, provider = excluded.provider, model = excluded.model,"
            " tags = excluded.tags, partition = excluded.partition, at = excluded.at, until = excluded.until,"
            " used = excluded.used, size = excluded.size, value = excluded.value",
            *(row.id, row.kind, clean(row.tenant), row.key, clean(row.server), clean(row.tool), row.provider),
            *(clean(row.model), list(row.tags), row.partition, row.at, row.until, row.at, row.size, row.value),
            *more,
        )

    async def drop(self, which: Selection) -> int:
        condition, values = _condition(which, 1)
        # Two statements: the second one sees what was put while the first one waited.
        await self._fetch(
            "INSERT INTO cache_epochs AS known VALUES ($1, 1)"
            " ON CONFLICT (server) DO UPDATE SET epoch = known.epoch + 1",
            clean(which.server),
        )
        found = await self._fetch(
            f"WITH gone AS (DELETE FROM cache_entries WHERE {condition} RETURNING 1) SELECT COUNT(*) FROM gone", *values
        )
        return int(found[0][0])

    async def epoch(self, server: str = "") -> int:
        found = await self._fetch("SELECT epoch FROM cache_epochs WHERE server = $1", clean(server))
        if not found:  # there must be a row for `put` to lock
            await self._fetch("INSERT INTO cache_epochs VALUES ($1, 0) ON CONFLICT DO NOTHING", clean(server))
            found = await self._fetch("SELECT epoch FROM cache_epochs WHERE server = $1", clean(server))
        return int(found[0][0])

    async def page(self, which: Selection, after: str = "", limit: int = 200) -> Sequence[Row]:
        condition, values = _condition(which, 3)
        statement = f"SELECT {_COLUMNS}, value FROM cache_entries WHERE id > $1 AND {condition} ORDER BY id LIMIT $2"
        return [_row(columns) for columns in await self._fetch(statement, clean(after), limit, *values)]

    async def newer(self, partition: str, at: float, limit: int = 500) -> Sequence[Row]:
        statement = (
            f"SELECT {_COLUMNS}, value FROM cache_entries WHERE partition = $1 AND partition <> '' AND at >= $2"
            " ORDER BY at, id LIMIT $3"
        )
        return [_row(columns) for columns in await self._fetch(statement, partition, at, limit)]

    async def totals(self) -> Sequence[Total]:
        statement = "SELECT kind, COUNT(*), SUM(size)::BIGINT FROM cache_entries GROUP BY kind ORDER BY kind"
        return [Total(*columns) for columns in await self._fetch(statement)]

    async def tidy(self, now: float, most_bytes: int) -> int:
        found = await self._fetch(
            "WITH gone AS (DELETE FROM cache_entries WHERE until <= $1 OR id IN (SELECT id FROM ("
            "SELECT id, SUM(size) OVER (ORDER BY used DESC, id) AS total FROM cache_entries WHERE until > $1) AS sums"
            " WHERE total > $2) RETURNING 1) SELECT COUNT(*) FROM gone",
            now,
            most_bytes,
        )
        return int(found[0][0])

    async def close(self) -> None:
        pass  # the pool is the store's

    async def _fetch(self, statement: str, *values: object) -> list[Any]:
        return await fetch(self._pool, _unavailable, statement, *values)


def _row(columns: Sequence[Any]) -> Row:
    fields = dict(zip(_FIELDS, columns, strict=True))
    fields |= {"tags": tuple(fields["tags"]), "value": bytes(fields["value"])}
    return Row(**fields)


def _condition(which: Selection, first: int) -> tuple[str, list[Any]]:
    """`first`: the number of its first parameter."""
    conditions: list[str] = ["TRUE"]
    values: list[Any] = []

    def add(condition: str, value: Any) -> None:
        conditions.append(condition.format(f"${first + len(values)}"))
        values.append(value)

    for name in ("id", "key", "tenant", "server", "tool", "kind"):
        if value := getattr(which, name):
            add(f"{name} = {{}}", clean(value))
    if which.tag:
        add("{} = ANY (tags)", clean(which.tag))
    if which.model:
        add("provider || '/' || model = {}", clean(which.model))
    if which.before is not None:
        add("at < {}", which.before)
    return " AND ".join(conditions), values


def _unavailable(reason: str) -> CacheUnavailable:
    return CacheUnavailable(f"the store of the cache is unavailable: {reason}")
