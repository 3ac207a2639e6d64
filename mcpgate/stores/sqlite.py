"""What mcpgate keeps over restarts, in one SQLite file. Here: the file itself, learned shapes and last known
catalogs. What governance keeps in it is in sqlite_books.py.

Several processes may share the file (WAL).
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mcpgate.stores.sqlite_schema import MIGRATIONS

log = logging.getLogger("mcpgate.store")


class SqliteStore:
    """Implements catalog.memory.Keep. Losing it costs nothing but having to learn again, so trouble with the file is
    logged and lived with. Thread-safe."""

    def __init__(self, path: Path | None) -> None:
        """`path` None keeps everything in memory."""
        self._lock = threading.Lock()
        self._db = self._open(path)

    def _open(self, path: Path | None) -> sqlite3.Connection:
        if path is not None:
            try:
                return open_file(path)
            except (OSError, sqlite3.Error) as error:
                log.warning("%s cannot be used (%s); what is learned will be forgotten at the end", path, error)
        db = sqlite3.connect(":memory:", check_same_thread=False)
        migrate(db)
        return db

    def load(self, kind: str) -> dict[str, bytes]:
        """Everything of a kind, by key."""
        with self._lock:
            try:
                return dict(self._db.execute("SELECT key, value FROM kept WHERE kind = ?", (kind,)))
            except sqlite3.Error as error:
                log.warning("cannot read what was kept: %s", error)
                return {}

    def save(self, kind: str, items: Iterable[tuple[str, bytes]]) -> None:
        """Put items in place of earlier ones with the same key."""
        with self._lock:
            try:
                now = time.time()
                with self._db:
                    self._db.executemany(
                        "INSERT INTO kept VALUES (?, ?, ?, ?)"
                        " ON CONFLICT DO UPDATE SET value = excluded.value, at = excluded.at",
                        [(kind, key, value, now) for key, value in items],
                    )
            except sqlite3.Error as error:
                log.warning("cannot keep what was learned: %s", error)

    def close(self) -> None:
        with self._lock:
            self._db.close()


def open_file(path: Path) -> sqlite3.Connection:
    """A connection to the file, which is made and brought up to date if need be. Raises OSError, sqlite3.Error."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    db = sqlite3.connect(path, timeout=5, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        migrate(db)
        return db
    except BaseException:
        db.close()
        raise


def migrate(db: sqlite3.Connection, migrations: Sequence[Callable[[sqlite3.Connection], None]] = MIGRATIONS) -> None:
    """Bring a file up to date; several processes may try at once. Raises sqlite3.DatabaseError for a newer file."""
    if db.execute("PRAGMA user_version").fetchone() == (len(migrations),):
        return  # without a lock, for every reader comes through here
    isolation, db.isolation_level = db.isolation_level, None
    db.execute("BEGIN IMMEDIATE")
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise sqlite3.DatabaseError(f"the file is of a newer mcpgate (schema {version})")
        for step in migrations[version:]:
            step(db)
        db.execute(f"PRAGMA user_version = {len(migrations)}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    finally:
        db.isolation_level = isolation
