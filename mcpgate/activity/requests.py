"""What the request log needs from a database, and the values that go in and out. The log is the ledger seen request by
request: nothing is written for it while a request runs. An index of `terms` is added to later, in batches.
Implementations: stores/."""

import base64
import binascii
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple, Protocol

from mcpgate.config.governance import METADATA
from mcpgate.errors import InvalidRequest
from mcpgate.governance.ledger import DIMENSIONS
from mcpgate.governance.records import Entry

FACTS = ("request", "client", "session", "alias", "refused")
"""Facts of entries that requests can be found by. `request` is the `x-request-id` of the answer; `refused` the limit,
or else the error, that kept a request from being admitted."""
FILTERS = (*DIMENSIONS, "parent", *FACTS, "failed")
"""What requests can be found by, in addition to `metadata.NAME`. `failed` is `true` or `false`."""
NEWEST = 1 << 62
"""Larger than the number of any entry."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which requests are looked for; every condition must hold."""

    where: tuple[tuple[str, str], ...] = ()
    """Filters and their values."""
    since: float | None = None
    """Admitted then or later, epoch seconds."""
    until: float | None = None
    """Admitted before."""
    min_latency_ms: float | None = None
    min_cost: int | None = None
    """Nano-dollars."""
    text: str = ""
    """Words that occur in the content of a request, or of one that belongs to it."""
    nested: bool = False
    """Whether requests that belong to others are looked for too, and not only under them."""


class Totals(NamedTuple):
    """The sums of the requests that belong directly to one."""

    number: int = 0
    unpriced: int = 0
    cost: int = 0
    """Nano-dollars."""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


class Requests(Protocol):
    """The entries of the ledger as a log, each with its number, which grows. All raise StoreUnavailable."""

    in_order: bool
    """Whether no entry can appear with a number below one that has been seen."""

    async def scan(self, wanted: Wanted, before: int, most: int) -> tuple[list[tuple[int, Entry]], int | None]:
        """Look at up to `most` candidates with numbers below `before`, the newest first. Returns those that are wanted,
        and the number to go on below; None if there are no more."""
        ...

    async def after(self, wanted: Wanted, number: int, skip: Sequence[int], most: int) -> list[tuple[int, Entry]]:
        """Wanted entries with numbers above one, without those to skip, the oldest first."""
        ...

    async def newest(self) -> int:
        """The largest number; 0 if there is none."""
        ...

    async def find(self, id: str) -> Entry | None: ...

    async def children(self, ids: Sequence[str], most: int) -> list[Entry]:
        """The entries that belong directly to others, in the order in which they began."""
        ...

    async def totals(self, ids: Sequence[str]) -> Mapping[str, Totals]:
        """By the ids of those that have any."""
        ...

    async def index(self) -> int:
        """Add a batch of new entries to the index; returns how many. Several processes may do this at once."""
        ...

    async def close(self) -> None: ...


def check_filter(name: str) -> None:
    """Raises InvalidRequest, which lists what exists."""
    if name not in FILTERS and not METADATA.fullmatch(name):
        raise InvalidRequest(f"cannot filter by {name[:80]!r}; there are {', '.join(FILTERS)} and metadata.NAME")


class Findable(NamedTuple):
    """The part of an entry that it can be found by."""

    parent_id: str
    """Empty if it belongs to no other."""
    dimensions: Sequence[str]
    """As in `DIMENSIONS`; empty where it has none."""
    metadata: Mapping[str, str]
    facts: Mapping[str, str]


_dimensions = attrgetter(*DIMENSIONS)
_CACHE, _OUTCOME = DIMENSIONS.index("cache"), DIMENSIONS.index("outcome")


def findable(entry: Entry) -> Findable:
    return Findable(entry.parent_id or "", _dimensions(entry), entry.metadata, entry.facts)


def values_of(found: Findable) -> list[tuple[str, str]]:
    """Everything that an entry can be found by."""
    _, dimensions, metadata, facts = found
    values = [pair for pair in zip(DIMENSIONS[:_CACHE], dimensions, strict=False) if pair[1]]
    if cache := facts.get("cache") or dimensions[_CACHE]:
        values.append(("cache", cache))
    values += (("parent", found.parent_id), ("failed", "false" if dimensions[_OUTCOME] == "ok" else "true"))
    values += [(name, facts[name]) for name in FACTS if facts.get(name)]
    values += [(f"metadata.{name}", value) for name, value in metadata.items()]
    return values


def terms_of(found: Findable) -> list[int]:
    """The terms of an entry in the index. The names of parents are not indexed: entries have an index of them."""
    return [term(name, value) for name, value in values_of(found) if name != "parent" or not value]


def terms_of_wanted(wanted: Wanted) -> list[int]:
    """The terms that every wanted entry has."""
    where = wanted.where if wanted.nested else (*wanted.where, ("parent", ""))
    return [term(name, value) for name, value in where if name != "parent" or not value]


@functools.lru_cache(maxsize=20_000)
def term(name: str, value: str) -> int:
    """A name and a value as one number of 63 bits. Two may share it: whoever looks one up must compare the values."""
    digest = hashlib.blake2b(f"{name}={value}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def matches(wanted: Wanted, entry: Entry) -> bool:
    """Whether an entry is wanted, its content aside."""
    if entry.parent_id is not None and not wanted.nested:
        return False
    if wanted.where:
        found = set(values_of(findable(entry)))
        if not all(pair in found for pair in wanted.where):
            return False
    return (
        (wanted.since is None or entry.at >= wanted.since)
        and (wanted.until is None or entry.at < wanted.until)
        and (wanted.min_latency_ms is None or entry.latency_ms >= wanted.min_latency_ms)
        and (wanted.min_cost is None or (entry.cost or 0) >= wanted.min_cost)
    )


def to_cursor(number: int) -> str:
    """The place below an entry, as clients pass it on."""
    return base64.urlsafe_b64encode(f"r{number}".encode()).decode().rstrip("=")


def from_cursor(text: str) -> int:
    """The inverse of `to_cursor`. Raises InvalidRequest."""
    try:
        if len(text) > 40:
            raise ValueError
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
        if plain[:1] != "r" or not plain[1:].isdigit():
            raise ValueError
        return min(int(plain[1:]), NEWEST)
    except (ValueError, binascii.Error):
        raise InvalidRequest(f"{text[:80]!r} is not a cursor; pass the `next` of an earlier page") from None
