"""The stores of governance in SQLite. Writes go through one thread (writer.py). Small reads run on the event loop, and
take microseconds; reports run in a thread."""

import asyncio
import json
import math
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mcpgate.governance.records import Balance, Claim, Entry, Refusal, Reservation
from mcpgate.governance.rule import fitted
from mcpgate.governance.store import AuditLine, Change, Query, Record, Settlement, StoreUnavailable
from mcpgate.stores import rows
from mcpgate.stores.sqlite.file import open_file
from mcpgate.stores.sqlite.writer import Writer

T = TypeVar("T")
_ROLLED_AT_ONCE = 10_000
"""Entries that one transaction adds to the sums; other writes wait for it."""


class SqliteDialect:
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
_STAND = "SELECT SUM(spent), SUM(held), MIN(cell) FILTER (WHERE spent OR held) FROM cells WHERE counter=? AND cell>=?"
_HOLD = "INSERT INTO cells VALUES (?, ?, 0, ?, ?) ON CONFLICT (counter, cell) DO UPDATE SET held = held + excluded.held"
_SPEND = (
    "INSERT INTO cells VALUES (?, ?, ?, 0, ?) ON CONFLICT (counter, cell) DO UPDATE SET spent = spent + excluded.spent"
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

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.close)
        self._reader.close()

    # --- Counters

    async def reserve(self, reservation: Reservation) -> tuple[Balance, ...] | Refusal:
        def work(db: sqlite3.Connection) -> tuple[Balance, ...] | Refusal:
            standings = [_standing(db, claim.counter, claim.oldest) for claim in reservation.claims]
            known = "SELECT 1 FROM reservations WHERE id = ? UNION ALL SELECT 1 FROM entries WHERE id = ?"
            if db.execute(known, (reservation.id, reservation.request)).fetchone():
                return tuple(standings)
            answer = fitted(reservation.claims, standings)
            if isinstance(answer, Refusal):
                return answer
            db.executemany(_HOLD, [(c.counter, c.cell, c.amount, rows.finite(c.ends_at)) for c in reservation.claims])
            db.execute("INSERT INTO reservations VALUES (?, ?, ?, ?)", (reservation.id, reservation.owner, held, entry))
            return answer

        held = json.dumps(
            [[c.counter, c.cell, c.amount, c.measure, rows.finite(c.ends_at)] for c in reservation.claims]
        )
        entry = None if reservation.abandoned is None else rows.entry_to_json(reservation.abandoned)
        # Reserved money is spent as soon as its request is sent, so the reservation must survive a power failure.
        return await self._writer.run(work, durable=entry is not None and reservation.holds_money)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        def work(db: sqlite3.Connection) -> None:
            for settlement in settlements:
                for id in settlement.holds:
                    _let_go(db, id)
                if not db.execute(_INSERT, rows.row_of(settlement.entry)).rowcount:
                    continue
                spent = [
                    (claim.counter, claim.cell, amount, rows.finite(claim.ends_at))
                    for claim, amount in zip(settlement.claims, settlement.amounts, strict=True)
                    if amount
                ]
                if spent:
                    db.executemany(_SPEND, spent)
                if (content := settlement.content) is not None:
                    texts = (rows.clean(content.arguments), rows.clean(content.result))
                    kept = (settlement.entry.id, settlement.entry.at, *texts)
                    db.execute("INSERT INTO contents VALUES (?, ?, ?, ?)", kept)

        await self._writer.run(work, durable=True)

    async def release(self, reservation: Reservation) -> None:
        await self._writer.run(lambda db: _let_go(db, reservation.id))

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
            for id, _ in found:
                claims = _let_go(db, id)
                if id.partition("/")[0] in written:
                    spent = [(counter, cell, amount, ends_at) for counter, cell, amount, measure, ends_at in claims
                             if amount and measure != "concurrency"]  # fmt: skip
                    db.executemany(_SPEND, spent)
            db.execute("DELETE FROM leases WHERE until <= ?", (now,))
            db.execute("DELETE FROM cells WHERE ends_at <= ? AND held = 0", (now,))
            return len(found)

        return await self._writer.run(work)

    async def read(self, counters: Sequence[tuple[str, int]]) -> list[Balance]:
        return self._read(lambda db: [_standing(db, name, oldest) for name, oldest in counters])

    async def adjust(self, claim: Claim, once: str | None = None) -> None:
        def work(db: sqlite3.Connection) -> None:
            name = f"adjusted {once}"
            if once is None or db.execute("INSERT INTO facts VALUES (?, 1) ON CONFLICT DO NOTHING", (name,)).rowcount:
                db.execute(_SPEND, (claim.counter, claim.cell, claim.amount, rows.finite(claim.ends_at)))

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
        statement = f"SELECT seq, {columns} FROM entries WHERE (at, seq) > (?, ?) ORDER BY at, seq LIMIT 5000"
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
            ids = f"SELECT seq FROM entries WHERE {chosen} LIMIT 10000"
            removed = db.execute(f"DELETE FROM entries WHERE seq IN ({ids})", (hour,)).rowcount
            db.execute("DELETE FROM contents WHERE at < ?", (hour,))
            db.execute("UPDATE facts SET value = MAX(value, ?) WHERE name = 'pruned'", (hour,))
            return removed

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


def _standing(db: sqlite3.Connection, counter: str, oldest: int) -> Balance:
    spent, held, first = db.execute(_STAND, (counter, oldest)).fetchone()
    return Balance(spent or 0, held or 0, first)


def _let_go(db: sqlite3.Connection, id: str) -> list[list[Any]]:
    """Returns the claims that were held. Files of every version have their first three parts."""
    found = db.execute("DELETE FROM reservations WHERE id = ? RETURNING claims", (id,)).fetchone()
    claims: list[list[Any]] = [] if found is None else json.loads(found[0])
    statement = "UPDATE cells SET held = held - ? WHERE counter = ? AND cell = ?"
    db.executemany(statement, [(amount, counter, cell) for counter, cell, amount, *_ in claims])
    return claims
