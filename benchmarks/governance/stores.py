"""The stores that the benchmark runs on, each opened in its own place and removed afterwards.

PostgreSQL gets its own schema and Redis its own prefix; what does not answer is left out and reported.
"""

import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from redis import asyncio as redis

from mcpgate.governance.store import Counters, Store, StoreUnavailable
from mcpgate.stores.memory import MemoryStore
from mcpgate.stores.postgres.governance import PostgresStore
from mcpgate.stores.redis.counters import RedisCounters
from mcpgate.stores.sqlite.governance import SqliteStore

POSTGRES = os.environ.get("MCPGATE_BENCH_POSTGRES", "postgresql://127.0.0.1:5432/test")
REDIS = os.environ.get("MCPGATE_BENCH_REDIS", "redis://127.0.0.1:6379/11")


@dataclass(frozen=True)
class Opened:
    """An open, empty store."""

    counters: Counters
    store: Store
    path: Path | None = None
    """Of the SQLite file, where there is one."""
    schema: str | None = None
    """Of PostgreSQL."""
    prefix: str | None = None
    """Of the keys in Redis."""


@asynccontextmanager
async def _memory() -> AsyncIterator[Opened]:
    stores = MemoryStore()
    yield Opened(stores, stores)


@asynccontextmanager
async def _sqlite() -> AsyncIterator[Opened]:
    with tempfile.TemporaryDirectory(prefix="mcpgate-bench-") as folder:
        path = Path(folder) / "stores.sqlite3"
        stores = SqliteStore(path)
        try:
            yield Opened(stores, stores, path)
        finally:
            await stores.close()


@asynccontextmanager
async def _postgres() -> AsyncIterator[Opened]:
    schema = f"mcpgate_bench_{secrets.token_hex(4)}"
    stores = await PostgresStore.open(POSTGRES, schema=schema)
    try:
        yield Opened(stores, stores, schema=schema)
    finally:
        await stores.close()
        db = await asyncpg.connect(POSTGRES)
        try:
            await db.execute(f'DROP SCHEMA "{schema}" CASCADE')
        finally:
            await db.close()


@asynccontextmanager
async def _redis() -> AsyncIterator[Opened]:
    prefix = f"mcpgate-bench-{secrets.token_hex(4)}"
    async with _sqlite() as beside:
        counters = await RedisCounters.open(REDIS, beside.store, prefix)
        try:
            yield Opened(counters, beside.store, beside.path, prefix=prefix)
        finally:
            await counters.close()
            client: Any = redis.Redis.from_url(REDIS)
            async with client:
                keys = [key async for key in client.scan_iter(match=f"{{{prefix}}}:*", count=10_000)]
                for start in range(0, len(keys), 5_000):
                    await client.unlink(*keys[start : start + 5_000])


@dataclass(frozen=True)
class Store:
    name: str
    title: str
    open: Callable[[], AbstractAsyncContextManager[Opened]]


STORES = (
    Store("memory", "memory", _memory),
    Store("sqlite", "SQLite", _sqlite),
    Store("postgres", "PostgreSQL", _postgres),
    Store("redis", "Redis, SQLite behind", _redis),
)


async def answering(stores: Sequence[Store]) -> tuple[list[Store], dict[str, str]]:
    """The stores that can be opened, and why the others cannot."""
    there, absent = [], {}
    for store in stores:
        try:
            async with store.open():
                there.append(store)
        except (StoreUnavailable, OSError, asyncpg.PostgresError) as error:
            absent[store.name] = f"{type(error).__name__}: {error}"
    return there, absent
