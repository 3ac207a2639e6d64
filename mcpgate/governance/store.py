"""What governance needs from a database: three contracts, and the values that go in and out.

`Counters` is fast and atomic, `Records` and `Ledger` are durable. SQLite and PostgreSQL implement all three, and update
counters and ledger in one transaction; Redis implements `Counters` in front of either. Implementations: stores/.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from mcpgate.governance.records import Balance, Claim, Entry, Refusal, Reservation


class StoreUnavailable(Exception):
    """The store cannot be reached, or does not answer in time. Whether it did what was requested is unknown, and
    everything may be retried: reserving and settling are idempotent by request id."""


class CountersLost(StoreUnavailable):
    """The store is available, but its counts are gone: see `Counters.restore`."""


class Settlement(NamedTuple):
    """The end of one request: its ledger entry, and the actual amounts of its claims."""

    entry: Entry
    claims: tuple[Claim, ...] = ()
    amounts: tuple[int, ...] = ()
    """For each claim, the amount spent."""
    holds: tuple[str, ...] = ()
    """Ids of the reservations that end with it. A request may reserve in two steps, as `ID` and `ID/cost`."""


class Counters(Protocol):
    """Amounts held and spent. Every method is atomic across all processes that share the store, except that Redis
    settles and expires in two steps, the ledger first: a process that dies in between leaves its reservation, and
    whoever expires it counts what the ledger says. All raise StoreUnavailable."""

    name: str
    """The database's name, for people."""

    async def reserve(self, reservation: Reservation) -> tuple[Balance, ...] | Refusal:
        """Reserve every claim, or none: `spent + held + amount` must stay within every limit. Returns the balances
        including this reservation. Repeating a reservation changes nothing, nor does one whose request is in the
        ledger. When this returns, a reservation of money survives the end of this process, and with `flush` a power
        failure. Raises CountersLost if the counters can be lost without the ledger."""
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Write entries to the ledger durably, release the reservations that they name, and count what was spent. An
        entry that is already in the ledger changes nothing; neither does the settlement of a request that was abandoned
        meanwhile, because its process was suspended for longer than its lease: the estimate written for it stays,
        because the ledger takes nothing back."""
        ...

    async def release(self, reservation: Reservation) -> None:
        """Release what is held, with nothing spent or written."""
        ...

    async def renew(self, owner: str, until: float) -> None:
        """Keep everything an owner holds until `until`, epoch seconds."""
        ...

    async def expire(self, now: float) -> int:
        """End the reservations of owners whose lease has expired, and delete cells that no longer count. A request with
        an `abandoned` entry is settled as that entry says, with every claim of all its reservations except concurrency
        counted as spent; of several such entries, that of the last step is used (the last by reservation id). Others
        are released. Returns how many reservations ended."""
        ...

    async def read(self, counters: Sequence[tuple[str, int]]) -> list[Balance]:
        """The balances of counters, each from its oldest cell that counts."""
        ...

    async def adjust(self, claim: Claim, once: str | None = None) -> None:
        """Add `claim.amount` as spent; with `once`, only the first time under this name."""
        ...

    async def reset(self, counter: str) -> None:
        """Set what is spent to zero; what is held stays held."""
        ...

    async def names(self, prefix: str, limit: int) -> list[str]:
        """Counters that are not empty, by a prefix of their names."""
        ...

    async def restore(self, amounts: Iterable[tuple[Claim, int]]) -> None:
        """If the counters are lost, set what is spent to amounts recounted from the ledger; else do nothing."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Record:
    """Something declared at run time: a key, a customer, team, user, budget or rate limit."""

    kind: str
    id: str
    value: Mapping[str, Any]
    """JSON."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a record, with its line in the audit trail."""

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
    """For a key: digest, and until when it is valid."""
    only_new: bool = False
    """Fail if the record already exists."""
    replaces: Mapping[str, Any] | None = None
    """Fail if the record has changed from this."""
    unique_name: str = ""
    """For a key: fail if another key that is not revoked has this name or this id."""


@dataclass(frozen=True, slots=True)
class AuditLine:
    at: float
    actor: str
    action: str
    kind: str
    id: str
    value: Mapping[str, Any] | None


class Records(Protocol):
    """What was declared at run time. All raise StoreUnavailable."""

    async def find_key(self, digest: str) -> tuple[Record | None, int]:
        """The key with a digest, and the version of all records except keys, which grows with each change."""
        ...

    async def get_record(self, kind: str, id: str) -> Record | None: ...

    async def list_records(self, kind: str, after: str = "", limit: int = 1000) -> list[Record]:
        """In order of ids, starting after `after`."""
        ...

    async def change(self, change: Change) -> bool:
        """Make a change and write it to the audit trail. False if a condition failed: see `only_new`,
        `replaces`, `unique_name`."""
        ...

    async def list_audit(self, limit: int = 100, before: int | None = None) -> list[tuple[int, AuditLine]]:
        """The newest lines first, with their numbers; only those before number `before`."""
        ...


async def all_records(store: Records, kind: str) -> AsyncIterator[Record]:
    """Every record of a kind, in order of ids, read page by page. Raises StoreUnavailable."""
    after = ""
    while page := await store.list_records(kind, after):
        for record in page:
            yield record
        after = page[-1].id


@dataclass(frozen=True, slots=True)
class Query:
    """A query of the ledger."""

    since: float
    until: float
    by: tuple[str, ...] = ()
    """Dimensions to group by: see ledger.py."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Dimension → its value."""
    order: str = ""
    """One of `ledger.SUMS`: the groups with most of it come first. Empty: in order of their dimensions."""
    limit: int | None = None
    """The most groups."""


class Ledger(Protocol):
    """What was done, and what it cost. All raise StoreUnavailable."""

    async def report(self, query: Query) -> list[dict[str, Any]]:
        """One row per group: the requested dimensions, and `ledger.SUMS`."""
        ...

    async def list_entries(self, query: Query, limit: int = 100, before: int | None = None) -> list[tuple[int, Entry]]:
        """Single entries, the newest first, with their numbers."""
        ...

    def entries(self, since: float) -> AsyncIterator[Entry]:
        """Every single entry admitted since then, the oldest first."""
        ...

    async def find_settled(self, ids: Sequence[str]) -> dict[str, Entry]:
        """The entries of those requests that have one."""
        ...

    async def roll_up(self) -> int:
        """Add new entries to the hourly roll-ups; returns how many."""
        ...

    async def prune(self, before: float) -> int:
        """Delete single entries from before `before`, whose roll-ups stay; returns how many."""
        ...


class Store(Counters, Records, Ledger, Protocol):
    """A database that is all three."""
