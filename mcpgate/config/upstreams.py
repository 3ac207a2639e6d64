"""The `mcpServers` section: how to reach each MCP server, and what to show of it."""

import re
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from mcpgate.config.auth import AuthConfig
from mcpgate.config.base import Model
from mcpgate.config.cache import ToolCacheConfig
from mcpgate.config.governance import PositiveSeconds, Usd

_CLIENTS_ONLY = frozenset(("autoApprove", "alwaysAllow", "trust", "gallery"))
"""Keys of pasted entries that concern only the client; they are ignored."""


Expose = Literal["code", "direct", "both", "hidden"]
_TRANSPORTS = {"streamable-http": "http", "streamablehttp": "http", "local": "stdio"}


def transport_name(name: str) -> str:
    """Our name of a transport that clients and servers spell in several ways."""
    plain = name.lower().replace("_", "-")
    return _TRANSPORTS.get(plain, plain)


def is_disabled(entry: Any) -> bool:
    """Whether an entry, as it stands in a file, is switched off."""
    return isinstance(entry, dict) and entry.get("disabled") is True


class ToolFilter(Model):
    """Globs over the server's own tool names, e.g. `read_*`. A tool that is not allowed, or that is denied, does not
    exist."""

    allow: tuple[str, ...] = ("*",)
    """Tools to keep."""
    deny: tuple[str, ...] = ()
    """Tools to remove from them."""


class UpstreamConfig(Model):
    """One entry of `mcpServers`: the fields that Claude, Cursor and VS Code use, and ours."""

    command: str | None = None
    """The program of a server that runs on this machine (stdio)."""
    args: tuple[str, ...] = Field(default=(), repr=False)
    """Its arguments."""
    env: dict[str, str] = Field(default={}, repr=False)
    """Added to a minimal environment. Nothing else of the gateway's environment reaches the server."""
    cwd: str | None = None
    """The folder it runs in. Default: the gateway's."""
    url: str | None = Field(default=None, repr=False)
    """The address of a server that is reached over HTTP."""
    headers: dict[str, str] = Field(default={}, repr=False)
    """HTTP headers of every request to it, e.g. `Authorization`."""
    auth: AuthConfig | None = None
    """How the gateway signs in to it: `oauth`, or an object. A server without this key that wants OAuth can be signed
    in to as well."""
    type: Literal["stdio", "http", "sse"] | None = None
    """Default: `stdio` for a `command`. For a `url`: `http`, then `sse` if the server has only that."""
    disabled: bool = False
    """Do not connect to it."""
    expose: Expose = "code"
    """`code`: the tools are called from `execute_code`. `direct`: the server's tools, resources and prompts are listed
    as the gateway's own. `both`: both. `hidden`: neither."""
    prefix: str | None = Field(default=None, max_length=64, pattern=r"^[A-Za-z0-9_.-]*$")
    """Put before the names of directly exposed tools. Default: the server's name and `__`. Empty: the tools keep their
    own names."""
    tools: ToolFilter = ToolFilter()
    """Which of its tools exist for the gateway."""
    timeout_s: PositiveSeconds = 60.0
    """For one call. A progress notification restarts it."""
    total_timeout_s: PositiveSeconds = 3600.0
    """For one call in all, however much progress it reports. Never less than `timeout_s`."""
    connect_timeout_s: PositiveSeconds = 60.0
    """From starting the process to its list of tools. `npx` may have to download the server first."""
    max_concurrency: int = Field(default=16, ge=1, le=10_000)
    """Calls in flight at once. Further calls wait."""
    max_message_mib: int = Field(default=64, ge=1, le=1024)
    """The largest message of the server. A larger one is rejected without reading all of it into memory. Also the limit
    of everything that it lists, all pages together."""
    max_tools: int = Field(default=5000, ge=1, le=1_000_000)
    """Only the first tools of a longer list are used."""
    description: str | None = None
    """What the server is for. Shown in lists. Default: the server's own title or instructions."""
    approve: tuple[str, ...] = ()
    """Globs over its tools. Before such a call, the person at the client is asked; a client that cannot ask is
    refused."""
    approve_destructive: bool = False
    """The same for every tool that its annotations do not call read-only or not destructive."""
    cache: ToolCacheConfig | None = None
    """Keep results of its tools and resources. Default: nothing is kept."""
    prices: dict[str, Usd] = {}
    """US dollars for one call, by glob over the tool's own name. The first match counts. Without a match the call has
    no known price."""

    _unusable: str = PrivateAttr(default="")

    @classmethod
    def broken(cls, reason: str) -> "UpstreamConfig":
        """Stands in for an unusable entry: its error affects only that server."""
        made = cls.model_construct()
        made._unusable = reason
        return made

    @property
    def unusable(self) -> str:
        """Why the entry is unusable, and how to fix it; empty if it is usable."""
        return self._unusable

    @model_validator(mode="before")
    @classmethod
    def _accept_spellings(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = {key: value for key, value in data.items() if key not in _CLIENTS_ONLY}
        for theirs, ours in (("serverUrl", "url"), ("httpUrl", "url"), ("transport", "type"), ("oauth", "auth")):
            if theirs in data and ours not in data:
                data[ours] = data.pop(theirs)
        if isinstance(data.get("type"), str):
            data["type"] = transport_name(data["type"])
        return data

    @model_validator(mode="after")
    def _one_way_in(self) -> "UpstreamConfig":
        if self._unusable:
            return self
        if (self.command is None) == (self.url is None):
            raise ValueError("needs either `command` (a program to start) or `url` (a server to connect to)")
        if self.auth is not None:
            if self.url is None:
                raise ValueError("`auth` needs `url`: a program is given its credentials in `env`")
            if any(name.lower() == "authorization" for name in self.headers):
                raise ValueError("has both `auth` and a header Authorization; remove one of them")
        if self.url is not None:
            if not self.url.startswith(("http://", "https://")):
                # Without user, password and query: they may be secrets.
                shown = re.sub(r"[?#].*|(?<=//)[^/]*@", "", self.url, flags=re.DOTALL)
                raise ValueError(f"url is {shown!r}; it must begin with http:// or https://")
            if self.type == "stdio":
                raise ValueError("type 'stdio' needs `command`; for a `url`, use 'http' or 'sse'")
        elif self.type in ("http", "sse"):
            raise ValueError(f"type {self.type!r} needs `url`; for a `command`, use 'stdio'")
        return self

    @field_validator("args", mode="before")
    @classmethod
    def _plain_arguments(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError("must be a list of arguments, e.g. [-y, some-package]")
        if isinstance(value, (list, tuple)):
            return [str(v) if isinstance(v, (int, float)) and not isinstance(v, bool) else v for v in value]
        return value

    @field_validator("env", "headers", mode="before")
    @classmethod
    def _plain_values(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                k: str(v) if isinstance(v, (int, float)) and not isinstance(v, bool) else v for k, v in value.items()
            }
        return value


class BundleConfig(Model):
    """A named part of the gateway, served at `/mcp/NAME`."""

    servers: tuple[str, ...] = ("*",)
    """Names of servers, or globs over them. Their resources and prompts belong to the bundle too."""
    tools: ToolFilter = ToolFilter()
    """Which tools belong to it: globs over `tool` or `server.tool`."""
    expose: Expose | None = None
    """How all its servers are exposed. Default: as each server's own `expose` says."""
    meta_tools: bool = True
    """`false`: without the four meta-tools, as a plain proxy of its servers."""
