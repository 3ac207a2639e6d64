"""Counters, records and ledger in the memory of one process: for tests, and as the simplest implementation of the
contracts, which the databases must match."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from mcpgate.governance.ledger import SUMS, facts_of, sums_of
from mcpgate.governance.records import Balance, Claim, Entry, Refusal, Reservation
from mcpgate.governance.rule import fitted
from mcpgate.governance.store import AuditLine, Change, Query, Record, Settlement


class _Cell:
    __slots__ = ("ends_at", "held", "spent")

    def __init__(self, ends_at: float) -> None:
        self.spent, self.held, self.ends_at = 0, 0, ends_at


class MemoryStore:
    """Implements Counters, Records and Ledger, but drops the content of calls. For one event loop."""

    name = "memory"

    def __init__(self) -> None:
        self._cells: dict[str, dict[int, _Cell]] = {}
        self._reservations: dict[str, Reservation] = {}
        self._leases: dict[str, float] = {}
        self._adjusted: set[str] = set()
        self._entries: dict[str, Entry] = {}
        self._records: dict[tuple[str, str], Record] = {}
        self._digests: dict[str, str] = {}
        self._audit: list[AuditLine] = []
        self._version = 0

    @property
    def written(self) -> Mapping[str, Entry]:
        """Every entry by its id, in the order in which they were written."""
        return self._entries

    # --- Counters

    async def reserve(self, reservation: Reservation) -> tuple[Balance, ...] | Refusal:
        if reservation.id in self._reservations or reservation.request in self._entries:
            return tuple(self._standing(claim.counter, claim.oldest) for claim in reservation.claims)
        standings = [self._standing(claim.counter, claim.oldest) for claim in reservation.claims]
        answer = fitted(reservation.claims, standings)
        if isinstance(answer, Refusal):
            return answer
        for claim in reservation.claims:
            self._cell(claim).held += claim.amount
        self._reservations[reservation.id] = reservation
        return answer

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        for settlement in settlements:
            for id in settlement.holds:
                self._let_go(id)
            self._write(settlement.entry, zip(settlement.claims, settlement.amounts, strict=True))

    async def release(self, reservation: Reservation) -> None:
        self._let_go(reservation.id)

    async def renew(self, owner: str, until: float) -> None:
        self._leases[owner] = until

    async def expire(self, now: float) -> int:
        gone = [r for r in self._reservations.values() if self._leases.get(r.owner, 0.0) <= now]
        claims: dict[str, list[Claim]] = {}
        for reservation in gone:
            self._let_go(reservation.id)
            claims.setdefault(reservation.request, []).extend(reservation.claims)
        for reservation in sorted(gone, key=lambda one: one.id, reverse=True):
            if (entry := reservation.abandoned) is not None:
                self._write(entry, ((claim, claim.amount) for claim in claims[entry.id]))
        for owner in [owner for owner, until in self._leases.items() if until <= now]:
            del self._leases[owner]
        for name, cells in list(self._cells.items()):
            for number in [number for number, cell in cells.items() if cell.ends_at <= now and not cell.held]:
                del cells[number]
            if not cells:
                del self._cells[name]
        return len(gone)

    async def read(self, counters: Sequence[tuple[str, int]]) -> list[Balance]:
        return [self._standing(name, oldest) for name, oldest in counters]

    async def adjust(self, claim: Claim, once: str | None = None) -> None:
        if once is not None:
            if once in self._adjusted:
                return
            self._adjusted.add(once)
        self._cell(claim).spent += claim.amount

    async def reset(self, counter: str) -> None:
        for cell in self._cells.get(counter, {}).values():
            cell.spent = 0

    async def names(self, prefix: str, limit: int) -> list[str]:
        return sorted(name for name in self._cells if name.startswith(prefix))[:limit]

    def _standing(self, counter: str, oldest: int) -> Balance:
        cells = self._cells.get(counter)
        if not cells:
            return Balance()
        spent = held = 0
        first: int | None = None
        for number, cell in cells.items():
            if number >= oldest and (cell.spent or cell.held):
                spent += cell.spent
                held += cell.held
                first = number if first is None or number < first else first
        return Balance(spent, held, first)

    def _cell(self, claim: Claim) -> "_Cell":
        cells = self._cells.setdefault(claim.counter, {})
        cell = cells.get(claim.cell)
        if cell is None:
            cell = cells[claim.cell] = _Cell(claim.ends_at)
        return cell

    def _let_go(self, id: str) -> None:
        reservation = self._reservations.pop(id, None)
        if reservation is not None:
            for claim in reservation.claims:
                self._cell(claim).held -= claim.amount

    def _write(self, entry: Entry, amounts: Iterable[tuple[Claim, int]]) -> None:
        if entry.id in self._entries:
            return
        self._entries[entry.id] = entry
        for claim, amount in amounts:
            if amount and claim.measure != "concurrency":
                self._cell(claim).spent += amount

    async def restore(self, amounts: Iterable[tuple[Claim, int]]) -> None:
        pass  # counters and ledger are lost together

    # --- Records

    async def find_key(self, digest: str) -> tuple[Record | None, int]:
        id = self._digests.get(digest)
        return (None if id is None else self._records.get(("key", id))), self._version

    async def get_record(self, kind: str, id: str) -> Record | None:
        return self._records.get((kind, id))

    async def list_records(self, kind: str, after: str = "", limit: int = 1000) -> list[Record]:
        ids = sorted(id for of_kind, id in self._records if of_kind == kind and id > after)
        return [self._records[kind, id] for id in ids[:limit]]

    async def change(self, change: Change) -> bool:
        place = (change.kind, change.id)
        known = self._records.get(place)
        if change.only_new and known is not None:
            return False
        if change.replaces is not None and (known is None or known.value != change.replaces):
            return False
        keys = (record for (kind, id), record in self._records.items() if kind == "key" and id != change.id)
        if change.unique_name and any(
            record.value.get("revoked_at") is None
            and change.unique_name in (record.id, record.value["spec"].get("name"))
            for record in keys
        ):
            return False
        if change.action == "reset":
            pass
        elif change.kind == "key":
            self._digests = {digest: id for digest, id in self._digests.items() if id != change.id}
            self._digests |= {digest: change.id for digest, _ in change.digests}
        else:
            self._version += 1
        if change.action != "reset":
            self._records.pop(place, None)
            if change.value is not None:
                self._records[place] = Record(change.kind, change.id, change.value)
        line = AuditLine(change.at, change.actor, change.action, change.kind, change.id, change.value)
        self._audit.append(line)
        return True

    async def list_audit(self, limit: int = 100, before: int | None = None) -> list[tuple[int, AuditLine]]:
        numbered = [(number, line) for number, line in enumerate(self._audit, 1) if before is None or number < before]
        return numbered[::-1][:limit]

    # --- Ledger

    async def report(self, query: Query) -> list[dict[str, Any]]:
        groups: dict[tuple[Any, ...], dict[str, Any]] = {} if query.by else {(): dict.fromkeys(SUMS, 0)}
        for entry in self._entries.values():
            facts = facts_of(entry)
            if entry.is_refused or not query.since <= entry.at < query.until:
                continue
            if any(facts.get(name) != value for name, value in query.where.items()):
                continue
            group = tuple(facts.get(name) for name in query.by)
            row = groups.setdefault(group, {**dict(zip(query.by, group, strict=True)), **dict.fromkeys(SUMS, 0)})
            for name, amount in sums_of(entry).items():
                row[name] += amount
        found = [groups[group] for group in sorted(groups, key=lambda group: [str(value or "") for value in group])]
        if query.order:
            found.sort(key=lambda row: -row[query.order])
        return found[: query.limit]

    async def list_entries(self, query: Query, limit: int = 100, before: int | None = None) -> list[tuple[int, Entry]]:
        numbered = [
            (number, entry)
            for number, entry in enumerate(self._entries.values(), 1)
            if query.since <= entry.at < query.until
            and not entry.is_refused
            and (before is None or number < before)
            and all(facts_of(entry).get(name) == value for name, value in query.where.items())
        ]
        return numbered[::-1][:limit]

    async def entries(self, since: float) -> AsyncIterator[Entry]:
        for entry in sorted(self._entries.values(), key=lambda entry: entry.at):
            if entry.at >= since and not entry.is_refused:
                yield entry

    async def find_settled(self, ids: Sequence[str]) -> dict[str, Entry]:
        return {id: self._entries[id] for id in ids if id in self._entries}

    async def roll_up(self) -> int:
        return 0  # reports read every entry

    async def prune(self, before: float) -> int:
        return 0  # so none may be deleted

    async def close(self) -> None:
        pass
