"""Puts the parts together: the only file that picks implementations."""

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcpgate.catalog.memory import Memory
from mcpgate.codemode.gateway import Gateway
from mcpgate.config import Config, SandboxConfig, load_config, user_data_folder
from mcpgate.errors import ConfigError
from mcpgate.stores.sqlite import SqliteStore
from mcpgate_sandbox.engine import Engine
from mcpgate_sandbox.sessions import SessionLimits

log = logging.getLogger("mcpgate.app")
_FLUSH_EVERY_S = 5.0
_ENGINES = {
    ("wasm", "none"): "mcpgate_sandbox.wasm:WasmEngine",
    ("wasm", "process"): "mcpgate_sandbox.isolated:IsolatedWasmEngine",
    ("restricted", "none"): "mcpgate_sandbox.restricted:RestrictedEngine",
    ("restricted", "process"): "mcpgate_sandbox.restricted:RestrictedEngine",
}
"""By `sandbox.engine` and `sandbox.isolation`. Restricted code never runs but in a process of its own."""


def build(config: Config) -> tuple[Gateway, SqliteStore]:
    """Raises ConfigError."""
    store = open_store(config)
    return Gateway(config, make_engine(config.sandbox), Memory(store), store), store


def open_store(config: Config) -> SqliteStore:
    """Where the gateway keeps things over restarts."""
    return SqliteStore(_store_path(config.storage.url))


@asynccontextmanager
async def running(
    config: Config, progress: Callable[[str], None] | None = None, hold_s: float = 0.0, with_engine: bool = True
) -> AsyncIterator[Gateway]:
    """A gateway from start to end: everything it started is gone when the block is left."""
    gateway, store = build(config)
    flusher: asyncio.Task[None] | None = None
    try:
        await gateway.start(progress, hold_s, with_engine)
        flusher = asyncio.create_task(_flush_now_and_then(gateway))
        yield gateway
    finally:
        if flusher is not None:
            flusher.cancel()
        await asyncio.shield(asyncio.ensure_future(gateway.aclose()))
        store.close()


async def _flush_now_and_then(gateway: Gateway) -> None:
    while True:
        await asyncio.sleep(_FLUSH_EVERY_S)
        gateway.flush()


async def watch(gateway: Gateway, path: Path) -> None:
    """Follow edits of the configuration file: a valid one takes effect, an invalid one is refused aloud."""
    from watchfiles import awatch  # 30 ms that only a long-running gateway should cost

    before = path.read_bytes()
    async for _ in awatch(path.parent, watch_filter=lambda _, changed: Path(changed).name == path.name):
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


def _store_path(url: str | None) -> Path:
    if url is None:
        return user_data_folder() / "mcpgate.sqlite3"
    return Path(url.removeprefix("sqlite:///")).expanduser()


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
