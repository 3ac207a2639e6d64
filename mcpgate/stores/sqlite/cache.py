"""The cache in SQLite."""

import contextlib
import json
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from mcpgate.cache.entry import CacheUnavailable, Row, Unreadable, tags_of
from mcpgate.cache.store import Selection, Total
from mcpgate.stores.rows import clean
from mcpgate.stores.sqlite.borrowed import SqliteTables

T = TypeVar("T")
_COLUMNS = "id, kind, tenant, key, server, tool, provider, model, tags, partition, at, until"
_FIELDS = (*_COLUMNS.split(", "), "value")
_USED_S = 60.0
"""How exactly it is known when an entry was used."""
_MOST_AT_ONCE = 1000


class SqliteCache:
    """Implements cache.store.CacheStore. Opens the file when it is first used; reads in threads, writes in one of its
    own."""

    name, outlives = "SQLite", True

    def __init__(self, path: Path) -> None:
        self._tables = SqliteTables(path, lambda reason: CacheUnavailable(f"the store of the cache: {reason}"))

    async def get(self, id: str) -> Row | None:
        found = await self._tables.fetch(f"SELECT {_COLUMNS}, value, used FROM cache_entries WHERE id = ?", id)
        if not found:
            return None
        *columns, used = found[0]
        row, now = _row(columns), time.time()
        if not isinstance(used, float):
            raise Unreadable("the time of its last use is damaged")
        if now - used > _USED_S:
            await self._tables.write(lambda db: db.execute("UPDATE cache_entries SET used = ? WHERE id = ?", (now, id)))
        return row

    async def put(self, row: Row, epoch: int | None = None) -> None:
        values = (
            *(row.id, row.kind, clean(row.tenant), row.key, clean(row.server), clean(row.tool), row.provider),
            *(clean(row.model), json.dumps(row.tags), row.partition, row.at, row.until, row.at, row.size, row.value),
        )

        def work(db: sqlite3.Connection) -> None:
            if epoch is None or _epoch(db, row.server) == epoch:
                marks = ", ".join("?" * len(values))
                db.execute(
                    f"INSERT OR REPLACE INTO cache_entries ({_COLUMNS}, used, size, value) VALUES ({marks})", values
                )

        await self._tables.write(work)

    async def drop(self, which: Selection) -> int:
        condition, values = _condition(which)

        def work(db: sqlite3.Connection) -> int:
            db.execute(
                "INSERT INTO cache_epochs VALUES (?, 1) ON CONFLICT DO UPDATE SET epoch = epoch + 1",
                (clean(which.server),),
            )
            return db.execute(f"DELETE FROM cache_entries WHERE {condition}", values).rowcount

        return await self._tables.write(work)

    async def epoch(self, server: str = "") -> int:
        found = await self._tables.fetch("SELECT epoch FROM cache_epochs WHERE server = ?", clean(server))
        return int(found[0][0]) if found else 0

    async def page(self, which: Selection, after: str = "", limit: int = 200) -> Sequence[Row]:
        condition, values = _condition(which)
        statement = f"SELECT {_COLUMNS}, value FROM cache_entries WHERE id > ? AND {condition} ORDER BY id LIMIT ?"
        return _readable(await self._tables.fetch(statement, after, *values, limit))

    async def newer(self, partition: str, at: float, limit: int = 500) -> Sequence[Row]:
        statement = (
            f"SELECT {_COLUMNS}, value FROM cache_entries WHERE partition = ? AND partition <> '' AND at >= ?"
            " ORDER BY at, id LIMIT ?"
        )
        return _readable(await self._tables.fetch(statement, partition, at, limit))

    async def totals(self) -> Sequence[Total]:
        found = await self._tables.fetch(
            "SELECT kind, COUNT(*), SUM(size) FROM cache_entries GROUP BY kind ORDER BY kind"
        )
        return [Total(*columns) for columns in found]

    async def tidy(self, now: float, most_bytes: int) -> int:
        dropped = await self._tables.write(
            lambda db: db.execute("DELETE FROM cache_entries WHERE until <= ?", (now,)).rowcount
        )
        while True:
            ((size,),) = await self._tables.fetch("SELECT COALESCE(SUM(size), 0) FROM cache_entries")
            if size <= most_bytes:
                return dropped
            oldest = await self._tables.fetch("SELECT id, size FROM cache_entries ORDER BY used LIMIT ?", _MOST_AT_ONCE)
            ids = []
            for id, bytes in oldest:
                if size <= most_bytes:
                    break
                ids.append((id,))
                size -= bytes
            await self._tables.write(
                lambda db, ids=ids: db.executemany("DELETE FROM cache_entries WHERE id = ?", ids)  # type: ignore[misc]
            )
            dropped += len(ids)

    async def close(self) -> None:
        await self._tables.close()


def _epoch(db: sqlite3.Connection, server: str) -> int:
    found = db.execute("SELECT epoch FROM cache_epochs WHERE server = ?", (clean(server),)).fetchone()
    return int(found[0]) if found else 0


def _readable(found: Sequence[Any]) -> list[Row]:
    rows = []
    for columns in found:
        with contextlib.suppress(Unreadable):
            rows.append(_row(columns))
    return rows


def _row(columns: Sequence[Any]) -> Row:
    """Raises Unreadable: SQLite keeps anything in any column."""
    fields = dict(zip(_FIELDS, columns, strict=True))
    value, times = fields["value"], (fields["at"], fields["until"])
    if not isinstance(value, bytes) or not all(isinstance(at, float) for at in times):
        raise Unreadable("its columns are damaged")
    return Row(**{**fields, "tags": tags_of(fields["tags"])})


def _condition(which: Selection) -> tuple[str, list[Any]]:
    conditions: list[str] = ["1 = 1"]
    values: list[Any] = []
    for name in ("id", "key", "tenant", "server", "tool", "kind"):
        if value := getattr(which, name):
            conditions.append(f"{name} = ?")
            values.append(clean(value))
    if which.tag:
        conditions.append("EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?)")
        values.append(which.tag)
    if which.model:
        conditions.append("provider || '/' || model = ?")
        values.append(clean(which.model))
    if which.before is not None:
        conditions.append("at < ?")
        values.append(which.before)
    return " AND ".join(conditions), values
