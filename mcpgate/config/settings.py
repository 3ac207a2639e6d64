"""The whole configuration as typed settings, section by section. Frozen. Every unknown key is an error, so that a
misspelt limit is never silently ignored. files.py reads the files.
"""

import ipaddress
import re
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mcpgate.config.base import Model
from mcpgate.config.cache import CacheConfig
from mcpgate.config.governance import GovernanceConfig, LimitsConfig, PositiveSeconds
from mcpgate.config.llm import LlmConfig
from mcpgate.config.oauth import OAuthConfig
from mcpgate.config.telemetry import TelemetryConfig
from mcpgate.config.upstreams import BundleConfig, UpstreamConfig


class CodeModeConfig(Model):
    list_limit: int = Field(default=12, ge=1, le=200)
    """Tools that a search answer shows with their parameters, at most; further ones come by name."""
    list_tokens: int = Field(default=300, ge=100, le=20_000)
    """The most tokens of one `list_tools` answer."""
    semantic_search: bool = True
    """Rank tools by what a request means as well as by its words, where the extra `semantic` is installed."""
    max_result_tokens: int = Field(default=2000, ge=100, le=1_000_000)
    """The most tokens of one execution's answer. A longer one is shortened and kept under a handle."""
    index_tokens: int = Field(default=120, ge=0, le=10_000)
    """Tokens of the index of servers and tools in the description of `execute_code`. 0 turns it off."""
    max_handles: int = Field(default=200, ge=1, le=100_000)
    """Values kept for later executions, per key. The least recently used ones are dropped first."""
    max_handle_mib: int = Field(default=256, ge=1, le=16_384)
    """Memory of these values, per key."""
    max_handle_mib_in_all: int = Field(default=1024, ge=1, le=1_048_576)
    """Memory of these values in total. Beyond it the key that has most loses its least recently used ones."""


class SandboxConfig(LimitsConfig):
    engine: str = "wasm"
    """`wasm`, `restricted`, or an import string `package.module:Class`."""
    isolation: Literal["none", "process"] = "none"
    """`process`: each Wasm guest runs in its own locked-down child process. Use it for untrusted users."""
    recycle: Literal["auto", "off"] = "auto"
    """`auto`: a Wasm guest that ended cleanly is renewed in place for the next execution, where the kernel supports it
    (Linux 6.7 or later). `off`: each guest is used once. `isolation: process` never renews."""
    allow_unlocked: bool = False
    """Run code in child processes even where the kernel cannot filter their system calls."""
    warm: int | None = Field(default=None, ge=0, le=256)
    """Interpreters kept ready. Default: two per core, at most 8."""
    max_executions: int = Field(default=32, ge=1, le=1024)
    """Executions at once. Further executions wait."""
    max_sessions: int = Field(default=8, ge=1, le=10_000)
    """Live sessions of one caller. The least recently used one ends first."""
    max_session_mib: int = Field(default=2048, ge=96, le=1_048_576)
    """Memory of one caller's live sessions. Each counts with `memory_mib`."""
    max_sessions_in_all: int = Field(default=64, ge=1, le=10_000)
    """Live sessions of all callers together."""
    session_idle_s: PositiveSeconds = 1800.0
    """Sessions and handles end after this long without use."""

    def limits(self) -> dict[str, Any]:
        """The limits of one execution, by their names in the sandbox's `Limits`."""
        return {name: getattr(self, name) for name in LimitsConfig.model_fields}


class StorageConfig(Model):
    url: str | None = Field(default=None, repr=False)
    """`sqlite:///path/to/file` or `postgresql://…`. Default: `mcpgate.sqlite3` in the user's data folder."""
    counters: str | None = Field(default=None, repr=False)
    """`redis://…`: budgets and rate limits are counted there. The ledger stays in `url`."""

    @field_validator("url")
    @classmethod
    def _known_store(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("sqlite:///", "postgresql://", "postgres://")):
            raise ValueError("must be sqlite:///relative, sqlite:////absolute/path or postgresql://user@host/database")
        return url

    @field_validator("counters")
    @classmethod
    def _known_counters(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("redis://", "rediss://", "unix://", "valkey://", "valkeys://")):
            raise ValueError("must be redis://host:port/database, rediss://… or unix://…")
        return url


class ServerConfig(Model):
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """The port to listen on. 0 chooses a free one."""
    allowed_origins: tuple[str, ...] = ()
    """Browser origins that may call, in addition to pages served from this machine."""
    allowed_hosts: tuple[str, ...] = ()
    """Accepted values of the Host header, in addition to loopback names and `host`."""
    max_body_mib: int = Field(default=16, ge=1, le=1024)
    """The longest request, over HTTP and over stdio."""
    max_body_mib_in_all: int = Field(default=256, ge=1, le=1_048_576)
    """Memory of long requests that are being read or answered, in total. One key may use a quarter of it."""
    max_connections: int | None = Field(default=None, ge=1, le=100_000)
    """Open connections of each process. Default: what its limit of open files allows, at most 4096."""
    max_connections_per_address: int | None = Field(default=None, ge=1, le=100_000)
    """Default: a quarter of `max_connections`. Trusted proxies have no limit of their own."""
    keep_alive_s: PositiveSeconds = 60.0
    """How long an HTTP connection stays open between requests."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose X-Forwarded-For, Forwarded and X-Forwarded-Proto headers are believed."""
    base_path: str = ""
    """The path prefix under which a proxy serves the gateway, e.g. /mcpgate."""
    public_url: str | None = None
    """The address at which clients reach the gateway, e.g. https://gateway.example.com/mcpgate: people are sent there
    to sign in to servers, and access tokens must be for it. Default: `host` and `port`."""
    oauth: OAuthConfig | None = None
    """Accept access tokens of these authorization servers in place of keys. Default: only keys."""
    watchdog_s: float = Field(default=10.0, ge=0, le=3600)
    """If the process has not answered for this long, it logs where it is stuck. A worker is replaced after three times
    as long. 0 turns it off."""
    trust_network: bool = False
    """Listen on a non-loopback address without keys. Everyone who reaches the port may call every tool."""

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for text in networks:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError:
                raise ValueError(f"{text!r} must be an address or a network, e.g. 10.0.0.0/8") from None
        return networks

    @field_validator("public_url")
    @classmethod
    def _public(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url):
            raise ValueError(f"{url!r} must be an address such as https://gateway.example.com")
        return None if url is None else url.rstrip("/")

    @field_validator("base_path")
    @classmethod
    def _prefix(cls, path: str) -> str:
        if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", path):
            raise ValueError(f"{path!r} must be a path such as /mcpgate")
        return path.rstrip("/")


class Config(Model):
    """The whole configuration file."""

    mcpServers: dict[str, UpstreamConfig] = {}
    bundles: dict[str, BundleConfig] = {}
    code_mode: CodeModeConfig = CodeModeConfig()
    sandbox: SandboxConfig = SandboxConfig()
    governance: GovernanceConfig = GovernanceConfig()
    llm: LlmConfig = LlmConfig()
    cache: CacheConfig = CacheConfig()
    storage: StorageConfig = StorageConfig()
    server: ServerConfig = ServerConfig()
    telemetry: TelemetryConfig = TelemetryConfig()

    @field_validator("mcpServers")
    @classmethod
    def _names(cls, servers: dict[str, UpstreamConfig]) -> dict[str, UpstreamConfig]:
        for name in servers:
            if not name.strip() or len(name) > 128 or any(ord(c) < 32 for c in name):
                raise ValueError(f"server name {name!r} must be 1–128 printable characters")
        return servers

    @field_validator("bundles")
    @classmethod
    def _paths(cls, bundles: dict[str, BundleConfig]) -> dict[str, BundleConfig]:
        for name in bundles:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
                raise ValueError(
                    f"bundle name {name!r} must be 1–64 letters, digits, '.', '_' or '-': it is part of a URL"
                )
        return bundles

    @model_validator(mode="after")
    def _usable_keys(self) -> "Config":
        for_tokens = self.server.oauth.keys() if self.server.oauth is not None else frozenset()
        for id, key in self.governance.keys.items():
            if key.secret is None and id not in for_tokens:
                raise ValueError(
                    f"governance.keys.{id}: `secret` is missing; only a key that server.oauth names in `claims.keys` "
                    "can do without"
                )
        return self


class Settings:
    """The active configuration: `config` is always the latest valid edit of the file."""

    def __init__(self, config: Config) -> None:
        self.config = config


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach this name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


NO_AUDIENCE = (
    "server.oauth needs server.public_url, e.g. https://gateway.example.com, because access tokens must be for the "
    "address of the gateway"
)


def knows_audience(server: ServerConfig) -> bool:
    """Whether the configuration says what access tokens must be for. No request may say it, for whoever has a token for
    another resource can send that resource's name."""
    oauth = server.oauth
    named = server.public_url is not None or bool(set(server.allowed_hosts) - {"*"})
    return named or oauth is None or bool(oauth.audience) or all(issuer.audience for issuer in oauth.issuers)


def needs_key(config: "Config", host: str) -> bool:
    """Whether requests to an address must carry a key or a token. If the file declares keys or accepts tokens, they
    must, unless `require_key` is false: otherwise a client would gain rights by leaving its key out. At addresses that
    other machines reach they must whatever an edit of the file says, unless the network is trusted."""
    required = config.governance.require_key
    if required or (required is None and (config.governance.keys or config.server.oauth is not None)):
        return True
    return not (is_loopback(host) or config.server.trust_network)
