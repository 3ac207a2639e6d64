"""Batches, in PostgreSQL."""

from collections.abc import Sequence
from typing import Any

import asyncpg

from mcpgate.llm.batches import BatchesUnavailable
from mcpgate.stores.batches import SqlBatches
from mcpgate.stores.postgres.borrowed import fetch


class PostgresBatches(SqlBatches):
    """Over the connections of the PostgresStore."""

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool = pool

    async def _read(self, statement: str, *values: object) -> list[Any]:
        return await fetch(self._pool, _unavailable, statement, *values)

    async def _write(self, statement: str, *values: object, durable: bool = False) -> list[Any]:
        return await fetch(self._pool, _unavailable, statement, *values)

    async def _write_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        try:
            await self._pool.executemany(statement, rows)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise _unavailable(str(error)) from error

    async def close(self) -> None:
        pass  # the pool is the store's


def _unavailable(reason: str) -> BatchesUnavailable:
    return BatchesUnavailable(f"the store of batches is unavailable: {reason}")
