"""Tokens of sign-ins to upstreams, in PostgreSQL."""

from typing import Any

import asyncpg

from mcpgate.stores.postgres.borrowed import fetch
from mcpgate.upstream.tokens import TokensUnavailable

_LIVE = "(until IS NULL OR until > extract(epoch FROM clock_timestamp()))"
_IN = "extract(epoch FROM clock_timestamp()) + $%d::float8"
"""So many seconds from now, by the database's clock: machines may disagree."""


class PostgresTokens:
    """Implements upstream.tokens.Tokens, over the connections of the PostgresStore."""

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool = pool

    async def get(self, key: str) -> bytes | None:
        found = await self._fetch(f"SELECT value FROM tokens WHERE key = $1 AND {_LIVE}", key)
        return found[0][0] if found else None

    async def put(self, key: str, value: bytes, for_s: float | None = None) -> None:
        await self._fetch(f"DELETE FROM tokens WHERE NOT {_LIVE}")
        await self._fetch(
            f"INSERT INTO tokens VALUES ($1, $2, {_IN % 3})"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value, until = excluded.until",
            key,
            value,
            for_s,
        )

    async def take(self, key: str) -> bytes | None:
        found = await self._fetch(f"DELETE FROM tokens WHERE key = $1 RETURNING value, {_LIVE}", key)
        return found[0][0] if found and found[0][1] else None

    async def keys(self, prefix: str) -> list[str]:
        return [row[0] for row in await self._fetch(
            f"SELECT key FROM tokens WHERE starts_with(key, $1) AND {_LIVE} ORDER BY key", prefix
        )]  # fmt: skip

    async def acquire(self, key: str, owner: str, for_s: float) -> bool:
        taken = await self._fetch(
            f"INSERT INTO token_locks VALUES ($1, $2, {_IN % 3}) ON CONFLICT (key) DO UPDATE"
            " SET owner = excluded.owner, until = excluded.until"
            f" WHERE token_locks.until <= {_IN % 4} OR token_locks.owner = excluded.owner RETURNING 1",
            *(key, owner, for_s, 0.0),
        )
        return bool(taken)

    async def release(self, key: str, owner: str) -> None:
        await self._fetch("DELETE FROM token_locks WHERE key = $1 AND owner = $2", key, owner)

    async def close(self) -> None:
        pass  # the pool is the store's

    async def _fetch(self, statement: str, *values: object) -> list[Any]:
        return await fetch(self._pool, _unavailable, statement, *values)


def _unavailable(reason: str) -> TokensUnavailable:
    return TokensUnavailable(f"the store of tokens is unavailable: {reason}")
