"""The stores of governance in SQLite. Writes go through one thread (writer.py). Small reads run on the event loop, and
take microseconds; reports run in a thread."""

import asyncio
import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson

from mcpgate.governance.gather import Gather
from mcpgate.governance.records import Balance, Claim, Entry, Refusal, Reservation
from mcpgate.governance.rule import fitted
from mcpgate.governance.store import AuditLine, Change, Query, Record, Settlement, StoreUnavailable
from mcpgate.stores import rows
from mcpgate.stores.request_rows import FINDABLE
from mcpgate.stores.sqlite.file import open_file
from mcpgate.stores.sqlite.requests import forget
from mcpgate.stores.sqlite.writer import Writer

T = TypeVar("T")
_ROLLED_AT_ONCE = 10_000
"""Entries that one transaction adds to the sums; other writes wait for it."""
_PRUNED_AT_ONCE = 1000


class SqliteDialect:
    counted = "(outcome = 'ok' OR json_extract(facts, '$.refused') IS NULL)"
    fresh = "seq > (SELECT value FROM facts WHERE name = 'rolled')"

    def start(self, span_s: int) -> str:
        return f"CAST(at AS INTEGER) - CAST(at AS INTEGER) % {span_s}"

    def digest(self, columns: str) -> str:
        return ""

    def parameter(self, number: int) -> str:
        return f"?{number}"

    def name_of(self, name: str) -> str:
        return f"json_extract(metadata, '$.\"' || {name} || '\"')"

    def some_of(self, names: Sequence[str]) -> str:
        if not names:
            return "'{}'"
        pairs = ", ".join(f"'{name}', json_extract(metadata, '$.\"{name}\"')" for name in sorted(names))
        return f"json_patch('{{}}', json_object({pairs}))"  # which removes nulls

    def bucket(self, bucket: str, at: str) -> str:
        form = {"hour": "%Y-%m-%dT%H:00Z", "day": "%Y-%m-%d", "month": "%Y-%m"}[bucket]
        return f"strftime('{form}', CAST({at} AS INTEGER), 'unixepoch')"


_DIALECT = SqliteDialect()
_INSERT = (
    f"INSERT INTO entries ({rows.quoted(rows.COLUMNS)}) VALUES ({', '.join('?' * len(rows.COLUMNS))})"
    " ON CONFLICT (id) DO NOTHING"
)
_KNOWN = (
    "SELECT made.id FROM json_each(?1) AS asked CROSS JOIN reservations AS made ON made.id = asked.value"
    " UNION ALL SELECT written.id FROM json_each(?2) AS asked CROSS JOIN entries AS written ON written.id = asked.value"
)
_BALANCE = "SELECT SUM(spent), SUM(held), MIN(cell) FILTER (WHERE spent OR held) FROM cells WHERE counter=? AND cell>=?"
_CHANGE = (
    "INSERT INTO cells (counter, cell, ends_at, spent, held) VALUES (?, ?, ?, {spent}, {held})"
    " ON CONFLICT (counter, cell) DO UPDATE SET spent = spent + excluded.spent, held = held + excluded.held"
)
_HOLD = _CHANGE.format(spent="0", held="?")
_SPEND = _CHANGE.format(spent="?", held="0")
_LET_GO = "UPDATE cells SET held = held - ?3 WHERE counter = ?1 AND cell = ?2"
_CLAIMS = (
    "SELECT made.id, made.claims FROM json_each(?) AS asked CROSS JOIN reservations AS made ON made.id = asked.value"
)


class SqliteStore:
    """Implements Counters, Records and Ledger."""

    name = "sqlite"

    def __init__(self, path: Path, report_metadata: Sequence[str] = ()) -> None:
        """Raises StoreUnavailable if the file cannot be used."""
        self._path, self._report_metadata = path, tuple(report_metadata)
        try:
            self._reader = open_file(path)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(f"{path}: {error}") from error
        self._writer = Writer(lambda: open_file(path))
        self._reserve_next = Gather(self._reserve_all)

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.close)
        self._reader.close()

    # --- Counters

    async def reserve(self, reservation: Reservation) -> tuple[Balance, ...] | Refusal:
        return await self._reserve_next(reservation)

    async def _reserve_all(self, reservations: Sequence[Reservation]) -> list[tuple[Balance, ...] | Refusal]:
        flush = any(one.flush and one.holds_money for one in reservations)
        return await self._writer.run(lambda db: _reserve(db, reservations), flush)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        await self._writer.run(lambda db: _settle(db, settlements), durable=True)

    async def release(self, reservation: Reservation) -> None:
        await self._writer.run(lambda db: _let_go(db, [reservation.id]) and None)

    async def renew(self, owner: str, until: float) -> None:
        statement = "INSERT INTO leases VALUES (?, ?) ON CONFLICT DO UPDATE SET until = excluded.until"
        await self._writer.run(lambda db: db.execute(statement, (owner, until)) and None)

    async def expire(self, now: float) -> int:
        def work(db: sqlite3.Connection) -> int:
            gone = "owner NOT IN (SELECT owner FROM leases WHERE until > ?)"
            statement = f"SELECT id, abandoned FROM reservations WHERE {gone} ORDER BY id DESC"
            found = db.execute(statement, (now,)).fetchall()
            written: set[str] = set()
            for _, text in found:
                if text is not None:
                    entry = rows.entry_from_json(text)
                    if db.execute(_INSERT, rows.row_of(entry)).rowcount:
                        written.add(entry.id)
            spent: dict[tuple[Any, ...], int] = defaultdict(int)
            for id, claims in _let_go(db, [id for id, _ in found]):
                if id.partition("/")[0] in written:
                    for counter, cell, amount, measure, ends_at in claims:
                        spent[counter, cell, ends_at] += amount if measure != "concurrency" else 0
            _change(db, _SPEND, spent)
            db.execute("DELETE FROM leases WHERE until <= ?", (now,))
            db.execute("DELETE FROM cells WHERE ends_at <= ? AND held = 0", (now,))
            return len(found)

        return await self._writer.run(work)

    async def read(self, counters: Sequence[tuple[str, int]]) -> list[Balance]:
        return self._read(lambda db: [_balance(db, name, oldest) for name, oldest in counters])

    async def adjust(self, claim: Claim, once: str | None = None) -> None:
        def work(db: sqlite3.Connection) -> None:
            name = f"adjusted {once}"
            if once is None or db.execute("INSERT INTO facts VALUES (?, 1) ON CONFLICT DO NOTHING", (name,)).rowcount:
                db.execute(_SPEND, (claim.counter, claim.cell, rows.finite(claim.ends_at), claim.amount))

        await self._writer.run(work, durable=True)

    async def reset(self, counter: str) -> None:
        statement = "UPDATE cells SET spent = 0 WHERE counter = ?"
        await self._writer.run(lambda db: db.execute(statement, (counter,)) and None, durable=True)

    async def names(self, prefix: str, limit: int) -> list[str]:
        statement = "SELECT DISTINCT counter FROM cells WHERE counter >= ? AND counter < ? ORDER BY counter LIMIT ?"
        found = self._read(lambda db: db.execute(statement, (prefix, prefix + "\U0010ffff", limit)).fetchall())
        return [name for (name,) in found]

    async def restore(self, amounts: Iterable[tuple[Claim, int]]) -> None:
        pass  # counters and ledger are lost together

    # --- Records

    async def find_key(self, digest: str) -> tuple[Record | None, int]:
        def work(db: sqlite3.Connection) -> tuple[Record | None, int]:
            found = db.execute(
                "SELECT records.id, records.value FROM digests"
                " JOIN records ON records.kind = 'key' AND records.id = digests.id WHERE digest = ?",
                (digest,),
            ).fetchone()
            (version,) = db.execute("SELECT value FROM facts WHERE name = 'version'").fetchone()
            return (None if found is None else Record("key", found[0], json.loads(found[1]))), version

        return self._read(work)

    async def get_record(self, kind: str, id: str) -> Record | None:
        statement = "SELECT value FROM records WHERE kind = ? AND id = ?"
        found = self._read(lambda db: db.execute(statement, (kind, id)).fetchone())
        return None if found is None else Record(kind, id, json.loads(found[0]))

    async def list_records(self, kind: str, after: str = "", limit: int = 1000) -> list[Record]:
        statement = "SELECT id, value FROM records WHERE kind = ? AND id > ? ORDER BY id LIMIT ?"
        found = await self._report(lambda db: db.execute(statement, (kind, after, limit)).fetchall())
        return [Record(kind, id, json.loads(value)) for id, value in found]

    async def change(self, change: Change) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            value = None if change.value is None else json.dumps(change.value)
            place = (change.kind, change.id)
            known = db.execute("SELECT value FROM records WHERE kind = ? AND id = ?", place).fetchone()
            if change.only_new and known is not None:
                return False
            if change.replaces is not None and (known is None or json.loads(known[0]) != change.replaces):
                return False
            namesake = (
                "SELECT 1 FROM records WHERE kind = 'key' AND id <> ?1 AND json_extract(value, '$.revoked_at') IS NULL"
                " AND (id = ?2 OR json_extract(value, '$.spec.name') = ?2)"
            )
            if change.unique_name and db.execute(namesake, (change.id, change.unique_name)).fetchone():
                return False
            if change.action != "reset":
                if value is None:
                    db.execute("DELETE FROM records WHERE kind = ? AND id = ?", place)
                else:
                    statement = "INSERT INTO records VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
                    db.execute(statement, (*place, value))
                if change.kind == "key":
                    db.execute("DELETE FROM digests WHERE id = ?", (change.id,))
                    digests = [(digest, change.id) for digest, _ in change.digests]
                    db.executemany("INSERT INTO digests VALUES (?, ?)", digests)
                else:
                    db.execute("UPDATE facts SET value = value + 1 WHERE name = 'version'")
            line = (change.at, change.actor, change.action, *place, value)
            db.execute("INSERT INTO audit (at, actor, action, kind, id, value) VALUES (?, ?, ?, ?, ?, ?)", line)
            return True

        return await self._writer.run(work, durable=True)

    async def list_audit(self, limit: int = 100, before: int | None = None) -> list[tuple[int, AuditLine]]:
        statement = "SELECT * FROM audit WHERE number < ? ORDER BY number DESC LIMIT ?"
        found = self._read(lambda db: db.execute(statement, (before or 2**62, limit)).fetchall())
        return [
            (number, AuditLine(at, actor, action, kind, id, None if value is None else json.loads(value)))
            for number, at, actor, action, kind, id, value in found
        ]

    # --- Ledger

    async def report(self, query: Query) -> list[dict[str, Any]]:
        def work(db: sqlite3.Connection) -> list[Any]:
            (pruned,) = db.execute("SELECT value FROM facts WHERE name = 'pruned'").fetchone()
            statement, values = rows.report_statement(_DIALECT, query, self._report_metadata, pruned)
            return db.execute(statement, values).fetchall()

        return rows.report_rows(query, await self._report(work))

    async def list_entries(self, query: Query, limit: int = 100, before: int | None = None) -> list[tuple[int, Entry]]:
        statement, values = rows.entries_statement(_DIALECT, query, limit, before)
        found = await self._report(lambda db: db.execute(statement, values).fetchall())
        return [(seq, rows.entry_of(row)) for seq, *row in found]

    async def entries(self, since: float) -> AsyncIterator[Entry]:
        columns = rows.quoted(rows.COLUMNS)
        chosen = f"{_DIALECT.counted} AND (at, seq) > (?, ?)"
        statement = f"SELECT seq, {columns} FROM entries WHERE {chosen} ORDER BY at, seq LIMIT 5000"
        last: tuple[float, int] = (since, -1)
        while True:
            found = await self._report(lambda db, last=last: db.execute(statement, last).fetchall())  # type: ignore[misc]
            if not found:
                return
            for seq, *row in found:
                entry = rows.entry_of(row)
                last = (entry.at, seq)
                yield entry

    async def find_settled(self, ids: Sequence[str]) -> dict[str, Entry]:
        statement = f"SELECT {rows.quoted(rows.COLUMNS)} FROM entries WHERE id IN (SELECT value FROM json_each(?))"
        found = self._read(lambda db: db.execute(statement, (json.dumps(list(ids)),)).fetchall())
        return {row[0]: rows.entry_of(row) for row in found}

    async def roll_up(self) -> int:
        statements = [
            rows.roll_up_statement(_DIALECT, span_s, "seq > ?1 AND seq <= ?2", self._report_metadata)
            for span_s in (rows.HOUR_S, rows.DAY_S)
        ]

        def work(db: sqlite3.Connection) -> int:
            (rolled,) = db.execute("SELECT value FROM facts WHERE name = 'rolled'").fetchone()
            (last,) = db.execute("SELECT COALESCE(MAX(seq), 0) FROM entries").fetchone()
            upto = min(last, rolled + _ROLLED_AT_ONCE)
            if upto <= rolled:
                return 0
            for statement in statements:
                db.execute(statement, (rolled, upto))
            db.execute("UPDATE facts SET value = ? WHERE name = 'rolled'", (upto,))
            return int(upto - rolled)

        added = 0
        while some := await self._writer.run(work):
            added += some
        return added

    async def prune(self, before: float) -> int:
        hour = math.floor(before / rows.HOUR_S) * rows.HOUR_S
        chosen = "at < ? AND seq <= (SELECT value FROM facts WHERE name = 'rolled')"

        def work(db: sqlite3.Connection) -> int:
            found = db.execute(f"{FINDABLE} WHERE {chosen} LIMIT {_PRUNED_AT_ONCE}", (hour,)).fetchall()
            forget(db, found)
            db.executemany("DELETE FROM entries WHERE seq = ?", [(seq,) for seq, *_ in found])
            db.execute("DELETE FROM contents WHERE at < ?", (hour,))
            db.execute("UPDATE facts SET value = MAX(value, ?) WHERE name = 'pruned'", (hour,))
            return len(found)

        removed = 0
        while some := await self._writer.run(work):
            removed += some
        return removed

    # --- reading

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._reader)
        except sqlite3.Error as error:
            raise StoreUnavailable(str(error)) from error

    async def _report(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query that may take long, on its own connection."""

        def read() -> T:
            db = open_file(self._path)
            try:
                return work(db)
            finally:
                db.close()

        try:
            return await asyncio.to_thread(read)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(str(error)) from error


# --- in one transaction, each statement for all requests of a batch where possible


def _reserve(db: sqlite3.Connection, reservations: Sequence[Reservation]) -> list[tuple[Balance, ...] | Refusal]:
    ids, requests = [one.id for one in reservations], [one.request for one in reservations]
    known = {id for (id,) in db.execute(_KNOWN, (_json(ids), _json(requests)))}
    balances: dict[str, dict[int, Balance]] = {}
    """Counter → oldest cell → the balance from there on, including this batch."""
    for counter, oldest in {(claim.counter, claim.oldest) for one in reservations for claim in one.claims}:
        balances.setdefault(counter, {})[oldest] = _balance(db, counter, oldest)
    held: dict[tuple[Any, ...], int] = defaultdict(int)
    made = []
    answers: list[tuple[Balance, ...] | Refusal] = []
    for one in reservations:
        now = tuple([balances[claim.counter][claim.oldest] for claim in one.claims])
        is_known = one.id in known or one.request in known
        answer = now if is_known else fitted(one.claims, now)
        answers.append(answer)
        if is_known or isinstance(answer, Refusal):
            continue
        known.add(one.id)
        for claim in one.claims:
            held[claim.counter, claim.cell, rows.finite(claim.ends_at)] += claim.amount
            of_counter = balances[claim.counter]
            for oldest, balance in of_counter.items():
                of_counter[oldest] = _with(balance, claim, oldest)
        claims = [(c.counter, c.cell, c.amount, c.measure, rows.finite(c.ends_at)) for c in one.claims]
        made.append((one.id, one.owner, _json(claims), one.abandoned and rows.entry_to_json(one.abandoned)))
    _change(db, _HOLD, held)
    db.executemany("INSERT INTO reservations VALUES (?, ?, ?, ?)", made)
    return answers


def _with(balance: Balance, claim: Claim, oldest: int) -> Balance:
    """A balance after a claim was reserved."""
    if claim.cell < oldest or not claim.amount:
        return balance
    first = claim.cell if balance.first is None else min(balance.first, claim.cell)
    return Balance(balance.spent, balance.held + claim.amount, first)


def _settle(db: sqlite3.Connection, settlements: Sequence[Settlement]) -> None:
    _let_go(db, [id for settlement in settlements for id in settlement.holds])
    spent: dict[tuple[Any, ...], int] = defaultdict(int)
    for settlement in settlements:
        entry = settlement.entry
        if not db.execute(_INSERT, rows.row_of(entry)).rowcount:
            continue
        for claim, amount in zip(settlement.claims, settlement.amounts, strict=True):
            spent[claim.counter, claim.cell, rows.finite(claim.ends_at)] += amount
    _change(db, _SPEND, spent)


def _let_go(db: sqlite3.Connection, ids: Sequence[str]) -> list[tuple[str, list[list[Any]]]]:
    """End reservations. Returns the claims of each; files of every version have their first three parts."""
    if not ids:
        return []
    found = dict(db.execute(_CLAIMS, (_json(ids),)).fetchall())
    db.executemany("DELETE FROM reservations WHERE id = ?", [(id,) for id in found])
    ended = [(id, orjson.loads(claims)) for id, claims in found.items()]
    held: dict[tuple[Any, ...], int] = defaultdict(int)
    for _, claims in ended:
        for counter, cell, amount, *_ in claims:
            held[counter, cell] += amount
    _change(db, _LET_GO, held)
    return ended


def _change(db: sqlite3.Connection, statement: str, amounts: Mapping[tuple[Any, ...], int]) -> None:
    """Change each cell once. `amounts`: the statement's first parameters → its last one."""
    db.executemany(statement, [(*cell, amount) for cell, amount in amounts.items() if amount])


def _balance(db: sqlite3.Connection, counter: str, oldest: int) -> Balance:
    spent, held, first = db.execute(_BALANCE, (counter, oldest)).fetchone()
    return Balance(spent or 0, held or 0, first)


def _json(values: Sequence[Any]) -> str:
    return orjson.dumps(values).decode()
