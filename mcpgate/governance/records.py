"""Requests, estimates, reservations and ledger entries: frozen values that every flow passes on.

Those that are made for every request are named tuples, because a frozen dataclass takes several times as long to make.
Money is whole nano-dollars, here and in counters. Settings and what people see are in US dollars: see `to_nano` and
`to_usd`.
"""

import datetime
import math
import os
import random
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from types import MappingProxyType
from typing import Literal, NamedTuple

_ONE_NANO = Decimal(1).scaleb(-9)


def shown_moment(at: float) -> str | None:
    """Epoch seconds as ISO 8601 in UTC; None for infinity."""
    if not math.isfinite(at):
        return None
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


EMPTY: Mapping[str, str] = MappingProxyType({})
NO_COUNTS: Mapping[str, int] = MappingProxyType({})
NO_TIMES: Mapping[str, float] = MappingProxyType({})


def to_nano(usd: Decimal) -> int:
    """Dollars as whole nano-dollars, rounded half to even."""
    return int((usd.quantize(_ONE_NANO, ROUND_HALF_EVEN)).scaleb(9))


def to_usd(nano: int) -> Decimal:
    """Whole nano-dollars as dollars, without trailing zeros."""
    value = Decimal(nano).scaleb(-9).normalize()
    return value if value == 0 or value.as_tuple().exponent <= 0 else value.quantize(Decimal(1))  # type: ignore[operator]


def usd_text(nano: int) -> str:
    """The same as text, in a sixth of the time."""
    whole, rest = divmod(abs(nano), 10**9)
    text = f"{whole}.{rest:09d}".rstrip("0").rstrip(".")
    return f"-{text}" if nano < 0 else text


Kind = Literal["tool", "resource", "execution", "meta", "chat", "embedding"]


class Usage(NamedTuple):
    """Counted usage. Before a request is made, a high estimate."""

    calls: int = 0
    """Of a tool."""
    input_tokens: int = 0
    """All that the model reads, cached ones included."""
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    seconds: float = 0.0
    """Of running code."""
    more: Mapping[str, int] = NO_COUNTS
    """Rare kinds of usage, by name: reasoning_tokens, cache_write_1h_tokens; audio, image and video tokens, each of
    `_input_`, `_cache_read_` or `_output_tokens`, which are part of the above; in estimates those of a kind that is not
    known yet, `media_input_tokens` and `media_output_tokens`."""


HITS = ("exact", "semantic")
"""How the cache answers: an equal request, or one that means the same."""


@dataclass(frozen=True, slots=True)
class Saved:
    """Tokens that a request saved, estimated: see codemode/savings.py. Negative if a small answer cost more than it
    saved."""

    definition_tokens: int = 0
    """For tool definitions that were not sent to the model."""
    result_tokens: int = 0
    """For tool results that it did not read."""
    model_tokens: int = 0
    """Of models, in and out, that the cache answered in place of."""
    cost: int = 0
    """Nano-dollars that the cache saved."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a caller, with the dimensions that rules look at."""

    kind: Kind
    server: str | None = None
    tool: str | None = None
    """A tool's own name, without the server; for kind `meta`, the meta-tool's."""
    provider: str | None = None
    """For an attempt, together with `model`; a chat as a whole has none."""
    model: str | None = None
    """For an attempt, the provider's own name; for a chat as a whole, the alias that the client requested."""
    alias: str | None = None
    """For an attempt: the alias that the client requested. Rules on models look at it too."""
    estimate: Usage = field(default_factory=Usage)
    id: str = field(default_factory=lambda: new_request_id())
    parent_id: str | None = None
    """The execution or chat that this belongs to. Such a request is counted, but not as a further request of the
    caller, unless a rule names servers, tools, providers or models."""
    at: float = field(default_factory=time.time)
    """Epoch seconds. Its whole cost is counted at this moment."""


class Claim(NamedTuple):
    """One request's share of one counter: what it takes, and in which window."""

    counter: str
    """The counter's name: rule, measure and subject."""
    measure: str
    """What is counted: see `rule.Measure`."""
    amount: int
    """At most: nano-dollars, tokens, requests or milliseconds."""
    limit: int | None
    """None: only counted, never a reason to refuse."""
    cell: int
    """The part of time in which it is counted: see windows.py."""
    oldest: int
    """The first cell that still counts."""
    ends_at: float
    """When `cell` stops counting, epoch seconds; infinity if never."""


class Balance(NamedTuple):
    """What is spent and held in one counter, over the cells that count."""

    spent: int = 0
    held: int = 0
    first: int | None = None
    """The oldest cell that is not empty."""


class Reservation(NamedTuple):
    """Amounts held for one request in every counter it touches."""

    id: str
    """The request's id; if it reserves in two steps, the second ends in `/cost`."""
    owner: str
    """The process that must settle or release it, and whose lease keeps it."""
    claims: tuple[Claim, ...]
    abandoned: "Entry | None" = None
    """If anything is held that can be spent: the entry that is written if the owner ends before it settles, with
    everything that its request holds counted as spent. A request that was sent has been paid for, even if its process
    is gone."""
    flush: bool = False
    """Whether it must survive a power failure, too, and not only the end of its owner."""

    @property
    def request(self) -> str:
        """The id of its request, and of the entry that ends it."""
        return self.id.partition("/")[0]

    @property
    def holds_money(self) -> bool:
        return any(claim.measure == "cost" and claim.amount for claim in self.claims)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a reservation was not made."""

    misfits: tuple[tuple[int, Balance], ...]
    """Every claim that did not fit, by its index, with the balance of its counter."""


class Entry(NamedTuple):
    """One ledger entry. Never changed or removed by later events."""

    id: str
    parent_id: str | None
    at: float
    """When it was admitted, epoch seconds."""
    kind: Kind
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
    """Nano-dollars; None without a known price: zero would look like a free call."""
    usage: Usage
    latency_ms: float
    cache: str = ""
    """How the cache answered it: exact, semantic, miss; empty without the cache."""
    metadata: Mapping[str, str] = EMPTY
    saved: Saved = Saved()
    timings: Mapping[str, float] = NO_TIMES
    """Milliseconds by stage: upstream, sandbox, tools, first_token …"""
    facts: Mapping[str, str] = EMPTY
    """Further facts in the request log: request (the `x-request-id`), client, session, attempts …"""

    @property
    def is_refused(self) -> bool:
        """Whether it was not admitted. Such a request is in the request log, but no report counts it."""
        return "refused" in self.facts


_random = random.Random(secrets.randbits(256))
os.register_at_fork(after_in_child=lambda: _random.seed(secrets.randbits(256)))


def random_hex(digits: int) -> str:
    """Not a secret, so without system calls: one per request would cost more than the rest of its admission."""
    return f"{_random.getrandbits(4 * digits):0{digits}x}"


def new_id(prefix: str) -> str:
    return f"{prefix}_{random_hex(20)}"


def new_request_id() -> str:
    """Rises by the millisecond, so that databases add new ids at the end of their indexes, and not all over them."""
    return f"rq_{time.time_ns() >> 20:011x}{random_hex(13)}"
