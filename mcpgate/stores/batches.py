"""Batches, in SQL that SQLite and PostgreSQL both understand: `$1` is the first value. The statements are here;
sqlite/batches.py and postgres/batches.py run them."""

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mcpgate.llm.batches import OPEN, Batch, Kind, Line, State, Status, batch_of

_AT_ONCE = 500
"""Lines that are read at most."""
_COLUMNS = "id, account, kind, at, status, value"
_OPEN = ", ".join(f"'{status}'" for status in OPEN)
_END = """
    INSERT INTO batch_lines (batch, number, state, tries, result) VALUES ($1, $2, $3, 1, $4)
    ON CONFLICT (batch, number) DO UPDATE SET state = excluded.state, result = excluded.result
    WHERE batch_lines.state = 'started'"""


class SqlBatches(ABC):
    """Implements llm.batches.BatchStore."""

    @abstractmethod
    async def _read(self, statement: str, *values: object) -> list[Any]:
        """Rows. Raises BatchesUnavailable."""

    @abstractmethod
    async def _write(self, statement: str, *values: object, durable: bool = False) -> list[Any]:
        """The same, in a transaction. `durable`: it survives a power failure."""

    @abstractmethod
    async def _write_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """The same statement for every row of values, durably."""

    async def put_piece(self, account: str, file: str, number: int, data: bytes) -> None:
        await self._write(
            "INSERT INTO batch_pieces (file, number, account, at, size, data) VALUES ($1, $2, $3, $4, $5, $6)",
            *(file, number, account, time.time(), len(data), data),
            durable=True,
        )

    async def piece(self, file: str, number: int) -> bytes | None:
        found = await self._read("SELECT data FROM batch_pieces WHERE file = $1 AND number = $2", file, number)
        return bytes(found[0][0]) if found else None

    async def drop_file(self, file: str) -> None:
        await self._write("DELETE FROM batch_pieces WHERE file = $1", file)

    async def stored_bytes(self, account: str) -> int:
        pieces = await self._read("SELECT COALESCE(SUM(size), 0) FROM batch_pieces WHERE account = $1", account)
        results = await self._read(
            "SELECT COALESCE(SUM(LENGTH(result)), 0) FROM batch_lines"
            " WHERE batch IN (SELECT id FROM batches WHERE account = $1)",
            account,
        )
        return int(pieces[0][0]) + int(results[0][0])

    async def add(self, batch: Batch, most_open: int) -> bool:
        statement = (
            f"INSERT INTO batches ({_COLUMNS}, owner, until) SELECT $1, $2, $3, $4, $5, $6, '', 0"
            f" WHERE (SELECT COUNT(*) FROM batches WHERE account = $2 AND status IN ({_OPEN})) < $7 RETURNING id"
        )
        row = batch.id, batch.account, batch.kind, batch.at, batch.status, batch.value()
        return bool(await self._write(statement, *row, most_open, durable=True))

    async def get(self, account: str, kind: Kind, id: str) -> Batch | None:
        statement = f"SELECT {_COLUMNS} FROM batches WHERE id = $1 AND account = $2 AND kind = $3"
        found = await self._read(statement, id, account, kind)
        return batch_of(found[0]) if found else None

    async def page(self, account: str, kind: Kind, at: str, most: int, newer: bool = False) -> list[Batch]:
        statement, values = f"SELECT {_COLUMNS} FROM batches WHERE account = $1 AND kind = $2", [account, kind, most]
        if at:
            sign = ">" if newer else "<"
            statement += (
                f" AND (at, id) {sign} (SELECT at, id FROM batches WHERE account = $1 AND kind = $2 AND id = $4)"
            )
            values.append(at)
        order = "ASC" if at and newer else "DESC"
        rows = await self._read(f"{statement} ORDER BY at {order}, id {order} LIMIT $3", *values)
        return [batch_of(row) for row in (reversed(rows) if order == "ASC" else rows)]

    async def change(self, batch: Batch, was: Status) -> bool:
        statement = "UPDATE batches SET status = $2, value = $3 WHERE id = $1 AND status = $4 RETURNING id"
        return bool(await self._write(statement, batch.id, batch.status, batch.value(), was, durable=True))

    async def delete(self, batch: Batch) -> None:
        await self._write("DELETE FROM batch_lines WHERE batch = $1", batch.id)
        await self._write("DELETE FROM batches WHERE id = $1", batch.id)

    async def claim(self, owner: str, now: float, until: float, but: Collection[str]) -> Batch | None:
        others = "".join(f" AND account <> ${place}" for place in range(2, 2 + len(but)))
        waiting = f"SELECT id FROM batches WHERE status IN ({_OPEN}) AND until <= $1{others} ORDER BY at, id LIMIT 1"
        for (id,) in await self._read(waiting, now, *but):  # to look costs no lock
            statement = f"UPDATE batches SET owner = $1, until = $2 WHERE id = $3 AND until <= $4 RETURNING {_COLUMNS}"
            if taken := await self._write(statement, owner, until, id, now):
                return batch_of(taken[0])
        return None

    async def renew(self, id: str, owner: str, until: float) -> Batch | None:
        statement = f"UPDATE batches SET until = $3 WHERE id = $1 AND owner = $2 RETURNING {_COLUMNS}"
        found = await self._write(statement, id, owner, until)
        return batch_of(found[0]) if found else None

    async def release(self, id: str, owner: str) -> None:
        await self._write("UPDATE batches SET owner = '', until = 0 WHERE id = $1 AND owner = $2", id, owner)

    async def start(self, id: str, number: int) -> int | None:
        found = await self._write(
            "INSERT INTO batch_lines (batch, number, state, tries, result) VALUES ($1, $2, 'started', 1, $3)"
            " ON CONFLICT (batch, number) DO UPDATE SET tries = batch_lines.tries + 1"
            " WHERE batch_lines.state = 'started' RETURNING tries",
            *(id, number, b""),
        )
        return found[0][0] if found else None

    async def pause(self, id: str, number: int) -> None:
        statement = "DELETE FROM batch_lines WHERE batch = $1 AND number = $2 AND state = 'started'"
        await self._write(statement, id, number)

    async def end(self, id: str, lines: Sequence[Line]) -> None:
        await self._write_many(_END, [(id, *line) for line in lines])

    async def ended(self, id: str) -> list[int]:
        rows = await self._read("SELECT number FROM batch_lines WHERE batch = $1 AND state <> 'started'", id)
        return [number for (number,) in rows]

    async def counts(self, id: str) -> Mapping[State, int]:
        rows = await self._read("SELECT state, COUNT(*) FROM batch_lines WHERE batch = $1 GROUP BY state", id)
        return {state: count for state, count in rows}

    async def results(self, id: str, after: int, most: int, succeeded: bool | None = None) -> list[Line]:
        where = f"FROM batch_lines WHERE batch = $1 AND number > $2 AND state <> 'started'{_only(succeeded)}"
        sizes = await self._read(f"SELECT number, LENGTH(result) {where} ORDER BY number LIMIT $3", id, after, _AT_ONCE)
        if not sizes:
            return []
        all_in = itertools.accumulate(size for _, size in sizes)
        last = [number for (number, _), total in zip(sizes, all_in, strict=True) if total <= most]
        rows = await self._read(
            f"SELECT number, state, result {where} AND number <= $3 ORDER BY number",
            *(id, after, last[-1] if last else sizes[0][0]),
        )
        return [Line(number, state, bytes(result)) for number, state, result in rows]

    async def results_bytes(self, id: str, succeeded: bool) -> int:
        rows = await self._read(
            "SELECT COALESCE(SUM(LENGTH(result) + 1), 0) FROM batch_lines"
            f" WHERE batch = $1 AND state <> 'started'{_only(succeeded)}",
            id,
        )
        return int(rows[0][0])

    async def tidy(self, oldest: float) -> None:
        if not await self._read(
            "SELECT 1 FROM batches WHERE at <= $1 UNION ALL SELECT 1 FROM batch_pieces WHERE at <= $1 LIMIT 1", oldest
        ):
            return
        await self._write("DELETE FROM batch_lines WHERE batch IN (SELECT id FROM batches WHERE at <= $1)", oldest)
        await self._write("DELETE FROM batches WHERE at <= $1", oldest)
        await self._write("DELETE FROM batch_pieces WHERE at <= $1", oldest)


def _only(succeeded: bool | None) -> str:
    if succeeded is None:
        return ""
    return " AND state = 'succeeded'" if succeeded else " AND state <> 'succeeded'"
