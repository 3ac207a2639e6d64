"""Puts the parts together: the only file that picks implementations."""

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from mcpgate.catalog.memory import Memory
from mcpgate.codemode.gateway import Gateway
from mcpgate.config import Config, SandboxConfig, load_config, user_data_folder
from mcpgate.errors import ConfigError
from mcpgate.stores.sqlite import SqliteStore
from mcpgate_sandbox.engine import Engine

log = logging.getLogger("mcpgate.app")
_FLUSH_EVERY_S = 5.0


def build(config: Config) -> tuple[Gateway, SqliteStore]:
    """Raises ConfigError."""
    store = SqliteStore(_store_path(config.storage.url))
    return Gateway(config, _engine(config.sandbox), Memory(store)), store


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
        gateway.memory.flush()


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


def _engine(config: SandboxConfig) -> Engine:
    if config.engine == "wasm":
        from mcpgate_sandbox.wasm import WasmEngine

        return WasmEngine(
            warm=config.warm,
            max_executions=config.max_executions,
            max_sessions=config.max_sessions,
            session_idle_s=config.session_idle_s,
        )
    module, _, name = config.engine.partition(":")
    try:
        engine: Engine = getattr(importlib.import_module(module), name)()
        return engine
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"sandbox.engine is {config.engine!r}; it must be 'wasm' or an import string "
            f"'package.module:Class' ({error})"
        ) from error
