"""Callers, their grants, and the virtual keys that identify them. Frozen values."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from mcpgate.addresses import is_in, parse_networks
from mcpgate.governance.records import EMPTY
from mcpgate.governance.rule import Rule


@dataclass(frozen=True, slots=True)
class Grants:
    """What a caller may do. Globs; an empty tuple grants nothing."""

    tools: tuple[str, ...] = ()
    """Over `server.tool`, with the server's and the tool's own names or their identifiers in Python."""
    servers: tuple[str, ...] = ()
    """Over servers: grants all their tools."""
    models: tuple[str, ...] = ()
    """Over model aliases and `provider/model`."""
    providers: tuple[str, ...] = ()
    meta_tools: tuple[str, ...] | None = None
    """None: all of them if any tool is granted."""
    admin: bool = False
    within: "Grants | None" = None
    """What must allow it too: an access token can narrow what its key grants."""

    def allow_tool(self, *spellings: tuple[str, str]) -> bool:
        """`spellings` of one tool, each (server, tool)."""
        return any(
            matches_any(server, self.servers) or any(_matches_tool(server, tool, glob) for glob in self.tools)
            for server, tool in spellings
        ) and (self.within is None or self.within.allow_tool(*spellings))

    def allow_whole_server(self, *spellings: str) -> bool:
        """Whether every tool of a server is granted, including future ones; its resources and prompts then are too."""
        return any(
            matches_any(server, self.servers)
            or any(_matches_tool(server, "*", glob) for glob in self.tools if _is_whole(glob))
            for server in spellings
        ) and (self.within is None or self.within.allow_whole_server(*spellings))

    def allow_meta_tool(self, name: str) -> bool:
        own = bool(self.tools or self.servers) if self.meta_tools is None else matches_any(name, self.meta_tools)
        return own and (self.within is None or self.within.allow_meta_tool(name))

    def allow_model(self, provider: str | None, *names: str) -> bool:
        """`names`: the requested alias, or `provider/model`."""
        own = matches_any(provider or "", self.providers) or any(matches_any(name, self.models) for name in names)
        return own and (self.within is None or self.within.allow_model(provider, *names))

    def allow_provider(self, provider: str) -> bool:
        """Whether models of a provider are granted by its name, whichever they are."""
        own = matches_any(provider, self.providers) or matches_any(
            provider, [glob.partition("/")[0] for glob in self.models if glob == "*" or "/" in glob]
        )
        return own and (self.within is None or self.within.allow_provider(provider))

    @property
    def everything(self) -> bool:
        """Whether every tool is granted, so that no list needs filtering."""
        own = "*" in self.tools or "*.*" in self.tools or "*" in self.servers
        return own and (self.within is None or self.within.everything)


Realm = tuple[str, str]
"""`team` or `customer`, and its id."""
ALL_GRANTS = Grants(tools=("*",), models=("*",), meta_tools=("*",), admin=True)


def _matches_tool(server: str, tool: str, glob: str) -> bool:
    """`files.*` matches only the server `files`: not `files.private`, since names may contain dots."""
    if "." not in glob:
        return fnmatch.fnmatchcase(f"{server}.{tool}", glob)
    dots = [place for place, character in enumerate(glob) if character == "."]
    return any(
        fnmatch.fnmatchcase(server, glob[:place]) and fnmatch.fnmatchcase(tool, glob[place + 1 :]) for place in dots
    )


def _is_whole(glob: str) -> bool:
    """Whether a glob matches all tools if it matches any: `files.*`, but not `files.[!d]*`."""
    return glob == "*" or glob.endswith(".*")


def matches_any(name: str, globs: Sequence[str]) -> bool:
    return name in globs or "*" in globs or any(fnmatch.fnmatchcase(name, glob) for glob in globs)


@dataclass(frozen=True, slots=True)
class Token:
    """A verified access token."""

    issuer: str
    """As in its `iss`."""
    claims: Mapping[str, Any] = field(repr=False)
    ends_at: float
    """Epoch seconds, leeway included."""
    digest: str = field(repr=False)
    """SHA-256 of its text, in hex."""
    sent_to: tuple[str, ...] = ()
    """The addresses that a token for this request may be meant for: the one that was called, and those above it."""


SIGNED_IN = "signed-in"
"""Stands in place of a key where the users of access tokens own things. No key has this id."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a request claims about itself, before its key has allowed it."""

    user: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()


NOTHING_SAID = Said()


@dataclass(frozen=True, slots=True)
class Caller:
    """An identified caller with its scopes. It owns its handles and sessions; no one else can reach them."""

    id: str = "local"
    """Of the virtual key, or `local`."""
    name: str = ""
    """Of the virtual key, for people."""
    user: str | None = None
    team: str | None = None
    customer: str | None = None
    grants: Grants = ALL_GRANTS
    limits: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """What its executions may use, if different from the settings: see `config/governance.LimitsConfig`."""
    bundle: str | None = None
    """The part of the gateway that it reaches: a name from the configuration's `bundles`; None: all of it."""
    metadata: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """What this request says about itself: `project_id`, `env`, …"""
    rules: tuple[Rule, ...] = field(default=(), repr=False, compare=False)
    """The own limits of its key, user, team and customer."""
    digest: str | None = field(default=None, repr=False, compare=False)
    """SHA-256 of the secret or the token it used, in hex."""
    address: str | None = field(default=None, repr=False, compare=False)
    """The address it called from."""
    said: Said = field(default=NOTHING_SAID, repr=False, compare=False)
    """The claims from which, with its key, `user` and `metadata` are derived."""
    token: Token | None = field(default=None, repr=False, compare=False)
    """The access token it came with, in place of a secret."""
    realm: Realm | None = None
    """All that it sees as an administrator; None: everything."""

    @property
    def is_local(self) -> bool:
        """Whether it came without a key, and none is required."""
        return self.id == "local"

    @property
    def owner(self) -> str:
        """The owner of handles and sandbox sessions: the key, or each user that it names in its requests; with an
        access token its user, whichever key it acts with."""
        if self.token is not None:
            return f"{SIGNED_IN}\n{self.user}"
        return self.id if self.user is None else f"{self.id}\n{self.user}"  # no id contains a newline

    @property
    def account(self) -> str:
        """The unit for fair shares: the key, whatever its requests claim; `local` without one. With an access token its
        user: its issuer says who that is."""
        return self.id if self.token is None else f"{SIGNED_IN}/{self.user}"

    def renewed(self, by: "Caller") -> "Caller":
        """This caller with what a later request of the same owner brought: of two access tokens, the one that ends
        last."""
        if self.token is not None and by.token is not None and by.token.ends_at < self.token.ends_at:
            return self
        return replace(by, bundle=self.bundle)

    @property
    def actor(self) -> str:
        """Whom the audit trail names."""
        return self.id if self.token is None else f"{self.id} ({self.user})"


LOCAL = Caller()
"""The only caller of a gateway that requires no keys (stdio, loopback): all rights."""


@dataclass(frozen=True, slots=True, repr=False)
class VirtualKey:
    """A credential that the gateway issued. The secret itself is not stored, only its `digests`."""

    id: str
    name: str = ""
    digests: tuple[tuple[str, float | None], ...] = ()
    """(SHA-256 of a secret in hex, its end in epoch seconds or None): two while a rotation overlaps."""
    hint: str = ""
    """The last four characters of a generated secret, to tell keys apart."""
    user: str | None = None
    team: str | None = None
    customer: str | None = None
    grants: Grants = field(default_factory=Grants)
    bundle: str | None = None
    """The only bundle that it reaches."""
    limits: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    expires_at: float | None = None
    """Epoch seconds."""
    enabled: bool = True
    revoked_at: float | None = None
    allowed_ips: tuple[str, ...] = ()
    """Addresses and networks it may be used from; empty: any."""
    users: tuple[str, ...] | None = None
    """Globs over users that its requests may name; None: declared users, or, for a key with a user, only that one."""
    metadata: Mapping[str, str | tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """By name: what its requests always carry, or globs over what they may claim."""
    created_at: float = 0.0
    realm: Realm | None = None
    """Its own team, or else its own customer: see realm.py."""
    declared: bool = False
    """Whether it is declared in the configuration file, and changed only there."""

    def __repr__(self) -> str:
        return f"VirtualKey(id={self.id!r}, name={self.name!r}, secret='********')"

    def state(self, now: float) -> Literal["active", "revoked", "expired", "disabled"]:
        """Whether it can be used, independent of its secret; `now` in epoch seconds."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and now >= self.expires_at:
            return "expired"
        return "active" if self.enabled else "disabled"

    def admits_address(self, address: str | None) -> bool:
        """Whether the key may be used from an address; an unknown address is refused if the key names any."""
        return not self.allowed_ips or is_in(address, parse_networks(self.allowed_ips))
