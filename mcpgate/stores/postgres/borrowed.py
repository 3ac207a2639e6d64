"""Statements of the smaller stores, which borrow the connections of the PostgresStore. Its own: governance.py."""

from collections.abc import Callable
from typing import Any

import asyncpg

AWAY = (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What is raised if the database is away or refuses."""


async def fetch(
    pool: "asyncpg.Pool[Any]", unavailable: Callable[[str], Exception], statement: str, *values: object
) -> list[Any]:
    """Raises what `unavailable` makes of the reason, if the database is away or refuses."""
    try:
        rows: list[Any] = await pool.fetch(statement, *values)
        return rows
    except AWAY as error:
        raise unavailable(str(error)) from error
