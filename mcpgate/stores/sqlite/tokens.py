"""Tokens of sign-ins to upstreams, in SQLite."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mcpgate.stores.sqlite.file import open_file
from mcpgate.upstream.tokens import TokensUnavailable

T = TypeVar("T")
_LIVE = "(until IS NULL OR until > ?)"


class SqliteTokens:
    """Implements upstream.tokens.Tokens. Opens the file when it is first used. Reads are made at once on the event
    loop, where they take microseconds; writes in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._writing = threading.Lock()

    async def get(self, key: str) -> bytes | None:
        found = self._read(f"SELECT value FROM tokens WHERE key = ? AND {_LIVE}", (key, time.time()))
        return found[0][0] if found else None

    async def put(self, key: str, value: bytes, for_s: float | None = None) -> None:
        now = time.time()

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM tokens WHERE until <= ?", (now,))
            db.execute(
                "INSERT INTO tokens VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET value = excluded.value, until = excluded.until",
                (key, value, None if for_s is None else now + for_s),
            )

        await self._write(work)

    async def take(self, key: str) -> bytes | None:
        def work(db: sqlite3.Connection) -> bytes | None:
            found = db.execute(f"SELECT value FROM tokens WHERE key = ? AND {_LIVE}", (key, time.time())).fetchone()
            db.execute("DELETE FROM tokens WHERE key = ?", (key,))
            return found[0] if found else None

        return await self._write(work)

    async def keys(self, prefix: str) -> list[str]:
        found = self._read(
            f"SELECT key FROM tokens WHERE substr(key, 1, ?) = ? AND {_LIVE} ORDER BY key",
            (len(prefix), prefix, time.time()),
        )
        return [key for (key,) in found]

    async def acquire(self, key: str, owner: str, for_s: float) -> bool:
        now = time.time()
        return await self._write(
            lambda db: (
                db.execute(
                    "INSERT INTO token_locks VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE"
                    " SET owner = excluded.owner, until = excluded.until"
                    " WHERE token_locks.until <= ? OR token_locks.owner = excluded.owner",
                    (key, owner, now + for_s, now),
                ).rowcount
                == 1
            )
        )

    async def release(self, key: str, owner: str) -> None:
        await self._write(lambda db: db.execute("DELETE FROM token_locks WHERE key = ? AND owner = ?", (key, owner)))

    async def close(self) -> None:
        for db in (self._reader, self._writer):
            if db is not None:
                db.close()

    def _read(self, statement: str, values: tuple[object, ...]) -> list[Any]:
        try:
            if self._reader is None:
                self._reader = open_file(self._path)
            return self._reader.execute(statement, values).fetchall()
        except (OSError, sqlite3.Error) as error:
            raise TokensUnavailable(f"the stored tokens cannot be read: {error}") from error

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def write() -> T:
            with self._writing:
                if self._writer is None:
                    self._writer = open_file(self._path)
                    self._writer.isolation_level = None
                    # A refresh token that is lost with the machine's power is a sign-in lost.
                    self._writer.execute("PRAGMA synchronous = FULL")
                    self._writer.execute("PRAGMA secure_delete = ON")
                db = self._writer
                db.execute("BEGIN IMMEDIATE")
                try:
                    result = work(db)
                    db.execute("COMMIT")
                    return result
                except BaseException:
                    db.execute("ROLLBACK")
                    raise

        try:
            return await asyncio.to_thread(write)
        except (OSError, sqlite3.Error) as error:
            raise TokensUnavailable(f"tokens cannot be stored: {error}") from error
