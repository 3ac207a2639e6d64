"""Puts the parts together: the only file that picks implementations."""

import functools
import importlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcpgate import lifecycle
from mcpgate.activity.activity import Activity
from mcpgate.activity.alerts import AlertStore, Channel
from mcpgate.activity.contents import ContentLog, ContentStore
from mcpgate.activity.log import RequestLog
from mcpgate.activity.requests import Requests as RequestStore
from mcpgate.activity.watch import AlertWatch
from mcpgate.cache.cache import Cache
from mcpgate.cache.questions import Questions
from mcpgate.cache.store import CacheStore
from mcpgate.catalog.learned import Memory
from mcpgate.channels.command import CommandChannel, LogChannel
from mcpgate.config.cache import SemanticCacheConfig
from mcpgate.config.environment import otel_of_environment, token_key_of_environment
from mcpgate.config.files import user_data_folder
from mcpgate.config.governance import GovernanceConfig
from mcpgate.config.llm import ProviderConfig
from mcpgate.config.settings import Config, SandboxConfig, Settings, StorageConfig
from mcpgate.config.telemetry import ChannelConfig
from mcpgate.errors import ConfigError, Unavailable
from mcpgate.gateway import Gateway
from mcpgate.governance.callers import Token
from mcpgate.governance.gate import Gate
from mcpgate.governance.store import Store, StoreUnavailable
from mcpgate.governance.tokens import Tokens
from mcpgate.lifecycle import (
    App,
    BatchTable,
    GovernanceStores,
    ObjectStore,
    TokenStore,
    check_packages,
    prices_of,
    troubles_of,
)
from mcpgate.llm.registry import Providers
from mcpgate.stores.alerts import MemoryAlerts
from mcpgate.stores.cache import MemoryCache
from mcpgate.stores.contents import MemoryContents
from mcpgate.stores.memory import MemoryStore
from mcpgate.stores.objects import MemoryObjects
from mcpgate.stores.requests import MemoryRequests
from mcpgate.stores.sqlite.alerts import SqliteAlerts
from mcpgate.stores.sqlite.batches import SqliteBatches
from mcpgate.stores.sqlite.cache import SqliteCache
from mcpgate.stores.sqlite.contents import SqliteContents
from mcpgate.stores.sqlite.governance import SqliteStore
from mcpgate.stores.sqlite.learned import SqliteLearnedStore
from mcpgate.stores.sqlite.objects import SqliteObjects
from mcpgate.stores.sqlite.requests import SqliteRequests
from mcpgate.stores.sqlite.tokens import SqliteTokens
from mcpgate.stores.tokens import MemoryTokens
from mcpgate.telemetry.metrics import Metrics
from mcpgate.upstream.tokens import Vault
from mcpgate_sandbox.engine import Engine
from mcpgate_sandbox.sessions import SessionLimits

if TYPE_CHECKING:
    from mcpgate.activity.tracing import OtlpTracer
    from mcpgate.llm.chat import Chat
    from mcpgate.llm.provider import Provider
    from mcpgate.llm.wire import ClientSide, Translator
    from mcpgate.providers.embedder import HttpEmbedder

log = logging.getLogger("mcpgate.app")
_ENGINES = {
    ("wasm", "none"): "mcpgate_sandbox.wasm:WasmEngine",
    ("wasm", "process"): "mcpgate_sandbox.isolated:IsolatedWasmEngine",
    ("restricted", "none"): "mcpgate_sandbox.restricted:RestrictedEngine",
    ("restricted", "process"): "mcpgate_sandbox.restricted:RestrictedEngine",
}
"""By `sandbox.engine` and `sandbox.isolation`. Restricted code always runs in a process of its own."""


async def build(config: Config) -> App:
    """Raises ConfigError, Unavailable."""
    check_packages(config)
    engine = make_engine(config.sandbox)
    stores = await open_stores(config, may_forget=True)
    learned = SqliteLearnedStore(_local_file(config.storage))
    metrics = Metrics()
    metrics.configure(config)
    settings = Settings(config)
    tracer = make_tracer(settings, metrics)
    gate = Gate(
        *(config.governance, prices_of(config), stores.counters, stores.store, metrics),
        oauth=config.server.oauth,
        tokens=_Issuers(settings),
        tracer=tracer,
    )
    tokens = token_store(config, stores)
    vault = Vault(tokens, token_key_of_environment())
    objects, batches = object_store(config, stores), batch_store(config, stores)
    cache = Cache(
        *(settings, cache_store(config, stores), tokens),
        make_embedder=make_embedder,
        checked=metrics.checked,
        questions=question_store(config, stores),
    )
    providers = Providers(settings, make_provider)

    def make_chat() -> "Chat":
        from mcpgate.llm.cached import CachedAnswers
        from mcpgate.llm.chat import Chat

        return Chat(settings, gate, providers, _translator, objects, batches, CachedAnswers(cache, settings))

    requests = request_store(config, stores)
    contents = ContentLog(settings, content_store(config, stores))
    gate.keep_contents(contents)
    alerts = AlertWatch(settings, gate, alert_store(config, stores), make_channel, lambda: troubles_of(gateway))
    activity = Activity(requests, RequestLog(requests, stores.store, lambda: gate.policy), contents, alerts)
    gateway: Gateway = Gateway(settings, engine, Memory(learned), gate, metrics, vault, cache, make_chat, activity)
    return App(gateway, stores, learned, tokens, objects, batches, cache, providers, tracer)


def make_tracer(settings: Settings, metrics: Metrics) -> "OtlpTracer | None":
    """What exports traces; None where nothing asks for them. Raises ConfigError."""
    config, variables = settings.config.telemetry, otel_of_environment()
    if variables.is_disabled or not (config.otlp_endpoint or variables.has_endpoint):
        return None
    try:
        tracing = _optional("mcpgate.activity.tracing", "otel", "telemetry.otlp_endpoint")
    except ConfigError as error:
        if config.otlp_endpoint is not None:
            raise
        log.warning("$OTEL_EXPORTER_OTLP_ENDPOINT is set, but traces are not exported: %s", error.message)
        return None
    exporter = tracing.make_exporter(config.otlp_endpoint, config.otlp_protocol or variables.protocol)
    made: OtlpTracer = tracing.OtlpTracer(settings, exporter, metrics.exported)
    return made


class _Issuers:
    """Verifies access tokens. Loaded when first needed: it takes 0.1 s that only gateways with issuers pay."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._verifier = settings, None if settings.config.server.oauth is None else _verifier(settings)

    async def verify(self, text: str) -> Token:
        return await self._loaded().verify(text)

    async def probe(self) -> Mapping[str, str]:
        return await self._loaded().probe()

    def _loaded(self) -> Tokens:
        if self._verifier is None:
            self._verifier = _verifier(self._settings)
        return self._verifier


def _verifier(settings: Settings) -> Tokens:
    from mcpgate.issuers.verifier import Verifier

    return Verifier(settings)


def token_store(config: Config, stores: GovernanceStores) -> TokenStore:
    """Where tokens of sign-ins are kept."""
    found: TokenStore = _beside(config, stores, MemoryTokens, SqliteTokens, "tokens:PostgresTokens")
    return found


def object_store(config: Config, stores: GovernanceStores) -> ObjectStore:
    """Where it is recorded what providers keep for whom."""
    found: ObjectStore = _beside(config, stores, MemoryObjects, SqliteObjects, "objects:PostgresObjects")
    return found


def make_embedder(config: SemanticCacheConfig) -> "HttpEmbedder | None":
    if config.embedder is None:
        return None
    from mcpgate.providers.embedder import HttpEmbedder

    return HttpEmbedder(config.embedder)


def cache_store(config: Config, stores: GovernanceStores) -> CacheStore:
    """Where answers are kept, unless the configuration says another place."""

    def memory() -> CacheStore:
        return MemoryCache(config.cache.memory_mib * 1024 * 1024)

    where = config.cache.store
    if where == "memory":
        return memory()
    if where is not None:
        redis = _optional("mcpgate.stores.redis.cache", "redis", "cache.store")
        made: CacheStore = redis.RedisCache(where)
        return made
    found: CacheStore = _beside(config, stores, memory, SqliteCache, "cache:PostgresCache")
    return found


def question_store(config: Config, stores: GovernanceStores) -> Questions | None:
    """What searches questions in the store of the cache; None if that cannot be searched. Raises ConfigError if the
    configuration asks for it."""
    found: Questions | None = None
    if config.cache.store is None:
        found = _beside(config, stores, lambda: None, lambda path: None, "questions:PostgresQuestions")
    if found is None and config.cache.semantic.index == "store":
        raise ConfigError("cache.semantic.index is 'store', which needs PostgreSQL with pgvector as storage.url")
    return found


def batch_store(config: Config, stores: GovernanceStores) -> BatchTable:
    """Where batches are."""
    found: BatchTable = _beside(config, stores, lambda: SqliteBatches(None), SqliteBatches, "batches:PostgresBatches")
    return found


def request_store(config: Config, stores: GovernanceStores) -> RequestStore:
    """The ledger as a log."""
    store = stores.store

    def memory() -> RequestStore:
        assert isinstance(store, MemoryStore)
        return MemoryRequests(store)

    found: RequestStore = _beside(config, stores, memory, SqliteRequests, "requests:PostgresRequests")
    return found


def content_store(config: Config, stores: GovernanceStores) -> ContentStore:
    """Where what requests say is kept."""
    found: ContentStore = _beside(config, stores, MemoryContents, SqliteContents, "contents:PostgresContents")
    return found


def alert_store(config: Config, stores: GovernanceStores) -> AlertStore:
    """Where it is recorded what was told about alerts."""
    found: AlertStore = _beside(config, stores, MemoryAlerts, SqliteAlerts, "alerts:PostgresAlerts")
    return found


def _beside(
    config: Config,
    stores: GovernanceStores,
    memory: Callable[[], object],
    sqlite: Callable[[Path], object],
    postgres: str,
) -> Any:
    """One of the smaller stores: where that of governance is, in tables of its own. `postgres`: MODULE:CLASS, which
    borrows the connections."""
    if isinstance(stores.store, MemoryStore):
        return memory()
    if isinstance(stores.store, SqliteStore):
        return sqlite(_local_file(config.storage))
    module, _, name = postgres.partition(":")
    found = _optional(f"mcpgate.stores.postgres.{module}", "postgres", "storage.url")
    return getattr(found, name)(stores.store.pool)  # type: ignore[attr-defined]


def make_channel(config: ChannelConfig) -> Channel:
    """A way to tell somebody."""
    if config.type == "webhook":
        from mcpgate.channels.webhook import WebhookChannel  # imports an HTTP client, which takes 0.2 s

        return WebhookChannel(config)
    return CommandChannel(config) if config.type == "command" else LogChannel()


async def open_stores(config: Config, may_forget: bool = False) -> GovernanceStores:
    """With `may_forget`, memory is used if the default store cannot be created and nothing requires it. Raises
    ConfigError; Unavailable if the store cannot be used."""
    storage, names = config.storage, config.governance.report_metadata
    try:
        store: Store
        if storage.url is not None and not storage.url.startswith("sqlite:"):
            postgres = _optional("mcpgate.stores.postgres.governance", "postgres", "storage.url")
            store = await postgres.PostgresStore.open(storage.url, names)
        else:
            store = _sqlite_store(config, may_forget)
        if storage.counters is None:
            return GovernanceStores(store, store)
        redis = _optional("mcpgate.stores.redis.counters", "redis", "storage.counters")
        return GovernanceStores(await redis.RedisCounters.open(storage.counters, store), store)
    except StoreUnavailable as error:
        raise Unavailable(f"the store is unusable: {error}") from error


def _sqlite_store(config: Config, may_forget: bool) -> Store:
    path = _local_file(config.storage)
    try:
        return SqliteStore(path, config.governance.report_metadata)
    except StoreUnavailable as error:
        governed = config.governance != GovernanceConfig() or any(s.prices for s in config.mcpServers.values())
        if governed or not may_forget or config.storage.url is not None:
            raise
        if _is_there(path):  # it may hold budgets, which must not be lifted by damaging it
            raise StoreUnavailable(
                f"{error}. Budgets and keys may be declared in it, so mcpgate does not start without it: repair it, "
                "move it away, or name another store in storage.url"
            ) from error
        log.warning("%s; usage is kept in memory and lost at exit", error)
        return MemoryStore()


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True  # it may exist, but we are not allowed to look


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
    """The running gateway of a configuration: see lifecycle.running."""
    async with lifecycle.running(await build(config), progress, hold_s, with_engine) as gateway:
        yield gateway


def make_provider(name: str, config: ProviderConfig) -> "Provider":
    """One provider of models."""
    if config.type == "echo":
        from mcpgate.providers.echo import EchoProvider

        return EchoProvider(name, config, _client_sides())
    if config.aws is not None:
        from mcpgate.providers.aws import BedrockProvider

        return BedrockProvider(name, config)
    from mcpgate.providers.http import HttpProvider  # imports an HTTP client, which takes 0.2 s

    if config.vertex is not None:
        from mcpgate.providers.google import VertexTokens

        return HttpProvider(name, config, VertexTokens(name, config.vertex))
    return HttpProvider(name, config)


@functools.cache
def _client_sides() -> "Mapping[str, ClientSide]":
    from mcpgate.api.llm import chat, gemini, messages, responses

    return {"chat": chat, "messages": messages, "responses": responses, "gemini": gemini}


@functools.cache
def _translator() -> "Translator":
    from mcpgate.api.llm.translation import WireTranslator
    from mcpgate.providers import bedrock, chat, gemini, messages

    sides = {"chat": chat, "messages": messages, "gemini": gemini, "bedrock": bedrock}
    return WireTranslator(_client_sides(), sides)


def _local_file(storage: StorageConfig) -> Path:
    """The SQLite file; with another store, it holds only what is learned."""
    if storage.url is None or not storage.url.startswith("sqlite:"):
        return user_data_folder() / "mcpgate.sqlite3"
    return Path(storage.url.removeprefix("sqlite:///")).expanduser()


def make_engine(config: SandboxConfig) -> Engine:
    """The configured engine. Raises ConfigError."""
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
    elif path == _ENGINES["wasm", "none"]:
        options["recycle"] = config.recycle
    else:
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
