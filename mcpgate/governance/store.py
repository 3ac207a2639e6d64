"""What governance needs of a database: three contracts, and the values that go in and out.

`Counters` is fast and atomic, `Records` and `Ledger` are durable. SQLite and PostgreSQL are all three, and move
counters and ledger in one transaction; Redis is `Counters` in front of either. Implementations: stores/.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mcpgate.governance.records import Balance, Claim, Entry, Refusal, Reservation


class StoreUnavailable(Exception):
    """The store cannot be reached, or does not answer in time. Nothing is known of what it was asked to do, and
    everything may be asked again: reserving and settling are idempotent by request id."""


class CountersLost(StoreUnavailable):
    """The store is there, and what it had counted is gone: see `Counters.restore`."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of one request: its line of the ledger, and what its claims really came to."""

    entry: Entry
    claims: tuple[Claim, ...] = ()
    amounts: tuple[int, ...] = ()
    """For each claim, what is spent of it."""
    content: "Content | None" = None
    holds: tuple[str, ...] = ()
    """Ids of the reservations that end with it. A request may hold in two steps, as `ID` and `ID/cost`."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a call said and was answered, where that is to be kept."""

    arguments: str
    result: str


class Counters(Protocol):
    """Amounts held and spent. Every method is atomic, in itself and over all processes that share the store.
    All raise StoreUnavailable."""

    name: str
    """Of the database, for people."""

    async def reserve(self, reservation: Reservation) -> tuple[Balance, ...] | Refusal:
        """Hold every claim, or none: `spent + held + amount` must stay within every limit. Returns what the counters
        stand at, this reservation included. The same reservation a second time changes nothing, nor does one whose
        request is in the ledger. What holds money is durable when this returns. Raises CountersLost where the counters
        can be lost without the ledger."""
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Write entries to the ledger, durably, let go of the reservations that they name, and count what was spent. An
        entry that is in the ledger already changes nothing; so does the settlement of a request that was abandoned
        meanwhile, by a process that was stopped for longer than its lease: the estimate that was written for it
        stays, for the ledger takes nothing back."""
        ...

    async def release(self, reservation: Reservation) -> None:
        """Let go of what is held, with nothing spent and nothing written."""
        ...

    async def renew(self, owner: str, until: float) -> None:
        """Keep everything an owner holds until then, epoch seconds."""
        ...

    async def expire(self, now: float) -> int:
        """End what owners hold whose lease has run out, and forget cells that count no longer. A request with an
        `abandoned` entry is settled as that entry says, with every claim of all its reservations spent as it was held
        but for concurrency, and of several such entries the one of the last step (the last by the reservation's id);
        others are released. Returns how many reservations ended."""
        ...

    async def read(self, counters: Sequence[tuple[str, int]]) -> list[Balance]:
        """What counters stand at, each from its oldest cell that counts on."""
        ...

    async def adjust(self, claim: Claim, once: str | None = None) -> None:
        """Add `claim.amount` as spent; with `once`, only the first time it is asked for under this name."""
        ...

    async def reset(self, counter: str) -> None:
        """Nothing is spent any more; what is held stays held."""
        ...

    async def names(self, prefix: str, limit: int) -> list[str]:
        """Counters that hold anything, by the beginning of their names."""
        ...

    async def restore(self, amounts: Iterable[tuple[Claim, int]]) -> None:
        """Take amounts, counted again from the ledger, for what is spent, where counters are lost; else do nothing."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Record:
    """Something that was declared while running: a key, a customer, team, user, budget or rate limit."""

    kind: str
    id: str
    value: Mapping[str, Any]
    """JSON."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of records, with its line in the audit trail."""

    kind: str
    id: str
    value: Mapping[str, Any] | None
    """None removes it."""
    actor: str
    """Who made it: the id of a key, `local`, or `command line`."""
    action: str
    """create, change, rotate, revoke, delete, reset."""
    at: float
    digests: Sequence[tuple[str, float | None]] = ()
    """Of a key: digest, and until when it is good."""
    only_new: bool = False
    """Fail if the record is there already."""
    replaces: Mapping[str, Any] | None = None
    """Fail if the record is not this any more."""


@dataclass(frozen=True, slots=True)
class AuditLine:
    at: float
    actor: str
    action: str
    kind: str
    id: str
    value: Mapping[str, Any] | None


class Records(Protocol):
    """What was declared while running. All raise StoreUnavailable."""

    async def find_key(self, digest: str) -> tuple[Record | None, int]:
        """The key that a digest belongs to, and the version of all records but keys, which grows with each change."""
        ...

    async def get_record(self, kind: str, id: str) -> Record | None: ...

    async def list_records(self, kind: str, after: str = "", limit: int = 1000) -> list[Record]:
        """In order of their ids, from the one after `after` on."""
        ...

    async def change(self, change: Change) -> bool:
        """Make a change and write it to the audit trail. False if it was to fail: see `only_new`, `replaces`."""
        ...

    async def list_audit(self, limit: int = 100, before: int | None = None) -> list[tuple[int, AuditLine]]:
        """The newest lines first, with their numbers; those before number `before`."""
        ...


@dataclass(frozen=True, slots=True)
class Query:
    """A question to the ledger."""

    since: float
    until: float
    by: tuple[str, ...] = ()
    """Dimensions to group by: see ledger.py."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Dimension → its value."""


class Ledger(Protocol):
    """What was done, and what it cost. All raise StoreUnavailable."""

    async def report(self, query: Query) -> list[dict[str, Any]]:
        """One row a group: the dimensions asked for, and `ledger.SUMS`."""
        ...

    async def list_entries(self, query: Query, limit: int = 100, before: int | None = None) -> list[tuple[int, Entry]]:
        """Single entries, the newest first, with their numbers."""
        ...

    def entries(self, since: float) -> AsyncIterator[Entry]:
        """Every single entry that was admitted from then on, the oldest first."""
        ...

    async def find_settled(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Those of the requests that have an entry."""
        ...

    async def roll_up(self) -> int:
        """Add entries that are not yet in them to the sums by the hour; returns how many they were."""
        ...

    async def prune(self, before: float) -> int:
        """Remove single entries of before then, whose sums stay; returns how many."""
        ...


class Store(Counters, Records, Ledger, Protocol):
    """A database that is all three."""
