"""What mcpgate keeps over restarts, in one SQLite file: learned shapes, last known catalogs, and sums by day.

Losing it costs nothing but having to learn again, so trouble with the file is logged and lived with.
Several processes may share the file (WAL).
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

log = logging.getLogger("mcpgate.store")

MIGRATIONS: list[Callable[[sqlite3.Connection], object]] = [
    lambda db: db.execute(
        "CREATE TABLE kept (kind TEXT, key TEXT, value BLOB NOT NULL, at REAL NOT NULL, PRIMARY KEY (kind, key))"
        " WITHOUT ROWID"
    ),
    lambda db: db.execute(
        "CREATE TABLE tallies (day TEXT, name TEXT, amount INTEGER NOT NULL, PRIMARY KEY (day, name)) WITHOUT ROWID"
    ),
]
"""Forward only; the file's user_version is how many it has."""


class SqliteStore:
    """Implements catalog.memory.Keep and codemode.savings.Tallies. Thread-safe."""

    def __init__(self, path: Path | None) -> None:
        """`path` None keeps everything in memory."""
        self._lock = threading.Lock()
        self._db = self._open(path)

    def _open(self, path: Path | None) -> sqlite3.Connection:
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                db = sqlite3.connect(path, timeout=5, check_same_thread=False)
                try:
                    return _migrated(db)
                except sqlite3.Error:
                    db.close()
                    raise
            except (OSError, sqlite3.Error) as error:
                log.warning("%s cannot be used (%s); what is learned will be forgotten at the end", path, error)
        return _migrated(sqlite3.connect(":memory:", check_same_thread=False))

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

    def add(self, day: str, amounts: Iterable[tuple[str, int]]) -> None:
        """Add to a day's sums; several processes may."""
        with self._lock:
            try:
                with self._db:
                    self._db.executemany(
                        "INSERT INTO tallies VALUES (?, ?, ?)"
                        " ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
                        [(day, name, amount) for name, amount in amounts],
                    )
            except sqlite3.Error as error:
                log.warning("cannot keep what was counted: %s", error)

    def sums(self, since: str) -> dict[str, dict[str, int]]:
        """Day → name → sum, from a day (ISO) on."""
        found: dict[str, dict[str, int]] = {}
        with self._lock:
            for day, name, amount in self._db.execute("SELECT * FROM tallies WHERE day >= ?", (since,)):
                found.setdefault(day, {})[name] = amount
        return found

    def close(self) -> None:
        with self._lock:
            self._db.close()


def _migrated(db: sqlite3.Connection) -> sqlite3.Connection:
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    with db:
        db.execute("BEGIN IMMEDIATE")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise sqlite3.DatabaseError(f"the file is of a newer mcpgate (schema {version})")
        for migrate in MIGRATIONS[version:]:
            migrate(db)
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    return db
