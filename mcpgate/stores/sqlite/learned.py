"""Stores in SQLite what was learned about upstreams, so that it survives restarts."""

import sqlite3
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from mcpgate.stores.sqlite.file import log, migrate, open_file


class SqliteLearnedStore:
    """Implements catalog.learned.LearnedStore. What is lost is learned again, so errors of the file are logged and not
    raised. Thread-safe."""

    def __init__(self, path: Path | None) -> None:
        """`path` None keeps everything in memory."""
        self._lock = threading.Lock()
        self._db = self._open(path)

    def _open(self, path: Path | None) -> sqlite3.Connection:
        if path is not None:
            try:
                return open_file(path)
            except (OSError, sqlite3.Error) as error:
                log.warning("%s cannot be used (%s); what is learned will be lost at exit", path, error)
        db = sqlite3.connect(":memory:", check_same_thread=False)
        migrate(db)
        return db

    def load(self, kind: str) -> dict[str, bytes]:
        """Everything of a kind, by key."""
        with self._lock:
            try:
                return dict(self._db.execute("SELECT key, value FROM kept WHERE kind = ?", (kind,)))
            except sqlite3.Error as error:
                log.warning("cannot read what was learned: %s", error)
                return {}

    def save(self, kind: str, items: Iterable[tuple[str, bytes]]) -> None:
        """Store items, replacing earlier ones with the same key."""
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
                log.warning("cannot store what was learned: %s", error)

    def close(self) -> None:
        with self._lock:
            self._db.close()
