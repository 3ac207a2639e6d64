"""What was told about alerts, and who tells it, in PostgreSQL."""

from functools import partial
from typing import Any

import asyncpg

from mcpgate.activity.alerts import State
from mcpgate.governance.store import StoreUnavailable
from mcpgate.stores.postgres.borrowed import fetch
from mcpgate.stores.rows import clean

_COLUMNS = "alert, subject, level, since, text, message, is_told"
_LEAD = (
    "INSERT INTO alert_leader VALUES (1, $1, $3) ON CONFLICT (one) DO UPDATE"
    " SET owner = EXCLUDED.owner, until = EXCLUDED.until"
    " WHERE alert_leader.owner = EXCLUDED.owner OR alert_leader.until <= $2 RETURNING owner"
)
_SAVE = (
    f"INSERT INTO alert_states ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (alert, subject) DO UPDATE"
    " SET level = EXCLUDED.level, since = EXCLUDED.since, text = EXCLUDED.text, message = EXCLUDED.message,"
    " is_told = EXCLUDED.is_told"
)


class PostgresAlerts:
    """Implements activity.alerts.AlertStore. Borrows the connections of the PostgresStore."""

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._fetch = partial(fetch, pool, StoreUnavailable)

    async def lead(self, owner: str, now: float, until: float) -> bool:
        return bool(await self._fetch(_LEAD, owner, now, until))

    async def states(self) -> list[State]:
        found = await self._fetch(f"SELECT {_COLUMNS} FROM alert_states ORDER BY alert, subject")
        return [State(*row) for row in found]

    async def save(self, state: State) -> None:
        values = (state.alert, clean(state.subject), state.level, state.since, clean(state.text), state.message)
        await self._fetch(_SAVE, *values, state.is_told)

    async def remove(self, alert: str, subject: str) -> None:
        await self._fetch("DELETE FROM alert_states WHERE alert = $1 AND subject = $2", alert, clean(subject))

    async def close(self) -> None:
        pass
