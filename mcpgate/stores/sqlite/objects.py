"""What providers keep for accounts, in SQLite."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from mcpgate.llm.objects import MOST, Kept, Kind, ObjectsUnavailable, oldest_kept
from mcpgate.stores.sqlite.borrowed import SqliteTables

T = TypeVar("T")
_COLUMNS = "kind, id, account, provider, model, alias, key, at, about"
_SELECT = f"SELECT {_COLUMNS} FROM provider_objects WHERE account = ? AND kind = ? AND at > ?"


class SqliteObjects:
    """Implements llm.objects.Objects. Opens the file when it is first used; reads in threads, writes in one of its
    own."""

    def __init__(self, path: Path) -> None:
        self._tables = SqliteTables(
            path, lambda reason: ObjectsUnavailable(f"the store of what providers keep: {reason}")
        )

    async def put(self, kept: Kept) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute(
                f"INSERT INTO provider_objects ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET model = excluded.model, alias = excluded.alias, key = excluded.key,"
                " at = excluded.at, about = excluded.about WHERE account = excluded.account",
                kept,
            )

        await self._tables.write(work, durable=kept.kind != "response")

    async def find(self, account: str, kind: Kind, ids: Sequence[str]) -> list[Kept]:
        marks = ", ".join("?" * len(ids))
        # The signs keep SQLite from going through all that an account has.
        statement = (
            f"SELECT {_COLUMNS} FROM provider_objects WHERE kind = ? AND id IN ({marks}) AND +account = ? AND +at > ?"
            " ORDER BY at DESC, id DESC"
        )
        return _read(await self._tables.fetch(statement, kind, *ids, account, oldest_kept()))

    async def page(self, account: str, kind: Kind, after: str, most: int, oldest_first: bool = False) -> list[Kept]:
        sign, order = (">", "ASC") if oldest_first else ("<", "DESC")
        statement, values = _SELECT, [account, kind, oldest_kept()]
        if after:
            statement += (
                f" AND (at, id) {sign} (SELECT at, id FROM provider_objects WHERE account = ? AND kind = ? AND id = ?)"
            )
            values += [account, kind, after]
        statement += f" ORDER BY at {order}, id {order} LIMIT ?"
        return _read(await self._tables.fetch(statement, *values, most))

    async def forget(self, kept: Kept) -> None:
        await self._tables.write(
            lambda db: db.execute(
                "DELETE FROM provider_objects WHERE kind = ? AND id = ? AND account = ? AND provider = ?", kept[:4]
            )
        )

    async def tidy(self) -> None:
        oldest = oldest_kept()
        found = await self._tables.fetch("SELECT account, kind, MIN(at), COUNT(*) FROM provider_objects GROUP BY 1, 2")
        for account, kind, first, count in found:
            if first <= oldest or count > MOST[kind]:
                values = account, kind
                await self._tables.write(
                    lambda db, values=values: db.execute(  # type: ignore[misc]
                        "DELETE FROM provider_objects WHERE account = ? AND kind = ? AND (at <= ? OR (at, id) <= ("
                        "SELECT at, id FROM provider_objects WHERE account = ? AND kind = ?"
                        " ORDER BY at DESC, id DESC LIMIT 1 OFFSET ?))",
                        (*values, oldest, *values, MOST[values[1]]),
                    )
                )

    async def close(self) -> None:
        await self._tables.close()


def _read(rows: list[Any]) -> list[Kept]:
    return [Kept(*row) for row in rows]
