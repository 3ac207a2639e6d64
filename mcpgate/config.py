"""Typed settings: the only reader of configuration files and of the environment.

Everything is frozen and every unknown key is an error that names the nearest known one, so that a
misspelt limit is never a limit that does not hold.
"""

import difflib
import ipaddress
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import platformdirs
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mcpgate.errors import ConfigError
from mcpgate.governance_config import GovernanceConfig, LimitsConfig, PositiveSeconds, Usd

FILE_NAMES = ("mcpgate.yaml", "mcpgate.yml", "mcpgate.json")
_LATER = {
    "cache": "caching",
    "llm": "the LLM gateway",
}
"""Sections of the public contract that this version does not build yet: refused, never silently ignored."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_CLIENTS_ONLY = frozenset(("autoApprove", "alwaysAllow", "trust", "gallery"))
"""Keys of pasted entries that say how a client treats its user; they mean nothing here."""


class ToolFilter(_Model):
    """Globs over original tool names, e.g. `read_*`. What is not allowed, or denied, does not exist."""

    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()


class UpstreamConfig(_Model):
    """One entry of `mcpServers`: the fields that Claude, Cursor and VS Code use, and ours."""

    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default={}, repr=False)
    """Added to a minimal environment; nothing else of the gateway's environment reaches the child."""
    cwd: str | None = None
    url: str | None = None
    headers: dict[str, str] = Field(default={}, repr=False)
    type: Literal["stdio", "http", "sse"] | None = None
    """Default: stdio for a `command`; for a `url`, http, then sse where the server has only that."""
    disabled: bool = False
    expose: Literal["code", "direct", "both", "hidden"] = "code"
    """code: reached from execute_code. direct: shown in the gateway's own tools/list as server__tool."""
    tools: ToolFilter = ToolFilter()
    timeout_s: PositiveSeconds = 60.0
    """For one call; a progress notification starts it anew."""
    connect_timeout_s: PositiveSeconds = 60.0
    """From starting the process to a listed catalogue; `npx` may have to download the server first."""
    max_concurrency: int = Field(default=16, ge=1, le=10_000)
    """Calls in flight at once; further ones wait for their turn."""
    max_message_mib: int = Field(default=64, ge=1, le=1024)
    """A longer message of the upstream is refused; over stdio without being read into memory whole."""
    description: str | None = None
    """What the server is for, shown in lists; default: the server's own title or instructions."""
    prices: dict[str, Usd] = {}
    """US dollars for one call, by glob over the tool's own name; the first that matches. None: not priced."""

    @model_validator(mode="before")
    @classmethod
    def _accept_spellings(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = {key: value for key, value in data.items() if key not in _CLIENTS_ONLY}
        for theirs, ours in (("serverUrl", "url"), ("httpUrl", "url"), ("transport", "type")):
            if theirs in data and ours not in data:
                data[ours] = data.pop(theirs)
        if isinstance(data.get("type"), str):
            kind = data["type"].lower().replace("_", "-")
            data["type"] = {"streamable-http": "http", "streamablehttp": "http", "local": "stdio"}.get(kind, kind)
        return data

    @model_validator(mode="after")
    def _one_way_in(self) -> "UpstreamConfig":
        if (self.command is None) == (self.url is None):
            raise ValueError("needs either `command` (a program to start) or `url` (a server to connect to)")
        if self.url is not None:
            if not self.url.startswith(("http://", "https://")):
                raise ValueError(f"url is {self.url!r}; it must begin with http:// or https://")
            if self.type == "stdio":
                raise ValueError("type is 'stdio', which goes with `command`; for a `url` it is 'http' or 'sse'")
        elif self.type in ("http", "sse"):
            raise ValueError(f"type is {self.type!r}, which goes with `url`; for a `command` it is 'stdio'")
        return self

    @field_validator("env", "headers", mode="before")
    @classmethod
    def _plain_values(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                k: str(v) if isinstance(v, (int, float)) and not isinstance(v, bool) else v for k, v in value.items()
            }
        return value


class CodeModeConfig(_Model):
    list_limit: int = Field(default=12, ge=1, le=200)
    """Tools in one search answer, at most."""
    list_tokens: int = Field(default=300, ge=100, le=20_000)
    """Tokens of one answer of list_tools, at most."""
    max_result_tokens: int = Field(default=2000, ge=100, le=1_000_000)
    """Tokens of one execution's answer; what is longer is shortened and kept under a handle."""
    index_tokens: int = Field(default=120, ge=0, le=10_000)
    """Tokens of the index of servers in execute_code's description; 0 turns it off."""
    max_handles: int = Field(default=200, ge=1, le=100_000)
    """Values kept for later executions, the least recently used go first."""
    max_handle_mib: int = Field(default=256, ge=1, le=16_384)


class SandboxConfig(LimitsConfig):
    engine: str = "wasm"
    """`wasm`, `restricted`, or an import string `package.module:Class`."""
    isolation: Literal["none", "process"] = "none"
    """process: each Wasm guest in a locked-down child process of its own, for gateways that serve strangers."""
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


class StorageConfig(_Model):
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


class ServerConfig(_Model):
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    allowed_origins: tuple[str, ...] = ()
    """Browser origins that may call, besides pages served from this machine."""
    allowed_hosts: tuple[str, ...] = ()
    """Values of the Host header that are accepted, besides the loopback names and `host` itself."""
    max_body_mib: int = Field(default=16, ge=1, le=1024)
    """The longest request, over stdio too."""
    trust_network: bool = False
    """Allow an address that other machines reach without any keys: whoever reaches it may call every tool."""


class TelemetryConfig(_Model):
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Config(_Model):
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


class NoConfig(ConfigError):
    """There is none, and none was named."""


def find_config(path: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The file to use: `path`, else $MCPGATE_CONFIG, else mcpgate.yaml here, else in the user's config folder.
    Raises ConfigError naming where it looked."""
    chosen = path or environ.get("MCPGATE_CONFIG")
    if chosen:
        file = Path(chosen).expanduser()
        if not file.is_file():
            raise ConfigError(f"configuration file {file} does not exist; `mcpgate import` can write one")
        return file
    folders = (Path.cwd(), user_config_folder())
    for folder in folders:
        for name in FILE_NAMES:
            if (folder / name).is_file():
                return folder / name
    raise NoConfig(
        f"no configuration found: looked for {FILE_NAMES[0]} in {' and '.join(str(f) for f in folders)}. "
        "Give one with -c FILE, or let `mcpgate import` write it from the agents you already use."
    )


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


def user_config_folder() -> Path:
    return Path(platformdirs.user_config_dir("mcpgate"))


def user_data_folder() -> Path:
    return Path(platformdirs.user_data_dir("mcpgate"))


def load_config(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read, interpolate and validate one file. Raises ConfigError that says what, where and how to mend it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return parse_config(text, str(path), environ)


def parse_config(text: str, source: str = "config", environ: Mapping[str, str] = os.environ) -> Config:
    """Parse YAML or JSON text. Raises ConfigError."""
    try:
        data = _parse(text)
    except _Twice as error:
        raise ConfigError(f"{source}: {error}") from None
    except yaml.MarkedYAMLError as error:
        # Never the line itself, which may hold a secret.
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}: not valid YAML: {error.problem or error.context}{where}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: must be a mapping with keys such as `mcpServers`, not a {type(data).__name__}")
    if "mcpServers" not in data and "servers" in data:
        data["mcpServers"] = data.pop("servers")  # VS Code's word for it
    for section, what in _LATER.items():
        if section in data:
            raise ConfigError(f"{source}: `{section}` ({what}) is not built in this version; remove it")
    try:
        data = _interpolate(data, "", source, environ)
    except RecursionError:
        raise ConfigError(f"{source}: an alias stands inside what it names") from None
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{source}: {_explain(e)}" for e in error.errors())) from None


def _parse(text: str) -> Any:
    text = text.removeprefix("\ufeff")
    if text.lstrip().startswith("{"):
        try:
            # YAML reads most JSON, but not tabs and not characters written as two \\u escapes.
            return json.loads(text, object_pairs_hook=_unique)
        except json.JSONDecodeError:
            pass
    return yaml.load(text, Loader=_UniqueKeys)


class _Twice(ValueError):
    """A key that stands twice is an error, not a silent loss."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise _Twice(f"key {twice!r} stands twice")
    return dict(pairs)


class _UniqueKeys(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise _Twice(f"key {key.value!r} stands twice, again in line {key.start_mark.line + 1}")
                seen.add(key.value)
        return node


_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}")


def _interpolate(node: Any, where: str, source: str, environ: Mapping[str, str]) -> Any:
    if isinstance(node, str):

        def value(match: re.Match[str]) -> str:
            name, has_default, default = match.group(1), match.group(2), match.group(3)
            if name in environ and (environ[name] or not has_default):
                return environ[name]
            if has_default:
                return default
            raise ConfigError(
                f"{source}: {where} needs the environment variable {name}, which is not set "
                f"(set it, or write ${{{name}:-default}})"
            )

        return _VARIABLE.sub(value, node)
    if isinstance(node, dict):
        if node.get("disabled") is True and where.startswith("mcpServers."):
            return node  # a server that is switched off needs no secrets
        return {k: _interpolate(v, f"{where}.{k}" if where else str(k), source, environ) for k, v in node.items()}
    if isinstance(node, list):
        return [_interpolate(v, f"{where}[{i}]", source, environ) for i, v in enumerate(node)]
    return node


_MAY_HOLD_SECRETS = frozenset(("secret", "keys", "headers", "env", "args", "storage"))
"""Settings whose values no error shows."""


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "top level"
    if error["type"] == "extra_forbidden":
        known = _known_keys(error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, 1, 0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"unknown key `{where}`; {hint}"
    message = error["msg"].removeprefix("Value error, ")
    shown = None if _MAY_HOLD_SECRETS.intersection(error["loc"]) else error["input"]
    value = f" (it is {shown!r})" if isinstance(shown, (str, int, float, bool)) and len(str(shown)) < 80 else ""
    return f"{where}: {message}{value}. See servers.example.yaml."


def _known_keys(loc: tuple[Any, ...]) -> list[str]:
    model: Any = Config
    for part in loc:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            model = model.model_fields[part].annotation
        elif get_origin(model) is dict:
            model = get_args(model)[1]
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def key_of_environment(environ: Mapping[str, str] = os.environ) -> str | None:
    """The virtual key of a client that starts the gateway itself, over stdio: $MCPGATE_KEY."""
    return environ.get("MCPGATE_KEY") or None


def metadata_of_environment(environ: Mapping[str, str] = os.environ) -> str:
    """What such a client says of itself, as x-mcpgate-metadata would: $MCPGATE_METADATA, a JSON object."""
    return environ.get("MCPGATE_METADATA", "")


INHERITED = (
    ("APPDATA", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "PATH", "PATHEXT", "PROCESSOR_ARCHITECTURE", "SYSTEMDRIVE",
     "SYSTEMROOT", "TEMP", "USERNAME", "USERPROFILE")
    if sys.platform == "win32"
    else ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
)  # fmt: skip
"""The variables that stdio children inherit: enough to start, nothing secret."""


def child_environment(config: UpstreamConfig, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The whole environment of a stdio child."""
    # Exported shell functions (bash's `() {`) are code, not settings.
    inherited = {k: environ[k] for k in INHERITED if k in environ and not environ[k].startswith("()")}
    return {**inherited, **config.env}
