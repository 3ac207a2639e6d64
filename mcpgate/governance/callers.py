"""Who is asking: callers, their grants, and the virtual keys that stand for them. Frozen values."""

import fnmatch
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from mcpgate.governance.records import EMPTY
from mcpgate.governance.rule import Rule


@dataclass(frozen=True, slots=True)
class Grants:
    """What a caller may do. Globs; an empty tuple grants nothing."""

    tools: tuple[str, ...] = ()
    """Over `server.tool`, with the server's and the tool's own names or their identifiers in Python."""
    servers: tuple[str, ...] = ()
    """Over servers: all tools of theirs."""
    models: tuple[str, ...] = ()
    """Over model aliases and `provider/model`."""
    providers: tuple[str, ...] = ()
    meta_tools: tuple[str, ...] | None = None
    """None: all of them for whoever may call any tool."""
    admin: bool = False

    def allow_tool(self, *spellings: tuple[str, str]) -> bool:
        """`spellings` of one tool, each (server, tool)."""
        return any(
            _matches(server, self.servers) or any(_matches_tool(server, tool, glob) for glob in self.tools)
            for server, tool in spellings
        )

    def allow_whole_server(self, *spellings: str) -> bool:
        """Whether every tool of a server is granted, those to come too; its resources and prompts are then."""
        return any(
            _matches(server, self.servers)
            or any(_matches_tool(server, "*", glob) for glob in self.tools if _is_whole(glob))
            for server in spellings
        )

    def allow_meta_tool(self, name: str) -> bool:
        return bool(self.tools or self.servers) if self.meta_tools is None else _matches(name, self.meta_tools)

    def allow_model(self, provider: str | None, *names: str) -> bool:
        """`names`: the alias that was asked for, or `provider/model`."""
        return _matches(provider or "", self.providers) or any(_matches(name, self.models) for name in names)

    @property
    def everything(self) -> bool:
        """Whether every tool is granted, so that nothing has to be left out of any list."""
        return "*" in self.tools or "*.*" in self.tools or "*" in self.servers


ALL_GRANTS = Grants(tools=("*",), models=("*",), meta_tools=("*",), admin=True)


def _matches_tool(server: str, tool: str, glob: str) -> bool:
    """`files.*` is the server `files` and no other: not `files.private`, whose name may hold a dot too."""
    if "." not in glob:
        return fnmatch.fnmatchcase(f"{server}.{tool}", glob)
    dots = [place for place, character in enumerate(glob) if character == "."]
    return any(
        fnmatch.fnmatchcase(server, glob[:place]) and fnmatch.fnmatchcase(tool, glob[place + 1 :]) for place in dots
    )


def _is_whole(glob: str) -> bool:
    """Whether a glob that fits any tool fits all: `files.*`, and not `files.[!d]*`."""
    return glob == "*" or glob.endswith(".*")


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


@dataclass(frozen=True, slots=True)
class Said:
    """What a request says of itself: a claim, until its key allows it."""

    user: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()


NOTHING_SAID = Said()


@dataclass(frozen=True, slots=True)
class Caller:
    """An identified caller with its scopes. Handles and sessions belong to it, and nobody else can reach them."""

    id: str = "local"
    """Of the virtual key, or `local`."""
    name: str = ""
    """Of the virtual key, for people."""
    user: str | None = None
    team: str | None = None
    customer: str | None = None
    grants: Grants = ALL_GRANTS
    limits: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """What its executions may use, where that differs from the settings: see `config/governance.LimitsConfig`."""
    metadata: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """What this request says of itself: `project_id`, `env`, …"""
    rules: tuple[Rule, ...] = field(default=(), repr=False, compare=False)
    """The limits that its key, user, team and customer have of their own."""
    digest: str | None = field(default=None, repr=False, compare=False)
    """Of the secret that it came with, SHA-256 in hex."""
    address: str | None = field(default=None, repr=False, compare=False)
    """Where it called from."""
    said: Said = field(default=NOTHING_SAID, repr=False, compare=False)
    """What `user` and `metadata` are made of, with what its key says."""

    @property
    def is_local(self) -> bool:
        """Whether it came without a key, where none is needed."""
        return self.id == "local"

    @property
    def owner(self) -> str:
        """Who may read handles and sandbox sessions: the key, or each user that it names in its requests."""
        return self.id if self.user is None else f"{self.id}\n{self.user}"  # which no id holds

    @property
    def account(self) -> str:
        """Whom fair shares are counted by: the key, whatever its requests say of themselves; `local` without one."""
        return self.id


LOCAL = Caller()
"""The one caller of a gateway that asks for no keys (stdio, loopback): all rights."""


@dataclass(frozen=True, slots=True, repr=False)
class VirtualKey:
    """A credential we issued. The secret itself is nowhere: `digests` are what is left of it."""

    id: str
    name: str = ""
    digests: tuple[tuple[str, float | None], ...] = ()
    """(SHA-256 of a secret in hex, until when it is good in epoch seconds or None): two while a rotation overlaps."""
    hint: str = ""
    """The last four characters of a secret that we made, to tell keys apart."""
    user: str | None = None
    team: str | None = None
    customer: str | None = None
    grants: Grants = field(default_factory=Grants)
    limits: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    expires_at: float | None = None
    """Epoch seconds."""
    enabled: bool = True
    revoked_at: float | None = None
    allowed_ips: tuple[str, ...] = ()
    """Addresses and networks it may be used from; empty: any."""
    users: tuple[str, ...] | None = None
    """Globs over users that its requests may name; None: declared ones, and of a key with a user only that."""
    metadata: Mapping[str, str | tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """By name: what its requests always carry, or globs over what they may say."""
    created_at: float = 0.0
    declared: bool = False
    """It stands in the configuration file and is changed there."""

    def __repr__(self) -> str:
        return f"VirtualKey(id={self.id!r}, name={self.name!r}, secret='********')"

    def state(self, now: float) -> Literal["active", "revoked", "expired", "disabled"]:
        """What stands in the way of using it, whatever its secret; `now` in epoch seconds."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and now >= self.expires_at:
            return "expired"
        return "active" if self.enabled else "disabled"

    def admits_address(self, address: str | None) -> bool:
        """Whether the key may be used from an address; one that is not known is refused where any are named."""
        if not self.allowed_ips:
            return True
        try:
            seen = ipaddress.ip_address(address or "")
        except ValueError:
            return False
        if isinstance(seen, ipaddress.IPv6Address) and seen.ipv4_mapped is not None:
            seen = seen.ipv4_mapped
        networks = (ipaddress.ip_network(text, strict=False) for text in self.allowed_ips)
        return any(seen.version == network.version and seen in network for network in networks)
