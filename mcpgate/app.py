"""Puts the parts together: the only file that picks implementations."""

import asyncio
import datetime
import importlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcpgate.catalog.learned import Memory
from mcpgate.codemode.gateway import Gateway, prices_of
from mcpgate.config.files import load_config, user_data_folder
from mcpgate.config.governance import GovernanceConfig
from mcpgate.config.periods import Period
from mcpgate.config.settings import Config, SandboxConfig, StorageConfig
from mcpgate.errors import ConfigError, Unavailable
from mcpgate.governance.gate import Gate
from mcpgate.governance.store import Counters, Durable, StoreAway
from mcpgate.stores.memory import MemoryBooks
from mcpgate.stores.sqlite.governance import SqliteBooks
from mcpgate.stores.sqlite.learned import SqliteStore
from mcpgate.telemetry.metrics import Metrics
from mcpgate_sandbox.engine import Engine
from mcpgate_sandbox.sessions import SessionLimits

log = logging.getLogger("mcpgate.app")
_FLUSH_EVERY_S = 5.0
_ROLL_UP_EVERY_S = 60.0
_ENGINES = {
    ("wasm", "none"): "mcpgate_sandbox.wasm:WasmEngine",
    ("wasm", "process"): "mcpgate_sandbox.isolated:IsolatedWasmEngine",
    ("restricted", "none"): "mcpgate_sandbox.restricted:RestrictedEngine",
    ("restricted", "process"): "mcpgate_sandbox.restricted:RestrictedEngine",
}
"""By `sandbox.engine` and `sandbox.isolation`. Restricted code never runs but in a process of its own."""


@dataclass(frozen=True, slots=True)
class Books:
    """What governance is kept in: counters, beside or in a durable store of records and ledger."""

    counters: Counters
    durable: Durable

    async def close(self) -> None:
        if self.counters is not self.durable:
            await self.counters.close()
        await self.durable.close()


@dataclass(frozen=True, slots=True)
class App:
    """A gateway and what it stands on."""

    gateway: Gateway
    books: Books
    _kept: SqliteStore

    async def aclose(self) -> None:
        await self.gateway.aclose()
        await self.books.close()
        self._kept.close()


async def build(config: Config) -> App:
    """Raises ConfigError, Unavailable."""
    engine = make_engine(config.sandbox)
    books = await open_books(config)
    kept = SqliteStore(_local_file(config.storage))
    metrics = Metrics()
    gate = Gate(config.governance, prices_of(config), books.counters, books.durable, metrics)
    return App(Gateway(config, engine, Memory(kept), gate, metrics), books, kept)


async def open_books(config: Config) -> Books:
    """Raises ConfigError; Unavailable if the store is away."""
    storage, names = config.storage, config.governance.report_metadata
    try:
        durable: Durable
        if storage.url is not None and not storage.url.startswith("sqlite:"):
            postgres = _optional("mcpgate.stores.postgres.governance", "postgres", "storage.url")
            durable = await postgres.PostgresBooks.open(storage.url, names)
        else:
            durable = _sqlite_books(config)
        if storage.counters is None:
            return Books(durable, durable)
        redis = _optional("mcpgate.stores.redis.counters", "redis", "storage.counters")
        return Books(await redis.RedisCounters.open(storage.counters, durable), durable)
    except StoreAway as error:
        raise Unavailable(f"the store cannot be used: {error}") from error


def _sqlite_books(config: Config) -> Durable:
    path = _local_file(config.storage)
    try:
        return SqliteBooks(path, config.governance.report_metadata)
    except StoreAway as error:
        governed = config.governance != GovernanceConfig() or any(s.prices for s in config.mcpServers.values())
        if governed:
            raise
        log.warning("%s; what is used will be forgotten at the end", error)
        return MemoryBooks()


def _optional(module: str, extra: str, setting: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{setting} needs a package that is not installed ({error}): install the extra {extra!r}"
        ) from error


@asynccontextmanager
async def running(
    config: Config, progress: Callable[[str], None] | None = None, hold_s: float = 0.0, with_engine: bool = True
) -> AsyncIterator[Gateway]:
    """A gateway from start to end: everything it started is gone when the block is left."""
    app = await build(config)
    gateway = app.gateway
    chores: list[asyncio.Task[None]] = []
    try:
        await gateway.start(progress, hold_s, with_engine)
        chores = [asyncio.create_task(_flush_now_and_then(gateway)), asyncio.create_task(_keep_books(app))]
        yield gateway
    finally:
        for chore in chores:
            chore.cancel()
        await asyncio.shield(asyncio.ensure_future(app.aclose()))


async def _flush_now_and_then(gateway: Gateway) -> None:
    while True:
        await asyncio.sleep(_FLUSH_EVERY_S)
        gateway.flush()


async def _keep_books(app: App) -> None:
    """Sum up the ledger, and forget single entries that are too old."""
    while True:
        await asyncio.sleep(_ROLL_UP_EVERY_S)
        try:
            await app.books.durable.roll_up()
            period = Period.parse(app.gateway.config.governance.retention)
            oldest = period.before(datetime.datetime.now(datetime.UTC))
            await app.books.durable.prune(oldest.timestamp())
        except StoreAway as error:
            log.warning("the ledger could not be summed up: %s", error)
        except Exception:
            log.exception("the ledger could not be summed up")


async def watch(gateway: Gateway, path: Path) -> None:
    """Follow edits of the configuration file: a valid one takes effect, an invalid one is refused aloud."""
    from watchfiles import awatch  # 30 ms that only a long-running gateway should cost

    before = path.read_bytes()
    async for _ in awatch(
        path.parent, recursive=False, watch_filter=lambda _, changed: Path(changed).name == path.name
    ):
        try:
            content = path.read_bytes()
        except OSError:
            continue  # between an editor's delete and its rename
        if content == before:
            continue
        before = content
        try:
            config = load_config(path)
        except ConfigError as error:
            log.error("the edited configuration is refused, the old one goes on: %s", error.message)
            continue
        try:
            await gateway.reload(config)
            log.info("configuration reloaded")
        except Exception:
            log.exception("the edited configuration could not be taken over")


def _local_file(storage: StorageConfig) -> Path:
    """The SQLite file; beside another store it only keeps what is learned."""
    if storage.url is None or not storage.url.startswith("sqlite:"):
        return user_data_folder() / "mcpgate.sqlite3"
    return Path(storage.url.removeprefix("sqlite:///")).expanduser()


def make_engine(config: SandboxConfig) -> Engine:
    """The engine that the settings name. Raises ConfigError."""
    options: dict[str, Any] = {
        "warm": config.warm,
        "max_executions": config.max_executions,
        "sessions": SessionLimits(
            config.max_sessions, config.max_session_mib, config.max_sessions_in_all, config.session_idle_s
        ),
    }
    path = _ENGINES.get((config.engine, config.isolation))
    if path is None:
        path, options = config.engine, {}
    elif path != _ENGINES["wasm", "none"]:
        options["allow_unlocked"] = config.allow_unlocked
    module, _, attribute = path.partition(":")
    try:
        engine: Engine = getattr(importlib.import_module(module), attribute)(**options)
        return engine
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"sandbox.engine is {config.engine!r}; it must be 'wasm', 'restricted' or an import string "
            f"'package.module:Class' ({error})"
        ) from error
