"""The whole configuration as typed settings, section by section. Frozen, and every unknown key is an error, so that a
misspelt limit is never a limit that does not hold. Reading files is the work of files.py.
"""

import ipaddress
import re
from typing import Any, Literal

from pydantic import Field, field_validator

from mcpgate.config.base import Model
from mcpgate.config.governance import GovernanceConfig, LimitsConfig, PositiveSeconds
from mcpgate.config.upstreams import UpstreamConfig


class CodeModeConfig(Model):
    list_limit: int = Field(default=12, ge=1, le=200)
    """Tools in one search answer, at most."""
    list_tokens: int = Field(default=300, ge=100, le=20_000)
    """Tokens of one answer of list_tools, at most."""
    max_result_tokens: int = Field(default=2000, ge=100, le=1_000_000)
    """Tokens of one execution's answer; what is longer is shortened and kept under a handle."""
    index_tokens: int = Field(default=120, ge=0, le=10_000)
    """Tokens of the index of servers in execute_code's description; 0 turns it off."""
    max_handles: int = Field(default=200, ge=1, le=100_000)
    """Values of one key, or of all who come without one, that later executions can load. The least recently used go
    first."""
    max_handle_mib: int = Field(default=256, ge=1, le=16_384)
    """Memory of one key's values, about."""
    max_handle_mib_in_all: int = Field(default=1024, ge=1, le=1_048_576)
    """Memory of all kept values; beyond it the key that has most gives way."""


class SandboxConfig(LimitsConfig):
    engine: str = "wasm"
    """`wasm`, `restricted`, or an import string `package.module:Class`."""
    isolation: Literal["none", "process"] = "none"
    """process: each Wasm guest in a locked-down child process of its own, for gateways that serve strangers."""
    recycle: Literal["auto", "off"] = "auto"
    """auto: a Wasm guest that came to a clean end is renewed in place for the next execution, where the kernel helps
    (Linux 6.7 or later); off: each guest is used once. `isolation: process` never renews."""
    allow_unlocked: bool = False
    """Let child processes run code where the kernel cannot filter their system calls."""
    warm: int | None = Field(default=None, ge=0, le=256)
    """Interpreters kept ready; default: two a core, at most 8."""
    max_executions: int = Field(default=32, ge=1, le=1024)
    """Executions at once; further ones wait."""
    max_sessions: int = Field(default=8, ge=1, le=10_000)
    """Live sessions of one caller; the least recently used makes room."""
    max_session_mib: int = Field(default=2048, ge=96, le=1_048_576)
    """Memory of one caller's live sessions, each counted with `memory_mib`."""
    max_sessions_in_all: int = Field(default=64, ge=1, le=10_000)
    session_idle_s: PositiveSeconds = 1800.0
    """Sessions, and handles, that nobody used for so long are gone."""

    def limits(self) -> dict[str, Any]:
        """The limits of one execution, by their names in the sandbox's `Limits`."""
        return {name: getattr(self, name) for name in LimitsConfig.model_fields}


class StorageConfig(Model):
    url: str | None = Field(default=None, repr=False)
    """`sqlite:///path/to/file` or `postgresql://…`; default: mcpgate.sqlite3 in the user's data folder."""
    counters: str | None = Field(default=None, repr=False)
    """`redis://…`: budgets and rate limits are counted there, beside the durable store."""

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
    port: int = Field(default=8080, ge=0, le=65_535)
    allowed_origins: tuple[str, ...] = ()
    """Browser origins that may call, besides pages served from this machine."""
    allowed_hosts: tuple[str, ...] = ()
    """Values of the Host header that are accepted, besides the loopback names and `host` itself."""
    max_body_mib: int = Field(default=16, ge=1, le=1024)
    """The longest request, over stdio too."""
    max_body_mib_in_all: int = Field(default=256, ge=1, le=1_048_576)
    """Memory of long requests that are being read or answered; of one key a quarter of it."""
    max_connections: int | None = Field(default=None, ge=1, le=100_000)
    """Of each process; default: what its limit of open files allows, at most 4096."""
    max_connections_per_address: int | None = Field(default=None, ge=1, le=100_000)
    """Default: a quarter of `max_connections`. Trusted proxies have no limit of their own."""
    keep_alive_s: PositiveSeconds = 60.0
    """How long an HTTP connection stays open between requests."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose X-Forwarded-For, Forwarded and X-Forwarded-Proto headers are believed."""
    base_path: str = ""
    """The path prefix under which a proxy serves the gateway, e.g. /mcpgate."""
    watchdog_s: float = Field(default=10.0, ge=0, le=3600)
    """When the process has not answered for so long, it logs where it stands; a worker is replaced after three times
    as long. 0 turns it off."""
    trust_network: bool = False
    """Allow an address that other machines reach without any keys: whoever reaches it may call every tool."""

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for text in networks:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError:
                raise ValueError(f"{text!r} must be an address or a network, e.g. 10.0.0.0/8") from None
        return networks

    @field_validator("base_path")
    @classmethod
    def _prefix(cls, path: str) -> str:
        if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", path):
            raise ValueError(f"{path!r} must be a path such as /mcpgate")
        return path.rstrip("/")


class TelemetryConfig(Model):
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Model):
    """The whole configuration file."""

    mcpServers: dict[str, UpstreamConfig] = {}
    code_mode: CodeModeConfig = CodeModeConfig()
    sandbox: SandboxConfig = SandboxConfig()
    governance: GovernanceConfig = GovernanceConfig()
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


class Settings:
    """The configuration in force: whoever reads `config` reads the latest valid edit of the file."""

    def __init__(self, config: Config) -> None:
        self.config = config


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host by this name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def needs_key(config: "Config", host: str) -> bool:
    """Whether requests to an address must carry a key. Addresses that other machines reach ask for one whatever an
    edit of the running file says, unless the network is trusted."""
    if config.governance.require_key is True:
        return True
    return not (is_loopback(host) or config.server.trust_network)
