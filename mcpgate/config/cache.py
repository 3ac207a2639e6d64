"""The `cache` section: which answers are kept, for whom, how long and where; and `cache` of an MCP server."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from mcpgate.config.base import Model
from mcpgate.config.governance import METADATA, SCOPES
from mcpgate.config.llm import Patterns

Mode = Literal["use", "refresh", "no-store", "off"]
Scope = Literal["key", "user", "team", "customer", "shared"]
Seconds = Annotated[float, Field(gt=0, le=366 * 86_400)]
Share = Annotated[float, Field(ge=0, le=1)]


def _condition(name: str) -> str:
    known = (*SCOPES, "model", "format")
    if name not in known and not METADATA.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid condition; expected {', '.join(known)} or metadata.NAME")
    return name


class CacheRuleConfig(Model):
    """What holds for some requests to models."""

    when: dict[Annotated[str, AfterValidator(_condition)], Patterns] = {}
    """Condition to globs; all conditions must hold: `key`, `user`, `team`, `customer`, `metadata.NAME`, `model` (as the
    client named it), `format` (`chat`, `responses`, `messages`, `gemini`, `embeddings` …). None: every request that is
    left."""
    mode: Mode | None = None
    """`use`: answer from the cache, at any temperature. `refresh`: ask the provider and keep the new answer.
    `no-store`: answer from the cache, but keep nothing new. `off`: neither, whatever a request's header says."""
    ttl_s: Seconds | None = None
    """Instead of `cache.ttl_s`."""
    scope: Scope | None = None
    """Instead of `cache.scope`."""
    semantic: bool | None = None
    """Instead of `cache.semantic.enabled`."""
    threshold: Share | None = None
    """Instead of `cache.semantic.threshold`."""


class EmbedderConfig(Model):
    """An endpoint that speaks OpenAI's format of embeddings."""

    base_url: str = Field(pattern=r"^https?://[^\s?#@]+$")
    """The address that `/embeddings` is added to, e.g. `http://127.0.0.1:11434/v1`."""
    model: str = Field(min_length=1, max_length=512)
    """The endpoint's name of the model."""
    api_key: SecretStr | None = None
    """Take it from the environment: `"${EMBEDDINGS_KEY}"`."""
    timeout_s: Seconds = 5.0
    """After this the question is answered without the cache."""


class SemanticCacheConfig(Model):
    """Answers for questions that mean the same. Needs the extra `semantic`."""

    enabled: bool = False
    """Look for them. `cache.enabled` must be true, too."""
    threshold: Share | None = None
    """The least similarity of two questions, from 0 to 1. Default: what `max_false_hit_rate` needs."""
    max_false_hit_rate: float = Field(default=0.01, gt=0, le=0.2)
    """The share of hits that may be wrong, as measured on pairs of questions: see docs/benchmarks/cache_quality.md."""
    check_share: Share = 0.02
    """The share of hits for which the provider is asked too, at its price. An entry whose answer differs is dropped."""
    index: Literal["memory", "store"] = "memory"
    """Where questions are searched. `memory`: in each process. `store`: in PostgreSQL with pgvector 0.8 or later, for
    all processes at once and without a bound; the cache must be where `storage.url` is."""
    max_questions: int = Field(default=100_000, ge=100, le=2_000_000)
    """Questions that are searched in the memory of each process. Beyond that, the oldest are left out."""
    embedder: EmbedderConfig | None = None
    """Embeds questions instead of the model that is part of the package."""


class CacheConfig(Model):
    """Answers of models that are kept for equal requests. Results of tools: `cache` of their server."""

    enabled: bool = True
    """Answer requests with temperature 0 and embeddings from the cache, and others that ask for it: with the header
    `x-mcpgate-cache: use`, or by a rule."""
    ttl_s: Seconds = 300.0
    """How long an answer is kept."""
    stale_s: float = Field(default=0, ge=0, le=366 * 86_400)
    """How long after that it may still be served, while a new one is fetched in the background."""
    scope: Scope | None = None
    """Who shares answers: `key`, `user` (of one key), `team`, `customer`, or `shared` by everybody. Default: the key's
    team, else the key. What is personal, depends on the time or calls tools is never shared beyond the user."""
    share_targets: bool = False
    """An answer of one target of an alias is served for all of its targets."""
    tool_calls: bool = False
    """Keep answers that call tools, too."""
    shadow: bool = False
    """Serve nothing from the cache, only report what it would have served."""
    hit_cost_share: Share = 0.0
    """The share of an answer's price that a hit costs, and is charged to budgets."""
    count_hits: bool = True
    """Count hits in rate limits on requests."""
    memory_mib: int = Field(default=64, ge=1, le=1_048_576)
    """Memory of each process for entries."""
    max_mib: int = Field(default=1024, ge=1, le=1_048_576)
    """The most that the store keeps. Beyond it, entries that were not used for long are deleted."""
    max_entry_kib: int = Field(default=1024, ge=1, le=65_536)
    """The largest request and the largest answer that are kept."""
    store: str | None = Field(default=None, repr=False)
    """`memory`: in each process. `redis://…`: shared. Default: where `storage.url` is."""
    encryption_key: SecretStr | None = None
    """Encrypts entries in the store: any text of at least 16 characters. Take it from the environment."""
    rules: tuple[CacheRuleConfig, ...] = ()
    """The first one whose conditions hold counts."""
    semantic: SemanticCacheConfig = SemanticCacheConfig()
    """Answers for questions that mean the same."""

    @field_validator("store")
    @classmethod
    def _known_store(cls, store: str | None) -> str | None:
        if store is not None and store != "memory" and not store.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must be memory, redis://host:port/database, rediss://… or unix://…")
        return store

    @model_validator(mode="after")
    def _consistent(self) -> "CacheConfig":
        key = self.encryption_key
        if key is not None and len(key.get_secret_value()) < 16:
            raise ValueError("encryption_key must have at least 16 characters")
        if self.max_entry_kib > self.memory_mib * 1024:
            raise ValueError("max_entry_kib must not be more than memory_mib")
        if self.semantic.index == "store" and self.store is not None:
            raise ValueError(
                "semantic.index 'store' needs the cache in PostgreSQL: set storage.url, and no cache.store"
            )
        if self.semantic.index == "store" and key is not None:
            raise ValueError(
                "semantic.index 'store' and encryption_key exclude each other: vectors that are searched are not "
                "encrypted, and tell what a question is about"
            )
        return self


class ToolCacheConfig(Model):
    """Results of a server's tools that are kept. A call of a tool that is neither read-only nor named here drops what
    is kept of the server."""

    ttl_s: Seconds = 300.0
    """How long a result is kept."""
    tools: tuple[str, ...] = ()
    """Globs over its tools. Default: those that its annotations call read-only and idempotent."""
    scope: Scope | None = None
    """As `cache.scope`. Of a server that each user signs in to, results are never shared beyond the user."""
    resources: bool = True
    """Keep resources, too, for as long as the server says (`ttlMs`), at most `ttl_s`."""
