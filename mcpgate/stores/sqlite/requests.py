"""The request log in SQLite. A full-text index without texts (FTS5) holds the terms of entries: of each term it keeps
the numbers of its entries in order, so the newest that have several terms are found without a look at others."""

import asyncio
import re
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mcpgate.activity.requests import NEWEST, Totals, Wanted, terms_of_wanted
from mcpgate.governance.records import Entry
from mcpgate.governance.store import StoreUnavailable
from mcpgate.stores import request_rows
from mcpgate.stores.request_rows import FINDABLE, SELECT, Conditions, entries_of, terms_of_rows, terms_text, to_json
from mcpgate.stores.sqlite.file import open_file
from mcpgate.stores.sqlite.writer import Writer

T = TypeVar("T")
_AT_ONCE = 500
"""Entries that one transaction adds to the index; other writes wait for it."""
_INDEXED = "SELECT value FROM facts WHERE name = 'indexed'"
_ADD = "INSERT INTO entry_terms (rowid, terms) VALUES (?, ?)"
_REMOVE = "INSERT INTO entry_terms (entry_terms, rowid, terms) VALUES ('delete', ?, ?)"


class _SqliteFacts:
    def parameter(self, number: int) -> str:
        return f"?{number}"

    def part_of(self, column: str, name: str) -> str:
        return f"COALESCE(json_extract({column}, '$.\"' || {name} || '\"'), '')"


FACTS = _SqliteFacts()


class SqliteRequests:
    """Implements activity.requests.Requests. Opens the file when it is first used; reads in threads, writes in one of
    its own."""

    in_order = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: sqlite3.Connection | None = None
        self._reading = threading.Lock()
        self._writer: Writer | None = None

    async def scan(self, wanted: Wanted, before: int, most: int) -> tuple[list[tuple[int, Entry]], int | None]:
        def work(db: sqlite3.Connection) -> tuple[list[Any], int | None]:
            low, high = _bounds(db, wanted, before)
            numbers = _candidates(db, wanted, low, high, most)
            conditions = Conditions(FACTS)
            chosen = f"seq IN (SELECT value FROM json_each({conditions.value(to_json(numbers))}))"
            chosen += f" AND {conditions.of(wanted)}"
            found = db.execute(f"{SELECT} WHERE {chosen} ORDER BY seq DESC", conditions.values).fetchall()
            return found, numbers[-1] if len(numbers) == most else None

        found, rest = await self._read(work)
        return entries_of(found), rest

    async def after(self, wanted: Wanted, number: int, skip: Sequence[int], most: int) -> list[tuple[int, Entry]]:
        conditions = Conditions(FACTS)
        chosen = f"seq > {conditions.value(number)} AND {conditions.of(wanted)}"
        if skip:
            chosen += f" AND seq NOT IN (SELECT value FROM json_each({conditions.value(to_json(skip))}))"
        statement = f"{SELECT} WHERE {chosen} ORDER BY seq LIMIT {int(most)}"
        return entries_of(await self._read(lambda db: db.execute(statement, conditions.values).fetchall()))

    async def newest(self) -> int:
        (newest,) = await self._read(lambda db: db.execute("SELECT COALESCE(MAX(seq), 0) FROM entries").fetchone())
        return int(newest)

    async def find(self, id: str) -> Entry | None:
        found = await self._read(lambda db: db.execute(f"{SELECT} WHERE id = ?", (id,)).fetchall())
        return entries_of(found)[0][1] if found else None

    async def children(self, ids: Sequence[str], most: int) -> list[Entry]:
        statement = f"{SELECT} WHERE {_OF_PARENTS} ORDER BY at, seq LIMIT ?"
        found = await self._read(lambda db: db.execute(statement, (to_json(ids), most)).fetchall())
        return [entry for _, entry in entries_of(found)]

    async def totals(self, ids: Sequence[str]) -> Mapping[str, Totals]:
        statement = request_rows.totals_statement(FACTS, _OF_PARENTS)
        return request_rows.totals_of(await self._read(lambda db: db.execute(statement, (to_json(ids),)).fetchall()))

    async def index(self) -> int:
        def read(db: sqlite3.Connection) -> tuple[int, list[Any]]:
            (indexed,) = db.execute(_INDEXED).fetchone()
            return indexed, db.execute(f"{FINDABLE} WHERE seq > ? ORDER BY seq LIMIT {_AT_ONCE}", (indexed,)).fetchall()

        indexed, found = await self._read(read)
        if not found:
            return 0
        lines = await asyncio.to_thread(_lines, found)

        def work(db: sqlite3.Connection) -> int:
            if db.execute(_INDEXED).fetchone() != (indexed,):
                return 0  # another process has added them
            db.executemany(_ADD, lines)
            db.execute("UPDATE facts SET value = ? WHERE name = 'indexed'", (lines[-1][0],))
            return len(lines)

        return await self._write(work)

    async def close(self) -> None:
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close)
        if self._reader is not None:
            self._reader.close()

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def read() -> T:
            with self._reading:
                if self._reader is None:
                    self._reader = open_file(self._path)
                return work(self._reader)

        try:
            return await asyncio.to_thread(read)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(str(error)) from error

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._writer is None:
            self._writer = Writer(lambda: open_file(self._path))
        return await self._writer.run(work)


def forget(db: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
    """Take rows of `FINDABLE` out of the index, which needs to be told the same terms again."""
    (indexed,) = db.execute(_INDEXED).fetchone()
    db.executemany(_REMOVE, _lines([row for row in rows if row[0] <= indexed]))


def _lines(rows: Sequence[Sequence[Any]]) -> list[tuple[int, str]]:
    return [(seq, terms_text(terms)) for seq, terms in terms_of_rows(rows)]


_OF_PARENTS = "parent_id IN (SELECT value FROM json_each(?)) AND parent_id <> ''"
"""The last part lets SQLite use the index, which has only entries with a parent."""


_SAYING = (
    "SELECT id FROM request_contents WHERE number IN (SELECT rowid FROM content_words WHERE content_words MATCH ?1"
    f" ORDER BY rowid DESC LIMIT {request_rows.MOST_SAYING})"
)


def fts_query(text: str) -> str:
    """A query for all words of a text, none of which is taken for an operator, and each of which is one of the
    index: it knows no phrases."""
    return " ".join(f'"{word}"' for word in re.findall(r"[^\W_]+", text)) or '""'


def _bounds(db: sqlite3.Connection, wanted: Wanted, before: int) -> tuple[int, int]:
    """Numbers between which all entries of a span of time are."""
    low, high, day_s = 0, before, request_rows.DAY_S
    if wanted.since is not None:
        statement = "SELECT seq FROM entries WHERE at <= ? ORDER BY at DESC LIMIT 1"
        found = db.execute(statement, (wanted.since - day_s,)).fetchone()
        low = low if found is None else found[0]
    if wanted.until is not None:
        statement = "SELECT seq FROM entries WHERE at >= ? ORDER BY at LIMIT 1"
        found = db.execute(statement, (wanted.until + day_s,)).fetchone()
        high = high if found is None else min(high, found[0])
        if before == NEWEST:  # later pages and steps are below it
            high = min(high, _last_before(db, wanted.until) + 1)
    return low, high


def _last_before(db: sqlite3.Connection, until: float) -> int:
    """The largest number of an entry from before a time, from the index of times alone: else a day's entries after it
    would be looked at one by one. Whatever was admitted more than two days before was written before anything that was
    admitted within one."""
    statement = "SELECT MAX(seq), MAX(at) FROM entries WHERE at >= ? AND at < ?"
    last, at = db.execute(statement, (until - 2 * request_rows.DAY_S, until)).fetchone()
    return NEWEST if last is None or at < until - request_rows.DAY_S else int(last)


def _candidates(db: sqlite3.Connection, wanted: Wanted, low: int, high: int, most: int) -> list[int]:
    """The numbers of the newest entries between two that may be wanted: those with the terms, and those that are not
    in the index yet."""
    if wanted.text:
        statement = request_rows.with_text(_SAYING, wanted.nested)
        values = (fts_query(wanted.text), low, high, most)
        return [seq for (seq,) in db.execute(statement, values)]
    parents = [value for name, value in wanted.where if name == "parent" and value]
    if parents:
        statement = f"SELECT seq FROM entries WHERE {_OF_PARENTS} AND seq > ? AND seq < ? ORDER BY seq DESC LIMIT ?"
        return [seq for (seq,) in db.execute(statement, (to_json(parents[:1]), low, high, most))]
    terms = terms_of_wanted(wanted)
    (indexed,) = db.execute(_INDEXED).fetchone()
    fresh = "SELECT seq FROM entries WHERE seq > ? AND seq < ? ORDER BY seq DESC LIMIT ?"
    numbers = [seq for (seq,) in db.execute(fresh, (max(low, indexed) if terms else low, high, most))]
    if not terms or len(numbers) == most:
        return numbers
    match = " AND ".join(f'"{one:x}"' for one in terms)
    known = "entry_terms MATCH ? AND rowid > ? AND rowid < ? ORDER BY rowid DESC LIMIT ?"
    values = (match, low, min(high, indexed + 1), most - len(numbers))
    return numbers + [seq for (seq,) in db.execute(f"SELECT rowid FROM entry_terms WHERE {known}", values)]
