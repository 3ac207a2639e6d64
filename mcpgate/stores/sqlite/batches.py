"""Batches, in SQLite."""

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcpgate.governance.store import StoreUnavailable
from mcpgate.llm.batches import BatchesUnavailable
from mcpgate.stores.batches import SqlBatches
from mcpgate.stores.sqlite.file import migrate, open_file
from mcpgate.stores.sqlite.writer import Writer


class SqliteBatches(SqlBatches):
    """Opens the file when it is first used; reads in threads, writes in one of its own. Without a file, it keeps all in
    memory."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._reader: sqlite3.Connection | None = None
        self._reading = threading.Lock()
        self._writer: Writer | None = None

    async def _read(self, statement: str, *values: object) -> list[Any]:
        if self._path is None:  # memory has one connection
            return await self._write(statement, *values)
        path = self._path

        def read() -> list[Any]:
            with self._reading:
                if self._reader is None:
                    self._reader = open_file(path)
                return self._reader.execute(statement, _named(values)).fetchall()

        try:
            return await asyncio.to_thread(read)
        except (OSError, sqlite3.Error) as error:
            raise _unavailable(error) from error

    async def _write(self, statement: str, *values: object, durable: bool = False) -> list[Any]:
        try:
            return await self._thread().run(lambda db: db.execute(statement, _named(values)).fetchall(), durable)
        except StoreUnavailable as error:
            raise _unavailable(error) from error

    async def _write_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        named = [_named(row) for row in rows]
        try:
            await self._thread().run(lambda db: db.executemany(statement, named), durable=True)
        except StoreUnavailable as error:
            raise _unavailable(error) from error

    async def close(self) -> None:
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close)
        if self._reader is not None:
            self._reader.close()

    def _thread(self) -> Writer:
        if self._writer is None:
            self._writer = Writer(self._open)
        return self._writer

    def _open(self) -> sqlite3.Connection:
        if self._path is not None:
            return open_file(self._path)
        db = sqlite3.connect(":memory:", check_same_thread=False)
        migrate(db)
        return db


def _named(values: Sequence[object]) -> dict[str, object]:
    """For the names `$1`, `$2` … in a statement."""
    return {str(number): value for number, value in enumerate(values, 1)}


def _unavailable(error: Exception) -> BatchesUnavailable:
    return BatchesUnavailable(f"the store of batches is unavailable: {error}")
