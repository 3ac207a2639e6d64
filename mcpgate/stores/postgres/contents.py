"""What requests say, in PostgreSQL, with a full-text index."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import asyncpg

from mcpgate.activity.contents import Kept
from mcpgate.governance.store import StoreUnavailable
from mcpgate.stores.postgres.borrowed import fetch
from mcpgate.stores.rows import clean


class PostgresContents:
    """Implements activity.contents.ContentStore. Borrows the connections of the PostgresStore."""

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._fetch = partial(fetch, pool, StoreUnavailable)

    async def write(self, contents: Sequence[Kept]) -> None:
        await self._fetch(
            "INSERT INTO request_contents (id, at, sent, answered)"
            " SELECT * FROM unnest($1::text[], $2::float8[], $3::text[], $4::text[]) ON CONFLICT DO NOTHING",
            [kept.id for kept in contents],
            [kept.at for kept in contents],
            [clean(kept.sent) for kept in contents],
            [clean(kept.answered) for kept in contents],
        )

    async def read(self, ids: Sequence[str]) -> list[Kept]:
        statement = "SELECT id, at, sent, answered FROM request_contents WHERE id = ANY ($1::text[])"
        return [Kept(*row) for row in await self._fetch(statement, list(ids))]

    async def delete(self, ids: Sequence[str]) -> int:
        statement = "DELETE FROM request_contents WHERE id = ANY ($1::text[]) RETURNING 1"
        return len(await self._fetch(statement, list(ids)))

    async def prune(self, before: float) -> int:
        deleted = "WITH gone AS (DELETE FROM request_contents WHERE at < $1 RETURNING 1) SELECT count(*) FROM gone"
        ((count,),) = await self._fetch(deleted, before)
        return int(count)

    async def close(self) -> None:
        pass
