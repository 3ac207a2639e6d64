"""Opens an SQLite file, which only its owner can read, and brings its tables up to date."""

import logging
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mcpgate.stores.sqlite.schema import MIGRATIONS

log = logging.getLogger("mcpgate.store")
_BUSY_S = 5.0
_EMPTY_S = 2.0
"""How long an empty file may be one that another process has just created."""
_LOOKED_AT: set[Path] = set()
"""Files whose permissions were checked."""
_TAKEN = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def open_file(path: Path) -> sqlite3.Connection:
    """A connection to the file, which is created or brought up to date if necessary. Raises OSError, sqlite3.Error."""
    _make_folder(path.parent)
    _make_file(path)
    give_up = time.monotonic() + _BUSY_S
    while True:
        try:
            return _open_file(path)
        except sqlite3.OperationalError as error:
            # SQLite does not wait by itself if several processes switch a new file to WAL at once.
            if error.sqlite_errorcode & 0xFF not in _TAKEN or time.monotonic() > give_up:
                raise
        time.sleep(0.02)


def _make_folder(path: Path) -> None:
    """With its parents. Folders that we create are private to the user."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True, mode=0o700)


def _make_file(path: Path) -> None:
    """Created here, because SQLite would use the umask; its other files get the same permissions as this one."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        _refuse_empty(path)
        _warn_of_readers(path)


def _refuse_empty(path: Path) -> None:
    """SQLite would take a file that was truncated to nothing for a new one: its keys and limits would silently be gone.
    Only the process that creates a file may fill it. Raises OSError."""
    give_up = time.monotonic() + _EMPTY_S
    while path.is_file() and path.stat().st_size == 0:
        if time.monotonic() > give_up:
            raise OSError("the file is empty, so what it held is lost: restore it, or delete it to start a new store")
        time.sleep(0.02)


def _warn_of_readers(path: Path) -> None:
    if path in _LOOKED_AT or sys.platform == "win32":
        return
    _LOOKED_AT.add(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        log.warning(
            "%s can be read by other users of this machine (mode %03o); it holds the ledger and the keys. "
            "Run: chmod 600 %s*",
            path,
            mode,
            path,
        )


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
    """Bring a file up to date; several processes may do this at once. Raises sqlite3.DatabaseError for a newer file."""
    if db.execute("PRAGMA user_version").fetchone() == (len(migrations),):
        return  # without a lock, because every reader does this
    isolation, db.isolation_level = db.isolation_level, None
    db.execute("BEGIN IMMEDIATE")
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise sqlite3.DatabaseError(f"the file was written by a newer mcpgate (schema {version})")
        for step in migrations[version:]:
            step(db)
        db.execute(f"PRAGMA user_version = {len(migrations)}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    finally:
        db.isolation_level = isolation
