"""Questions of the semantic cache in PostgreSQL with pgvector (https://github.com/pgvector/pgvector, 0.8 or later)."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from mcpgate.cache.entry import CacheUnavailable
from mcpgate.stores.postgres.borrowed import AWAY

_OLDEST = (0, 8)
"""The first version that goes on searching when a partition has fewer of the nearest than are asked for."""
_MOST_INDEXED = 4000
"""Dimensions of a halfvec that pgvector indexes; longer ones are compared one by one."""


class PostgresQuestions:
    """Implements cache.questions.Questions, over the connections of the PostgresStore.

    Vectors are kept as halfvec (2 bytes a dimension), in a table for each number of dimensions: an index over them
    needs that. PostgreSQL chooses between the index of partitions, for small ones, and that of vectors (HNSW).
    """

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool = pool
        self._schema = ""
        """Where pgvector is, quoted."""
        self._tables: dict[int, str] = {}
        """By the number of dimensions; those that are known to be there."""

    async def nearest(self, partition: str, vector: Any, count: int) -> list[str]:
        async with self._connection() as db:
            table = await self._table(db, len(vector))
            async with db.transaction():
                # A plan for all partitions would suit either the small ones or the large ones.
                await db.execute(
                    "SET LOCAL hnsw.iterative_scan = strict_order; SET LOCAL plan_cache_mode = force_custom_plan"
                )
                rows = await db.fetch(
                    f"SELECT id FROM {table} WHERE partition = $1"
                    f" ORDER BY vector OPERATOR({self._schema}.<#>) $2::TEXT::{self._schema}.halfvec LIMIT $3",
                    *(partition, _text(vector), count),
                )
        return [row[0] for row in rows]

    async def add(self, id: str, partition: str, vector: Any) -> None:
        async with self._connection() as db:
            table = await self._table(db, len(vector))
            await db.execute(
                # The lock keeps the entry from being dropped before its question is there to be dropped with it.
                f"INSERT INTO {table} SELECT $1, $2, $3::TEXT::{self._schema}.halfvec"
                " WHERE EXISTS (SELECT FROM cache_entries WHERE id = $1 FOR KEY SHARE)"
                " ON CONFLICT (id) DO UPDATE SET partition = excluded.partition, vector = excluded.vector",
                *(id, partition, _text(vector)),
            )

    async def remove(self, id: str) -> None:
        async with self._connection() as db:
            for table in self._tables.values():
                await db.execute(f"DELETE FROM {table} WHERE id = $1", id)

    async def close(self) -> None:
        pass  # the pool is the store's

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            async with self._pool.acquire() as db:
                yield db
        except AWAY as error:
            self._tables.clear()  # whatever it was, look again
            raise CacheUnavailable(f"questions cannot be searched in PostgreSQL: {error}") from error

    async def _table(self, db: Any, dimensions: int) -> str:
        """The table of vectors of a length, created when it is first needed; several processes may do this at once."""
        if dimensions in self._tables:
            return self._tables[dimensions]
        table = f"cache_questions_{dimensions}"
        async with db.transaction():
            await db.execute("SELECT pg_advisory_xact_lock(hashtext('mcpgate questions'))")
            self._schema = schema = await _extension(db)
            await db.execute(
                f'CREATE TABLE IF NOT EXISTS {table} (id TEXT COLLATE "C" PRIMARY KEY REFERENCES cache_entries'
                f" ON DELETE CASCADE, partition TEXT NOT NULL, vector {schema}.halfvec({dimensions}) NOT NULL)"
            )
            await db.execute(f"CREATE INDEX IF NOT EXISTS {table}_partition ON {table} (partition)")
            if dimensions <= _MOST_INDEXED:
                await db.execute(
                    f"CREATE INDEX IF NOT EXISTS {table}_vector ON {table} USING hnsw (vector {schema}.halfvec_ip_ops)"
                )
        self._tables[dimensions] = table
        return table


async def _extension(db: Any) -> str:
    """The schema that pgvector is in, quoted. Creates the extension if this user may."""
    found = await _find_extension(db)
    if found is None:
        try:
            async with db.transaction():
                await db.execute("CREATE EXTENSION vector SCHEMA public")
        except asyncpg.PostgresError as error:
            raise CacheUnavailable(
                f"cache.semantic.index is 'store', which needs pgvector in PostgreSQL: {error}. Install it and run "
                "CREATE EXTENSION vector SCHEMA public as a superuser, or set cache.semantic.index to 'memory'"
            ) from error
        found = await _find_extension(db)
        assert found is not None
    schema, version = found
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise CacheUnavailable(
            f"pgvector {version} is too old for cache.semantic.index 'store'. Install 0.8 or later and run ALTER "
            "EXTENSION vector UPDATE"
        )
    return schema


async def _find_extension(db: Any) -> tuple[str, str] | None:
    row = await db.fetchrow(
        "SELECT quote_ident(nspname), extversion FROM pg_extension"
        " JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'vector'"
    )
    return None if row is None else (row[0], row[1])


def _text(vector: Sequence[float]) -> str:
    return "[" + ",".join(f"{number:.5g}" for number in vector) + "]"
