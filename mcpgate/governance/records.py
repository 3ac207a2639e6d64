"""Who is asking, for what, and what it came to. Frozen values that every face makes and every flow passes on.

Money is `Decimal` US dollars in these values and whole nano-dollars where it is counted (`to_nano`, `to_usd`).
"""

import datetime
import fnmatch
import ipaddress
import math
import os
import random
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mcpgate.governance.gate import Admission
    from mcpgate.governance.rules import Rule

_ONE_NANO = Decimal(1).scaleb(-9)


def shown_moment(at: float) -> str | None:
    """Epoch seconds as ISO 8601 in UTC; None for what never comes."""
    if not math.isfinite(at):
        return None
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


EMPTY: Mapping[str, str] = MappingProxyType({})

META_TOOL_NAMES = ("list_tools", "describe_tools", "read_docs", "execute_code")


def to_nano(usd: Decimal) -> int:
    """Dollars as whole nano-dollars; what is finer is rounded half to even."""
    return int((usd.quantize(_ONE_NANO, ROUND_HALF_EVEN)).scaleb(9))


def to_usd(nano: int) -> Decimal:
    """Whole nano-dollars as dollars, without trailing zeros."""
    value = Decimal(nano).scaleb(-9).normalize()
    return value if value == 0 or value.as_tuple().exponent <= 0 else value.quantize(Decimal(1))  # type: ignore[operator]


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
    """What its executions may use, where that differs from the settings: see `governance_config.LimitsConfig`."""
    metadata: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """What this request says of itself: `project_id`, `env`, …"""
    rules: "tuple[Rule, ...]" = field(default=(), repr=False, compare=False)
    """The ceilings that its key, user, team and customer have of their own."""
    noted: "list[Admission] | None" = field(default=None, repr=False, compare=False)
    """Where what is admitted for this one request is noted, for a face that tells of it in headers."""

    @property
    def is_local(self) -> bool:
        """Whether it came without a key, where none is needed."""
        return self.id == "local"

    @property
    def owner(self) -> str:
        """Whom handles and sandbox sessions belong to: the key, or each user that it names in its requests."""
        return self.id if self.user is None else f"{self.id}\n{self.user}"  # which no id holds


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


Kind = Literal["tool", "execution", "meta", "chat", "embedding"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Counted things. Of a request before it is made, an estimate at the upper end."""

    calls: int = 0
    """Of a tool."""
    input_tokens: int = 0
    """All that the model reads, cached ones included."""
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    seconds: float = 0.0
    """Of running code."""
    definition_tokens_saved: int = 0
    result_tokens_saved: int = 0
    """Against classic MCP, estimated: see codemode/savings.py."""


@dataclass(frozen=True, slots=True)
class Request:
    """One thing that a caller wants done, with the dimensions that rules look at."""

    kind: Kind
    server: str | None = None
    tool: str | None = None
    """A tool's own name, without the server; of kind `meta` the meta-tool's."""
    provider: str | None = None
    model: str | None = None
    estimate: Usage = field(default_factory=Usage)
    id: str = field(default_factory=lambda: new_id("rq"))
    parent_id: str | None = None
    """The execution that a tool was called from: such a request is counted, but not as one more request of the
    caller, unless a rule speaks of servers or tools."""
    at: float = field(default_factory=time.time)
    """Epoch seconds. Everything it costs is counted at this moment."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One request's part in one counter: what it takes from what is left in which window."""

    counter: str
    """The counter's name: rule, measure and subject."""
    measure: str
    """What is counted: see `rules.Measure`."""
    amount: int
    """At most: nano-dollars, tokens, requests or milliseconds."""
    limit: int | None
    """None: only counted, nothing is refused for it."""
    cell: int
    """Which part of time it is counted in: see windows.py."""
    oldest: int
    """The first cell that still counts."""
    ends_at: float
    """When `cell` counts no longer, epoch seconds; infinity if never."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a counter stands at, over the cells that count."""

    spent: int = 0
    held: int = 0
    first: int | None = None
    """The oldest cell with anything in it."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Amounts held for one request in every counter it touches."""

    id: str
    """The request's."""
    owner: str
    """The process that must settle or release it, and whose lease keeps it."""
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a reservation was not made."""

    misfits: tuple[tuple[int, Standing], ...]
    """Every claim that did not fit, by its place, with what its counter stood at."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger. Never changed, never taken back."""

    id: str
    parent_id: str | None
    at: float
    """When it was admitted, epoch seconds."""
    kind: str
    key: str
    user: str | None
    team: str | None
    customer: str | None
    server: str | None
    tool: str | None
    provider: str | None
    model: str | None
    outcome: str
    """`ok`, or the code of the error."""
    cost: int | None
    """Nano-dollars; None when it has no known price: zero would look like a free call."""
    usage: Usage
    latency_ms: float
    cache: str = ""
    """How a cache answered it: exact, semantic, or nothing."""
    metadata: Mapping[str, str] = field(default_factory=lambda: EMPTY)


_random = random.Random(secrets.randbits(256))
os.register_at_fork(after_in_child=lambda: _random.seed(secrets.randbits(256)))


def new_id(kind: str) -> str:
    """Not a secret: a system call for each would cost every request more than the rest of its admission."""
    return f"{kind}_{_random.getrandbits(80):020x}"
