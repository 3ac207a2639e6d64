"""What was told about alerts, and who tells it, in SQLite."""

from pathlib import Path

from mcpgate.activity.alerts import State
from mcpgate.stores.rows import clean
from mcpgate.stores.sqlite.borrowed import SqliteTables

_COLUMNS = "alert, subject, level, since, text, message, is_told"
_LEAD = (
    "INSERT INTO alert_leader VALUES (1, ?1, ?3) ON CONFLICT (one) DO UPDATE"
    " SET owner = excluded.owner, until = excluded.until WHERE owner = excluded.owner OR until <= ?2"
)


class SqliteAlerts:
    """Implements activity.alerts.AlertStore. Opens the file when it is first used."""

    def __init__(self, path: Path) -> None:
        self._tables = SqliteTables(path)

    async def lead(self, owner: str, now: float, until: float) -> bool:
        return await self._tables.write(lambda db: db.execute(_LEAD, (owner, now, until)).rowcount > 0)

    async def states(self) -> list[State]:
        found = await self._tables.fetch(f"SELECT {_COLUMNS} FROM alert_states ORDER BY alert, subject")
        return [State._make(row)._replace(is_told=bool(row[-1])) for row in found]

    async def save(self, state: State) -> None:
        values = (state.alert, clean(state.subject), state.level, state.since, clean(state.text), state.message)
        statement = f"INSERT OR REPLACE INTO alert_states ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
        await self._tables.write(lambda db: db.execute(statement, (*values, state.is_told)) and None)

    async def remove(self, alert: str, subject: str) -> None:
        statement = "DELETE FROM alert_states WHERE alert = ? AND subject = ?"
        await self._tables.write(lambda db: db.execute(statement, (alert, clean(subject))) and None)

    async def close(self) -> None:
        await self._tables.close()
