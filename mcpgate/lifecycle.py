"""A gateway's lifecycle: starts it, applies edits of its configuration, maintains its stores, stops it."""

import asyncio
import datetime
import importlib.util
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mcpgate.activity.watch import Trouble
from mcpgate.cache.cache import Cache
from mcpgate.cache.entry import CacheUnavailable
from mcpgate.catalog.names import clashes, to_identifier
from mcpgate.config.files import load_config
from mcpgate.config.periods import Period
from mcpgate.config.settings import Config
from mcpgate.config.telemetry import LogContentConfig
from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import ConfigError
from mcpgate.gateway import Gateway
from mcpgate.governance.prices import Prices
from mcpgate.governance.store import Counters, Store, StoreUnavailable
from mcpgate.llm.batches import BatchesUnavailable, BatchStore
from mcpgate.llm.objects import Objects, ObjectsUnavailable, oldest_kept
from mcpgate.llm.prices import ModelPrices
from mcpgate.llm.registry import Providers
from mcpgate.upstream.tokens import Tokens

log = logging.getLogger("mcpgate.app")
_MIB = 1024 * 1024
_LOOK_S = 0.5
"""How often it is looked whether the configuration file has changed."""
_FLUSH_EVERY_S = 5.0
_ROLL_UP_EVERY_S = 60.0
_INDEX_EVERY_S, _INDEX_PAUSE_S = 5.0, 0.02
"""Between two times that new entries are indexed, and between two batches of them: others write to the store too."""
_FIXED = (
    *(
        "server.host",
        "server.port",
        "server.base_path",
        "server.public_url",
        "server.max_body_mib",
        "server.max_body_mib_in_all",
    ),
    *("server.max_connections", "server.max_connections_per_address", "server.keep_alive_s", "server.watchdog_s"),
    *("storage.url", "storage.counters", "cache.store", "cache.encryption_key", "sandbox.engine"),
    *("sandbox.warm", "sandbox.recycle", "sandbox.isolation", "sandbox.allow_unlocked", "sandbox.max_executions"),
    *("sandbox.max_sessions", "sandbox.max_session_mib", "sandbox.max_sessions_in_all", "sandbox.session_idle_s"),
    *("governance.report_metadata", "code_mode.semantic_search", "telemetry.otlp_endpoint", "telemetry.otlp_protocol"),
)
"""Settings that cannot change while the gateway runs."""


@dataclass(frozen=True, slots=True)
class GovernanceStores:
    """The stores of governance: a durable one for records and ledger, and counters, in it or apart from it."""

    counters: Counters
    store: Store

    async def close(self) -> None:
        if self.counters is not self.store:
            await self.counters.close()
        await self.store.close()


class Closable(Protocol):
    def close(self) -> None: ...


class Closing(Protocol):
    def close(self) -> None:
        """Blocks until what is left is done, or has taken too long."""
        ...


class TokenStore(Tokens, Protocol):
    async def close(self) -> None: ...


class BatchTable(BatchStore, Protocol):
    async def close(self) -> None: ...


class ObjectStore(Objects, Protocol):
    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class App:
    """A gateway and its stores."""

    gateway: Gateway
    stores: GovernanceStores
    learned: Closable
    """Where learned shapes are stored."""
    tokens: TokenStore
    """Where tokens of sign-ins are stored."""
    objects: ObjectStore
    """Where it is recorded what providers keep for whom."""
    batches: BatchTable
    cache: Cache
    """Of answers."""
    providers: Providers
    """Of models."""
    tracer: Closing | None = None
    """Exports traces, where that is configured."""

    async def start(self, progress: Callable[[str], None] | None = None, with_engine: bool = True) -> None:
        """Get ready for `gateway.go()`, which begins connecting and preparing the sandbox and returns at once. Without
        `with_engine`, the sandbox is prepared when code first runs."""
        gateway, gone = self.gateway, False

        def go() -> None:
            nonlocal gone
            if not gone:
                gone = True
                if with_engine:
                    gateway.engine.start(progress)
                gateway.pool.go()
                gateway.indexer.start()

        gateway.go = go
        await gateway.gate.start()
        self.cache.start()
        await gateway.pool.apply(without_clashes(gateway.config.mcpServers))
        gateway.rebuild()

    async def aclose(self) -> None:
        gateway = self.gateway
        for work in gateway.outliving:
            work.cancel()
        await asyncio.gather(*gateway.outliving, return_exceptions=True)
        gateway.resources.close()
        await self.cache.stop()
        await asyncio.gather(
            gateway.pool.aclose(), gateway.engine.aclose(), self.providers.aclose(), return_exceptions=True
        )
        await gateway.gate.aclose()
        if self.tracer is not None:
            await asyncio.to_thread(self.tracer.close)
        gateway.learned.flush()
        await self.cache.aclose()
        await self.tokens.close()
        await self.objects.close()
        await self.batches.close()
        await gateway.activity.aclose()
        await self.stores.close()
        self.learned.close()


def check_packages(config: Config) -> None:
    """Raises ConfigError for guardrails that cannot be loaded, and where a package is not installed that a setting
    needs."""
    for name, provider in config.llm.providers.items():
        for has, extra, module in ((provider.aws, "bedrock", "botocore"), (provider.vertex, "vertex", "google.auth")):
            if has is not None and not _is_installed(module):
                missing = f"needs a package that is not installed ({module}): install the extra {extra!r}"
                raise ConfigError(f"llm.providers.{name} {missing}")
    content = config.telemetry.log_content
    if isinstance(content, LogContentConfig) and content.mask and not _is_installed("regex"):
        raise ConfigError(
            "telemetry.log_content.mask needs a package that is not installed (regex): install the extra 'mask'"
        )
    cache = config.cache
    wants_meanings = cache.semantic.enabled or any(rule.semantic for rule in cache.rules)
    if cache.enabled and wants_meanings and not _is_installed("numpy"):
        raise ConfigError("cache.semantic needs packages that are not installed (numpy): install the extra 'semantic'")
    if config.llm.guardrails:
        from mcpgate.llm.guardrails import Guardrails

        Guardrails(config.llm)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False


def prices_of(config: Config) -> Prices:
    tools = {name: server.prices for name, server in config.mcpServers.items()}
    return Prices(tools, config.governance.execution_usd_per_s, ModelPrices(config.llm).cost)


@asynccontextmanager
async def running(
    app: App, progress: Callable[[str], None] | None = None, hold_s: float = 0.0, with_engine: bool = True
) -> AsyncIterator[Gateway]:
    """A running gateway: everything it started has ended when the block exits. With `hold_s`, connecting and preparing
    the sandbox wait for `gateway.go()`, at most that long."""
    chores: list[asyncio.Task[None] | asyncio.TimerHandle] = []
    try:
        await app.start(progress, with_engine)
        if hold_s:
            chores.append(asyncio.get_running_loop().call_later(hold_s, app.gateway.go))
        else:
            app.gateway.go()
        chores += [asyncio.create_task(chore(app)) for chore in _CHORES]
        yield app.gateway
    finally:
        for chore in chores:
            chore.cancel()
        await asyncio.shield(asyncio.ensure_future(app.aclose()))


async def reload(gateway: Gateway, config: Config) -> None:
    """Apply an edited configuration. Calls in progress on servers that stay are not interrupted. Raises ConfigError,
    before anything is applied."""
    check_packages(config)
    fixed = [name for name in _FIXED if _setting(config, name) != _setting(gateway.config, name)]
    if fixed:
        log.warning("changes to %s take effect at the next start", ", ".join(fixed))
    logging.getLogger("mcpgate").setLevel(config.telemetry.log_level.upper())
    code_mode = config.code_mode
    in_all = code_mode.max_handle_mib_in_all * _MIB
    gateway.handles.resize(code_mode.max_handles, code_mode.max_handle_mib * _MIB, in_all)
    gateway.settings.config = config
    gateway.metrics.configure(config)
    await gateway.gate.reload(config.governance, prices_of(config), config.server.oauth)
    await gateway.pool.apply(without_clashes(config.mcpServers))
    gateway.rebuild()


async def watch(gateway: Gateway, path: Path) -> None:
    """Apply edits of the configuration file: a valid one takes effect, an invalid one is rejected and logged."""
    # By asking for the file's state: watching its folder would wake a thread at every write to a store that is there.
    before, seen = path.read_bytes(), None
    while True:
        await asyncio.sleep(_LOOK_S)
        now = await asyncio.to_thread(_state_of, path)
        if now is None or now == seen:  # None between an editor's delete and its rename
            continue
        seen = now
        try:
            content = path.read_bytes()
        except OSError:
            continue
        if content == before:
            continue
        before = content
        try:
            config = load_config(path, tolerant=True)
            _check_servers(gateway.config, config)
        except ConfigError as error:
            log.error("the edited configuration was rejected; the previous one stays active: %s", error.message)
            continue
        try:
            await reload(gateway, config)
            log.info("configuration reloaded")
        except Exception:
            log.exception("the edited configuration could not be applied")


def _state_of(path: Path) -> tuple[int, ...] | None:
    """What an edit changes, also one that replaces the file or a symlink in its path; None while it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def without_clashes(servers: Mapping[str, UpstreamConfig]) -> dict[str, UpstreamConfig]:
    """The servers, with those unusable whose names are the same in Python: code and grants would mean one and reach the
    other."""
    enabled = [name for name, server in servers.items() if not server.disabled]
    broken: dict[str, UpstreamConfig] = {}
    for names in clashes(enabled):
        both = " and ".join(repr(name) for name in names)
        reason = f"servers {both} have the same name in Python ({to_identifier(names[0])}); rename one of them"
        broken |= {name: UpstreamConfig.broken(reason) for name in names}
    return {name: broken.get(name, server) for name, server in servers.items()}


def _check_servers(before: Config, after: Config) -> None:
    """An edit must not break a server that worked; one that is new or was already unusable may stay unusable. Raises
    ConfigError."""
    worked = without_clashes(before.mcpServers)
    for name, server in without_clashes(after.mcpServers).items():
        old = worked.get(name)
        if server.unusable and old is not None and not old.unusable:
            raise ConfigError(f"mcpServers.{name}: {server.unusable}")


async def _flush_now_and_then(app: App) -> None:
    while True:
        await asyncio.sleep(_FLUSH_EVERY_S)
        learned = app.gateway.learned
        await asyncio.to_thread(learned.save, learned.take())


async def _keep_index(app: App) -> None:
    await app.gateway.indexer.keep(app.gateway.config.code_mode.semantic_search)


async def _keep_stores(app: App) -> None:
    """Roll up the ledger, and delete what is past its retention."""
    while True:
        await asyncio.sleep(_ROLL_UP_EVERY_S)
        try:
            await app.stores.store.roll_up()
            period = Period.parse(app.gateway.config.governance.retention)
            oldest = period.before(datetime.datetime.now(datetime.UTC))
            await app.stores.store.prune(oldest.timestamp())
            await app.objects.tidy()
            await app.batches.tidy(oldest_kept())
            await app.cache.tidy()
            await app.gateway.activity.contents.prune(datetime.datetime.now(datetime.UTC))
        except (StoreUnavailable, ObjectsUnavailable, BatchesUnavailable, CacheUnavailable) as error:
            log.warning("ledger roll-up failed: %s", error)
        except Exception:
            log.exception("ledger roll-up failed")


async def _index_requests(app: App) -> None:
    """Add new entries to the index of the request log, in small batches: what is not in it yet is found more slowly."""
    while True:
        await asyncio.sleep(_INDEX_EVERY_S * random.uniform(0.8, 1.2))
        try:
            while await app.gateway.activity.requests.index():
                await asyncio.sleep(_INDEX_PAUSE_S)
        except StoreUnavailable as error:
            log.debug("the request log cannot be indexed now: %s", error)
        except Exception:
            log.exception("the request log cannot be indexed")


async def _watch_alerts(app: App) -> None:
    await app.gateway.activity.alerts.run()


_CHORES = (_flush_now_and_then, _keep_stores, _keep_index, _index_requests, _watch_alerts)


def troubles_of(gateway: Gateway) -> list[Trouble]:
    """What is wrong with servers and targets, as this process sees it."""
    kinds = {"failed": "upstream_down", "needs_sign_in": "sign_in_needed"}
    views = gateway.pool.views()
    found = [Trouble(kinds[view.state], view.name) for view in views if view.state in kinds]
    if gateway.has_chat:
        found += [Trouble("target_down", one["target"]) for one in gateway.chat.health() if one["rests_s"]]
    return found


def _setting(config: Config, name: str) -> object:
    section, _, key = name.partition(".")
    return getattr(getattr(config, section), key)
