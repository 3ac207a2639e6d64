"""What requests say, in SQLite, with a full-text index."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from mcpgate.activity.contents import Kept
from mcpgate.stores.rows import clean
from mcpgate.stores.sqlite.borrowed import SqliteTables

_INSERT = "INSERT INTO request_contents (id, at, sent, answered) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_INDEX = "INSERT INTO content_words (rowid, sent, answered) VALUES (?, ?, ?)"
_FORGET = "INSERT INTO content_words (content_words, rowid, sent, answered) VALUES ('delete', ?, ?, ?)"
_OF_IDS = "id IN (SELECT value FROM json_each(?))"
_AT_ONCE = 100


class SqliteContents:
    """Implements activity.contents.ContentStore. Opens the file when it is first used."""

    def __init__(self, path: Path) -> None:
        self._tables = SqliteTables(path)

    async def write(self, contents: Sequence[Kept]) -> None:
        def work(db: sqlite3.Connection) -> None:
            for id, at, sent, answered in contents:
                texts = clean(sent), clean(answered)
                done = db.execute(_INSERT, (id, at, *texts))
                if done.rowcount:
                    db.execute(_INDEX, (done.lastrowid, *texts))

        await self._tables.write(work)

    async def read(self, ids: Sequence[str]) -> list[Kept]:
        statement = f"SELECT id, at, sent, answered FROM request_contents WHERE {_OF_IDS}"
        return [Kept(*row) for row in await self._tables.fetch(statement, json.dumps(list(ids)))]

    async def delete(self, ids: Sequence[str]) -> int:
        return await self._delete(_OF_IDS, json.dumps(list(ids)))

    async def prune(self, before: float) -> int:
        return await self._delete("at < ?", before)

    async def _delete(self, chosen: str, value: object) -> int:
        statement = f"SELECT number, sent, answered FROM request_contents WHERE {chosen} LIMIT {_AT_ONCE}"

        def work(db: sqlite3.Connection) -> int:
            found = db.execute(statement, (value,)).fetchall()
            db.executemany(_FORGET, found)
            db.executemany("DELETE FROM request_contents WHERE number = ?", [(number,) for number, *_ in found])
            return len(found)

        deleted = 0
        while some := await self._tables.write(work):
            deleted += some
        return deleted

    async def close(self) -> None:
        await self._tables.close()
