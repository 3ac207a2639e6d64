"""Opening an SQLite file, and bringing its tables up to date."""

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mcpgate.stores.sqlite.schema import MIGRATIONS

log = logging.getLogger("mcpgate.store")
_BUSY_S = 5.0
_TAKEN = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def open_file(path: Path) -> sqlite3.Connection:
    """A connection to the file, which is made and brought up to date if need be. Raises OSError, sqlite3.Error."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    give_up = time.monotonic() + _BUSY_S
    while True:
        try:
            return _open_file(path)
        except sqlite3.OperationalError as error:
            # SQLite does not wait by itself where several turn a new file to WAL at once.
            if error.sqlite_errorcode & 0xFF not in _TAKEN or time.monotonic() > give_up:
                raise
        time.sleep(0.02)


def _open_file(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
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
