"""What the smaller stores in the SQLite file share: they open it when it is first used, read in threads, and write in a
thread of their own. That of governance: governance.py."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mcpgate.governance.store import StoreUnavailable
from mcpgate.stores.sqlite.file import open_file
from mcpgate.stores.sqlite.writer import Writer

T = TypeVar("T")


class SqliteTables:
    """Some tables of the file."""

    def __init__(self, path: Path, unavailable: Callable[[str], Exception] = StoreUnavailable) -> None:
        """`unavailable`: what is raised if the file cannot be used, made of the reason."""
        self._path, self._unavailable = path, unavailable
        self._reader: sqlite3.Connection | None = None
        self._reading = threading.Lock()
        self._writer: Writer | None = None

    async def fetch(self, statement: str, *values: Any) -> list[Any]:
        """The rows of a query."""

        def read() -> list[Any]:
            with self._reading:
                if self._reader is None:
                    self._reader = open_file(self._path)
                return self._reader.execute(statement, values).fetchall()

        try:
            return await asyncio.to_thread(read)
        except (OSError, sqlite3.Error) as error:
            raise self._unavailable(f"it cannot be read: {error}") from error

    async def write(self, work: Callable[[sqlite3.Connection], T], durable: bool = False) -> T:
        """Do work in a transaction: see writer.py."""
        if self._writer is None:
            self._writer = Writer(lambda: open_file(self._path))
        try:
            return await self._writer.run(work, durable)
        except StoreUnavailable as error:
            raise self._unavailable(f"it cannot be written: {error}") from error

    async def close(self) -> None:
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close)
        if self._reader is not None:
            self._reader.close()
