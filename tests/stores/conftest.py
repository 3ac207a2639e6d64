"""Every store that governance can stand on, one place each, that any number of processes can open; and short ways to
say claims, reservations and entries.

PostgreSQL and Redis are tested where a server answers (`MCPGATE_TEST_POSTGRES`, `MCPGATE_TEST_REDIS`, else the usual
ports of this machine). Each test has a schema or a prefix of its own and removes it.
"""

import asyncio
import dataclasses
import importlib
import importlib.util
import math
import multiprocessing
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import pytest

from mcpgate.governance.records import Claim, Entry, Reservation, Usage
from mcpgate.governance.store import Counters, Settlement, Store
from mcpgate.lifecycle import GovernanceStores
from mcpgate.stores.memory import MemoryStore
from mcpgate.stores.sqlite.governance import SqliteStore
from tests.conftest import IN_CI

POSTGRES = os.environ.get("MCPGATE_TEST_POSTGRES", "postgresql://127.0.0.1:5432/test")
PGVECTOR = os.environ.get("MCPGATE_TEST_PGVECTOR", "")
"""A PostgreSQL that has pgvector; POSTGRES need not."""
REDIS = os.environ.get("MCPGATE_TEST_REDIS", "redis://127.0.0.1:6379/11")
SHARED = ("sqlite", "postgres", "redis+sqlite", "redis+postgres")
"""The stores that several processes can use at once."""
STORES = ("memory", *SHARED)
NOW = float(time.time() // 3600 * 3600)
"""A full hour. Redis expires by its own clock, so a test's clock is close to it."""
PROCESSES = multiprocessing.get_context("forkserver")
"""Starts processes with everything already imported."""
PROCESSES.set_forkserver_preload(["tests.governance.worker"])


@dataclasses.dataclass(frozen=True)
class Place:
    """Where stores are created."""

    kind: str
    path: str
    name: str
    """The schema in PostgreSQL, the prefix in Redis."""
    report_metadata: tuple[str, ...] = ()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[GovernanceStores]:
        store = await self._store()
        counters: Counters = store
        if self.kind.startswith("redis"):
            from mcpgate.stores.redis.counters import RedisCounters

            counters = await RedisCounters.open(REDIS, store, prefix=self.name)
            await counters.restore([])
        stores = GovernanceStores(counters, store)
        try:
            yield stores
        finally:
            await stores.close()

    async def _store(self) -> Store:
        if self.kind == "memory":
            return MemoryStore()
        if self.kind.endswith("sqlite"):
            return SqliteStore(Path(self.path), self.report_metadata)
        from mcpgate.stores.postgres.governance import PostgresStore

        return await PostgresStore.open(POSTGRES, self.report_metadata, schema=self.name)

    async def remove(self) -> None:
        await self.forget()
        if self.kind.endswith("postgres"):
            import asyncpg

            db = await asyncpg.connect(POSTGRES)
            await db.execute("SET client_min_messages = warning")
            await db.execute(f'DROP SCHEMA IF EXISTS "{self.name}" CASCADE')
            await db.close()

    async def forget(self) -> None:
        """Delete Redis's data, as if it were lost."""
        if self.kind.startswith("redis"):
            from redis import asyncio as redis

            client = redis.Redis.from_url(REDIS)
            keys = [key async for key in client.scan_iter(match=f"{{{self.name}}}:*", count=10_000)]
            if keys:
                await client.delete(*keys)
            await client.aclose()


def _trouble(url: str, module: str, port: int) -> str | None:
    """Why a server cannot be used in tests."""
    if importlib.util.find_spec(module) is None:
        return f"the package {module} is not installed"
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or port), timeout=2).close()
    except OSError as error:
        return f"no server answers at {parts.hostname}:{parts.port or port}: {error}"
    return None


def needs_server(kind: str) -> None:
    """Skips on a user's machine without a server for a store; in CI there must be one."""
    troubles = []
    if kind.endswith("postgres"):
        troubles.append(_trouble(POSTGRES, "asyncpg", 5432))
    if kind == "pgvector":
        unset = "MCPGATE_TEST_PGVECTOR names no PostgreSQL with pgvector; .ci/run starts one"
        troubles.append(_trouble(PGVECTOR, "asyncpg", 5432) if PGVECTOR else unset)
    if kind.startswith("redis"):
        troubles.append(_trouble(REDIS, "redis", 6379))
    for trouble in troubles:
        if trouble is not None:
            (pytest.fail if IN_CI else pytest.skip)(trouble)


def make_place(kind: str, folder: Path, report_metadata: Sequence[str] = ()) -> Place:
    needs_server(kind)
    return Place(kind, str(folder / "stores.sqlite3"), f"test_{secrets.token_hex(6)}", tuple(report_metadata))


class Closable(Protocol):
    async def close(self) -> None: ...


Made = TypeVar("Made", bound=Closable)


@asynccontextmanager
async def two_views(
    kind: str, folder: Path, memory: Callable[[], Made], sqlite: Callable[[Path], Made], postgres: str
) -> AsyncIterator[tuple[Made, Made]]:
    """Two processes' views of one store that stands beside governance's. `kind`: `memory`, `sqlite` or `postgres`;
    `postgres`: module and class below mcpgate.stores.postgres, imported only where they are used."""
    if kind == "memory":
        one = memory()
        yield one, one
        await one.close()
    elif kind == "sqlite":
        first, second = sqlite(folder / "stores.sqlite3"), sqlite(folder / "stores.sqlite3")
        yield first, second
        await first.close()
        await second.close()
    else:
        place = make_place(kind, folder)
        module, _, name = postgres.partition(":")
        make = getattr(importlib.import_module(f"mcpgate.stores.postgres.{module}"), name)
        try:
            async with place.open() as a, place.open() as b:
                stores: list[Any] = [a.store, b.store]
                yield make(stores[0].pool), make(stores[1].pool)
        finally:
            await place.remove()


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = make_place(request.param, tmp_path, ["project_id"])
    yield made
    asyncio.run(made.remove())


@pytest.fixture(params=SHARED)
def shared_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = make_place(request.param, tmp_path)
    yield made
    asyncio.run(made.remove())


@pytest.fixture
async def stores(anyio_backend: str, place: Place) -> AsyncIterator[GovernanceStores]:
    """In which the owner `me` has a lease."""
    async with place.open() as opened:
        await opened.counters.renew("me", NOW + 30)
        yield opened


def claim(
    counter: str = "b|cost|",
    amount: int = 1,
    limit: int | None = 10,
    cell: int = 0,
    oldest: int | None = None,
    ends_at: float = math.inf,
    measure: str = "cost",
) -> Claim:
    return Claim(counter, measure, amount, limit, cell, cell if oldest is None else oldest, ends_at)


def reservation(id: str, *claims: Claim, owner: str = "me", abandoned: Entry | None = None) -> Reservation:
    return Reservation(id, owner, claims or (claim(),), abandoned)


def entry(id: str, at: float = NOW, cost: int | None = 1, **others: Any) -> Entry:
    values: dict[str, Any] = {
        **{"parent_id": None, "kind": "tool", "key": "vk_1", "user": None, "team": None, "customer": None},
        **{"server": "files", "tool": "read", "provider": None, "model": None, "outcome": "ok"},
        **{"usage": Usage(calls=1), "latency_ms": 1.0},
    }
    return Entry(id=id, at=at, cost=cost, **{**values, **others})


def settlement(id: str, *claims: Claim, spent: Sequence[int] = (), **facts: Any) -> Any:
    """The settlement of a request that spent `spent`, one amount per claim; by default what was held."""
    amounts = tuple(spent) or tuple(c.amount for c in claims)
    cost = next((n for c, n in zip(claims, amounts, strict=True) if c.measure == "cost"), 0)
    return Settlement(entry(id, **{"cost": cost, **facts}), claims, amounts, (id,) if claims else ())
