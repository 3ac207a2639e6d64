"""What providers keep for accounts, in PostgreSQL."""

from collections.abc import Sequence
from typing import Any

import asyncpg

from mcpgate.llm.objects import MOST, Kept, Kind, ObjectsUnavailable, oldest_kept
from mcpgate.stores.postgres.borrowed import fetch

_COLUMNS = "kind, id, account, provider, model, alias, key, at, about"
_SELECT = f"SELECT {_COLUMNS} FROM provider_objects WHERE account = $1 AND kind = $2 AND at > $3"


class PostgresObjects:
    """Implements llm.objects.Objects, over the connections of the PostgresStore."""

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool = pool

    async def put(self, kept: Kept) -> None:
        await self._fetch(
            f"INSERT INTO provider_objects AS known ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
            " ON CONFLICT (kind, id, provider) DO UPDATE SET model = excluded.model, alias = excluded.alias,"
            " key = excluded.key, at = excluded.at, about = excluded.about WHERE known.account = excluded.account",
            *kept,
        )

    async def find(self, account: str, kind: Kind, ids: Sequence[str]) -> list[Kept]:
        statement = f"{_SELECT} AND id = ANY ($4::TEXT[]) ORDER BY at DESC, id DESC"
        return _read(await self._fetch(statement, account, kind, oldest_kept(), list(ids)))

    async def page(self, account: str, kind: Kind, after: str, most: int, oldest_first: bool = False) -> list[Kept]:
        sign, order = (">", "ASC") if oldest_first else ("<", "DESC")
        statement, values = _SELECT, [account, kind, oldest_kept(), most]
        if after:
            statement += (
                f" AND (at, id) {sign} (SELECT at, id FROM provider_objects"
                " WHERE account = $1 AND kind = $2 AND id = $5 LIMIT 1)"
            )
            values.append(after)
        return _read(await self._fetch(f"{statement} ORDER BY at {order}, id {order} LIMIT $4", *values))

    async def forget(self, kept: Kept) -> None:
        await self._fetch(
            "DELETE FROM provider_objects WHERE kind = $1 AND id = $2 AND account = $3 AND provider = $4", *kept[:4]
        )

    async def tidy(self) -> None:
        oldest = oldest_kept()
        for account, kind, first, count in await self._fetch(
            "SELECT account, kind, MIN(at), COUNT(*) FROM provider_objects GROUP BY 1, 2"
        ):
            if first <= oldest or count > MOST[kind]:
                await self._fetch(
                    "DELETE FROM provider_objects WHERE account = $1 AND kind = $2 AND (at <= $3 OR (at, id) <= ("
                    "SELECT at, id FROM provider_objects WHERE account = $1 AND kind = $2"
                    " ORDER BY at DESC, id DESC LIMIT 1 OFFSET $4))",
                    *(account, kind, oldest, MOST[kind]),
                )

    async def close(self) -> None:
        pass  # the pool is the store's

    async def _fetch(self, statement: str, *values: object) -> list[Any]:
        return await fetch(self._pool, _unavailable, statement, *values)


def _read(rows: list[Any]) -> list[Kept]:
    return [Kept(*row) for row in rows]


def _unavailable(reason: str) -> ObjectsUnavailable:
    return ObjectsUnavailable(f"the store of what providers keep is unavailable: {reason}")
