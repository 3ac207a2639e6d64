"""The stores of governance in PostgreSQL: durable, for many machines. Each atomic step is one function of the database,
and so one round trip."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import asyncpg

from mcpgate.governance.gather import Gather
from mcpgate.governance.records import Balance, Claim, Entry, Refusal, Reservation
from mcpgate.governance.store import AuditLine, Change, Query, Record, Settlement, StoreUnavailable
from mcpgate.stores import rows
from mcpgate.stores.postgres.schema import MIGRATIONS

T = TypeVar("T")
_CONNECTIONS = 16
_ANSWER_S = 30.0
_REPORT_S = 300.0
_MIGRATION_LOCK = 0x6D6370676174
"""The advisory lock that a migration holds."""


class PostgresDialect:
    counted = "(outcome = 'ok' OR facts ->> 'refused' IS NULL)"
    fresh = "xid >= (SELECT value::xid8 FROM facts WHERE name = 'rolled')"

    def start(self, span_s: int) -> str:
        return f"(floor(at)::bigint - floor(at)::bigint % {span_s})"

    def digest(self, columns: str) -> str:
        return f"md5(ROW({columns})::text)"

    def parameter(self, number: int) -> str:
        return f"${number}"

    def name_of(self, name: str) -> str:
        return f"metadata ->> {name}::text"

    def some_of(self, names: Sequence[str]) -> str:
        pairs = ", ".join(f"'{name}', metadata -> '{name}'" for name in sorted(names))
        return f"jsonb_strip_nulls(jsonb_build_object({pairs}))"

    def bucket(self, bucket: str, at: str) -> str:
        form = {"hour": 'YYYY-MM-DD"T"HH24:00"Z"', "day": "YYYY-MM-DD", "month": "YYYY-MM"}[bucket]
        return f"to_char(to_timestamp({at}::float8) AT TIME ZONE 'UTC', '{form}')"


_DIALECT = PostgresDialect()
_AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class PostgresStore:
    """Implements Counters, Records and Ledger."""

    name = "postgresql"

    def __init__(self, pool: "asyncpg.Pool[Any]", report_metadata: Sequence[str]) -> None:
        self._pool, self._report_metadata = pool, tuple(report_metadata)
        # One batch at a time: a counter stays locked until its transaction is on disk, so its requests wait together.
        self._reserve_next = Gather(self._reserve_all)
        self._settle_next = Gather(self._settle_all)

    @classmethod
    async def open(cls, url: str, report_metadata: Sequence[str] = (), schema: str = "mcpgate") -> "PostgresStore":
        """Connect, and create or update the schema. Raises StoreUnavailable."""
        try:
            pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=_CONNECTIONS,
                command_timeout=_ANSWER_S,
                timeout=10,
                reset=_leave_as_is,
                server_settings={"search_path": f'"{schema}"', "application_name": "mcpgate"},
            )
        except (*_AWAY, ValueError) as error:
            raise StoreUnavailable(f"{_without_password(url)}: {error}") from error
        try:
            async with pool.acquire() as db:
                await migrate(db, schema)
        except (StoreUnavailable, *_AWAY) as error:
            await pool.close()
            raise StoreUnavailable(f"{_without_password(url)}: {error}") from error
        return cls(pool, report_metadata)

    @property
    def pool(self) -> "asyncpg.Pool[Any]":
        """Its connections, for what else is kept in the same schema."""
        return self._pool

    async def close(self) -> None:
        try:
            async with asyncio.timeout(5):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    # --- Counters

    async def reserve(self, reservation: Reservation) -> tuple[Balance, ...] | Refusal:
        return await self._reserve_next(reservation)

    async def _reserve_all(self, reservations: Sequence[Reservation]) -> list[tuple[Balance, ...] | Refusal]:
        claims = [claim for reservation in reservations for claim in reservation.claims]
        found = await self._fetch(
            "SELECT fits, spent, held, first FROM reserve_all($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            [reservation.id for reservation in reservations],
            [reservation.owner for reservation in reservations],
            [None if (entry := one.abandoned) is None else json.dumps(_columns(entry)) for one in reservations],
            any(reservation.abandoned and reservation.holds_money for reservation in reservations),
            [len(reservation.claims) for reservation in reservations],
            [claim.counter for claim in claims],
            [claim.cell for claim in claims],
            [claim.oldest for claim in claims],
            [claim.amount for claim in claims],
            [claim.limit for claim in claims],
            [rows.finite(claim.ends_at) for claim in claims],
            [claim.measure for claim in claims],
        )
        answers: list[tuple[Balance, ...] | Refusal] = []
        for reservation in reservations:
            theirs, found = found[: len(reservation.claims)], found[len(reservation.claims) :]
            standings = tuple(Balance(spent, held, first) for _, spent, held, first in theirs)
            misfits = tuple((place, standings[place]) for place, row in enumerate(theirs) if not row[0])
            answers.append(Refusal(misfits) if misfits else standings)
        return answers

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        await self._settle_next(settlements)

    async def _settle_all(self, batches: Sequence[Sequence[Settlement]]) -> list[None]:
        entries, spent = [], []
        holds = [id for batch in batches for settlement in batch for id in settlement.holds]
        # One statement cannot insert two entries with the same id.
        first: dict[str, Settlement] = {}
        for settlement in (one for batch in batches for one in batch):
            first.setdefault(settlement.entry.id, settlement)
        for settlement in first.values():
            entry = settlement.entry
            entries.append(_columns(entry))
            for claim, amount in zip(settlement.claims, settlement.amounts, strict=True):
                ends_at = rows.finite(claim.ends_at)
                part = {"id": entry.id, "counter": claim.counter, "cell": claim.cell}
                spent.append({**part, "amount": amount, "ends_at": ends_at})
        texts = [json.dumps(part) for part in (entries, spent)]
        await self._fetch("SELECT settle($1, $2, '[]', $3)", *texts, holds)
        return [None] * len(batches)

    async def release(self, reservation: Reservation) -> None:
        async def work(db: Any) -> None:
            async with db.transaction():
                await db.execute("SELECT lock_counters($1)", [claim.counter for claim in reservation.claims])
                await db.execute("SELECT let_go($1)", [reservation.id])

        await self._with(work)

    async def renew(self, owner: str, until: float) -> None:
        statement = "INSERT INTO leases VALUES ($1, $2) ON CONFLICT (owner) DO UPDATE SET until = EXCLUDED.until"
        await self._fetch(statement, owner, until)

    async def expire(self, now: float) -> int:
        ((gone,),) = await self._fetch("SELECT expire($1)", now)
        return int(gone)

    async def read(self, counters: Sequence[tuple[str, int]]) -> list[Balance]:
        found = await self._fetch(
            "SELECT COALESCE(SUM(spent), 0)::bigint, COALESCE(SUM(held), 0)::bigint,"
            " MIN(cell) FILTER (WHERE spent <> 0 OR held <> 0)"
            " FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS asked (counter, oldest, place)"
            " LEFT JOIN cells ON cells.counter = asked.counter AND cells.cell >= asked.oldest"
            " GROUP BY place ORDER BY place",
            [name for name, _ in counters],
            [oldest for _, oldest in counters],
        )
        return [Balance(spent, held, first) for spent, held, first in found]

    async def adjust(self, claim: Claim, once: str | None = None) -> None:
        async def work(db: Any) -> None:
            async with db.transaction():
                await db.execute("SELECT lock_counters($1)", [claim.counter])
                if once is not None:
                    mark = "INSERT INTO facts VALUES ($1, '1') ON CONFLICT DO NOTHING RETURNING name"
                    if not await db.fetch(mark, f"adjusted {once}"):
                        return
                await db.execute(
                    "INSERT INTO cells VALUES ($1, $2, $3, 0, $4)"
                    " ON CONFLICT (counter, cell) DO UPDATE SET spent = cells.spent + EXCLUDED.spent",
                    claim.counter,
                    claim.cell,
                    claim.amount,
                    rows.finite(claim.ends_at),
                )

        await self._with(work)

    async def reset(self, counter: str) -> None:
        async def work(db: Any) -> None:
            async with db.transaction():
                await db.execute("SELECT lock_counters($1)", [counter])
                await db.execute("UPDATE cells SET spent = 0 WHERE counter = $1", counter)

        await self._with(work)

    async def names(self, prefix: str, limit: int) -> list[str]:
        statement = "SELECT DISTINCT counter FROM cells WHERE counter >= $1 AND counter < $2 ORDER BY 1 LIMIT $3"
        return [name for (name,) in await self._fetch(statement, prefix, prefix + "\U0010ffff", limit)]

    async def restore(self, amounts: Iterable[tuple[Claim, int]]) -> None:
        pass  # counters and ledger are lost together

    # --- Records

    async def find_key(self, digest: str) -> tuple[Record | None, int]:
        ((id, value, version),) = await self._fetch(
            "SELECT records.id, records.value, facts.value FROM facts"
            " LEFT JOIN digests ON digest = $1 LEFT JOIN records ON records.kind = 'key' AND records.id = digests.id"
            " WHERE facts.name = 'version'",
            digest,
        )
        return (None if id is None else Record("key", id, json.loads(value))), int(version)

    async def get_record(self, kind: str, id: str) -> Record | None:
        found = await self._fetch("SELECT value FROM records WHERE kind = $1 AND id = $2", kind, id)
        return Record(kind, id, json.loads(found[0][0])) if found else None

    async def list_records(self, kind: str, after: str = "", limit: int = 1000) -> list[Record]:
        statement = "SELECT id, value FROM records WHERE kind = $1 AND id > $2 ORDER BY id LIMIT $3"
        return [Record(kind, id, json.loads(value)) for id, value in await self._fetch(statement, kind, after, limit)]

    async def change(self, change: Change) -> bool:
        value = None if change.value is None else json.dumps(change.value)
        place = (change.kind, change.id)

        async def work(db: Any) -> bool:
            async with db.transaction():
                if change.replaces is not None:
                    same = "SELECT 1 FROM records WHERE kind = $1 AND id = $2 AND value = $3::jsonb FOR UPDATE"
                    if not await db.fetch(same, *place, json.dumps(change.replaces)):
                        return False
                if change.unique_name:
                    # One at a time, or two that begin at once would not see each other.
                    await db.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"mcpgate key {change.unique_name}")
                    namesake = (
                        "SELECT 1 FROM records WHERE kind = 'key' AND id <> $1 AND value ->> 'revoked_at' IS NULL"
                        " AND (id = $2 OR value -> 'spec' ->> 'name' = $2)"
                    )
                    if await db.fetch(namesake, change.id, change.unique_name):
                        return False
                if change.action != "reset":
                    if value is None:
                        await db.execute("DELETE FROM records WHERE kind = $1 AND id = $2", *place)
                    else:
                        known = "DO NOTHING" if change.only_new else "(kind, id) DO UPDATE SET value = EXCLUDED.value"
                        statement = f"INSERT INTO records VALUES ($1, $2, $3) ON CONFLICT {known} RETURNING id"
                        if not await db.fetch(statement, *place, value):
                            return False
                    if change.kind == "key":
                        await db.execute("DELETE FROM digests WHERE id = $1", change.id)
                        digests = [(digest, change.id) for digest, _ in change.digests]
                        await db.executemany("INSERT INTO digests VALUES ($1, $2)", digests)
                    else:
                        more = "UPDATE facts SET value = (value::bigint + 1)::text WHERE name = 'version'"
                        await db.execute(more)
                await db.execute(
                    "INSERT INTO audit (at, actor, action, kind, id, value) VALUES ($1, $2, $3, $4, $5, $6)",
                    *(change.at, change.actor, change.action, *place, value),
                )
                return True

        return await self._with(work)

    async def list_audit(self, limit: int = 100, before: int | None = None) -> list[tuple[int, AuditLine]]:
        statement = (
            "SELECT number, at, actor, action, kind, id, value FROM audit WHERE number < $1"
            " ORDER BY number DESC LIMIT $2"
        )
        return [
            (number, AuditLine(at, actor, action, kind, id, None if value is None else json.loads(value)))
            for number, at, actor, action, kind, id, value in await self._fetch(statement, before or 2**62, limit)
        ]

    # --- Ledger

    async def report(self, query: Query) -> list[dict[str, Any]]:
        ((pruned,),) = await self._fetch("SELECT value FROM facts WHERE name = 'pruned'")
        statement, values = rows.report_statement(_DIALECT, query, self._report_metadata, float(pruned))
        return rows.report_rows(query, await self._with(lambda db: db.fetch(statement, *values, timeout=_REPORT_S)))

    async def list_entries(self, query: Query, limit: int = 100, before: int | None = None) -> list[tuple[int, Entry]]:
        statement, values = rows.entries_statement(_DIALECT, query, limit, before)
        found = await self._with(lambda db: db.fetch(statement, *values, timeout=_REPORT_S))
        return [(seq, rows.entry_of(row)) for seq, *row in found]

    async def entries(self, since: float) -> AsyncIterator[Entry]:
        columns = rows.quoted(rows.COLUMNS)
        chosen = f"{_DIALECT.counted} AND (at, seq) > ($1, $2)"
        statement = f"SELECT seq, {columns} FROM entries WHERE {chosen} ORDER BY at, seq LIMIT 5000"
        last: tuple[float, int] = (since, -1)
        while found := await self._fetch(statement, *last):
            for seq, *row in found:
                entry = rows.entry_of(row)
                last = (entry.at, seq)
                yield entry

    async def find_settled(self, ids: Sequence[str]) -> dict[str, Entry]:
        statement = f"SELECT {rows.quoted(rows.COLUMNS)} FROM entries WHERE id = ANY ($1)"
        return {row[0]: rows.entry_of(row) for row in await self._fetch(statement, list(ids))}

    async def roll_up(self) -> int:
        chosen = "xid >= $1::text::xid8 AND xid < $2::text::xid8"
        added = [
            rows.roll_up_statement(_DIALECT, span_s, chosen, self._report_metadata)
            for span_s in (rows.HOUR_S, rows.DAY_S)
        ]

        async def work(db: Any) -> int:
            async with db.transaction():
                rolled = await db.fetchval("SELECT value FROM facts WHERE name = 'rolled' FOR UPDATE")
                # All transactions below this have ended, so no entry will be added there any more.
                upto = await db.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
                count = await db.fetchval(f"SELECT count(*) FROM entries WHERE {chosen}", rolled, upto)
                for statement in added if count else ():
                    await db.execute(statement, rolled, upto, timeout=_REPORT_S)
                await db.execute("UPDATE facts SET value = $1 WHERE name = 'rolled'", upto)
                return int(count)

        return await self._with(work)

    async def prune(self, before: float) -> int:
        hour = math.floor(before / rows.HOUR_S) * rows.HOUR_S

        async def work(db: Any) -> int:
            async with db.transaction():
                chosen = "at < $1 AND xid < (SELECT value::xid8 FROM facts WHERE name = 'rolled')"
                done = await db.execute(f"DELETE FROM entries WHERE {chosen}", float(hour), timeout=_REPORT_S)
                await db.execute("DELETE FROM contents WHERE at < $1", float(hour))
                latest = "UPDATE facts SET value = GREATEST(value::float8, $1)::text WHERE name = 'pruned'"
                await db.execute(latest, float(hour))
                return int(done.rpartition(" ")[2])

        return await self._with(work)

    # --- asking

    async def _fetch(self, statement: str, *values: Any) -> list[Any]:
        return await self._with(lambda db: db.fetch(statement, *values))

    async def _with(self, work: Callable[[Any], Awaitable[T]]) -> T:
        try:
            async with self._pool.acquire(timeout=_ANSWER_S) as db:
                return await work(db)
        except asyncpg.DataError:
            raise  # a value that the database will never accept, not an outage
        except _AWAY as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error


def _columns(entry: Entry) -> dict[str, Any]:
    """An entry in the form that the functions of the schema expect."""
    columns = dict(zip(rows.COLUMNS, rows.row_of(entry), strict=True))
    return columns | {name: json.loads(columns[name]) for name in rows.MAPPINGS}


async def _leave_as_is(_db: Any) -> None:
    """Replaces asyncpg's reset, which costs a round trip: nothing here changes session state outside a transaction."""


async def migrate(db: Any, schema: str, migrations: Sequence[tuple[str, ...]] = MIGRATIONS) -> None:
    """Create the schema or bring it up to date; several processes may do this at once. Raises asyncpg's errors, and
    StoreUnavailable for a newer schema."""
    await db.execute("SELECT pg_advisory_lock($1)", _MIGRATION_LOCK)
    try:
        async with db.transaction():
            await db.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            await db.execute("CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY)")
            done = await db.fetchval("SELECT COALESCE(MAX(number), 0) FROM migrations")
            if done > len(migrations):
                raise StoreUnavailable(f"schema {schema!r} was written by a newer mcpgate (version {done})")
            for number, statements in enumerate(migrations[done:], done + 1):
                for statement in statements:
                    await db.execute(statement)
                await db.execute("INSERT INTO migrations VALUES ($1)", number)
    finally:
        await db.execute("SELECT pg_advisory_unlock($1)", _MIGRATION_LOCK)


def _without_password(url: str) -> str:
    head, separator, host = url.rpartition("@")
    return f"{head.partition('://')[0]}://…@{host}" if separator else url
