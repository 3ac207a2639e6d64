"""Administration, for both the command line and the admin API: keys, scopes, rules, resets. Every change
is recorded in the audit trail, which never holds a secret."""

import dataclasses
import datetime
import difflib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from mcpgate.config.governance import KeySpec
from mcpgate.config.periods import Period
from mcpgate.errors import Conflict, InvalidRequest, NotFound
from mcpgate.governance.callers import VirtualKey
from mcpgate.governance.forecast import forecast
from mcpgate.governance.keys import digest_of, from_record, new_secret, to_record
from mcpgate.governance.policy import RECORD_KINDS, Policy
from mcpgate.governance.records import new_id, shown_moment, to_usd
from mcpgate.governance.rule import Rule
from mcpgate.governance.rules import budget_rule, rate_limit_rules, scope_rules
from mcpgate.governance.store import Change, Counters, Record, Store, all_records

_MOST_SUBJECTS = 1000
_TRIES = 20


class Admin:
    """Changes what is declared in the store. What the configuration file declares is shown here but changed there."""

    def __init__(
        self,
        store: Store,
        counters: Counters,
        policy: Callable[[], Policy],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._counters, self._policy, self._clock = store, counters, policy, clock

    # --- keys

    async def create_key(self, spec: KeySpec, actor: str, id: str | None = None) -> tuple[VirtualKey, str]:
        """The key and its secret, which is never shown again. Raises Conflict, also for a name that another key has:
        a name must be enough to rotate or revoke its key."""
        id = id or new_id("vk")
        if id in self._policy().keys:
            raise Conflict(f"key {id!r} is declared in the configuration file")
        await self._refuse_namesake(id, spec.name)
        secret, now = new_secret(), self._clock()
        digests = [(digest_of(secret), None)]
        value = to_record(spec, digests, secret[-4:], now)
        # Before it is written: what cannot be read, or made into rules, must not be stored.
        key, _ = from_record(id, value)
        scope_rules("key", id, spec)
        change = Change("key", id, value, actor, "create", now, digests, only_new=True, unique_name=spec.name)
        if not await self._store.change(change):
            await self._refuse_namesake(id, spec.name, stored=True)
            raise Conflict(f"key {id!r} already exists")
        return key, secret

    async def _refuse_namesake(self, id: str, name: str, stored: bool = False) -> None:
        """Raises Conflict if another key goes by this name: one of the configuration file, or one that is `stored` and
        not revoked."""
        others = [key for key, _ in self._policy().keys.values()]
        after = ""
        while name and stored and (page := await self._store.list_records("key", after)):
            others += [from_record(record.id, record.value)[0] for record in page]
            after = page[-1].id
        for other in others:
            if name in (other.name, other.id) and name and other.id != id and other.revoked_at is None:
                raise Conflict(
                    f"there is already a key {name!r}: {other.id}. Choose another name, or revoke that key first; "
                    f"`mcpgate keys rotate {other.id}` makes a new secret for it"
                )

    async def list_keys(self, after: str = "", limit: int = 1000) -> list[VirtualKey]:
        """Keys of the configuration file first, then by id."""
        declared = [key for key, _ in self._policy().keys.values()] if not after else []
        records = await self._store.list_records("key", after, limit)
        return [*declared, *(from_record(record.id, record.value)[0] for record in records)]

    async def get_key(self, name: str) -> tuple[VirtualKey, KeySpec]:
        """By id, or by a name that only one key has. Raises NotFound."""
        if (declared := self._policy().keys.get(name)) is not None:
            return declared
        record = await self._get_record(name)
        return from_record(record.id, record.value)

    async def rotate_key(self, name: str, overlap: str, actor: str) -> tuple[VirtualKey, str]:
        """A new secret; the old ones stay valid for `overlap` (a period, or 0). Raises NotFound, Conflict."""
        now, secret = self._clock(), new_secret()
        until = now + _seconds(overlap, now)

        def rotated(key: VirtualKey, spec: KeySpec) -> dict[str, Any]:
            if key.revoked_at is not None:
                raise Conflict(f"key {name!r} was revoked; create another")
            old = [(digest, until if end is None else min(end, until)) for digest, end in key.digests]
            digests = [(digest_of(secret), None), *((digest, end) for digest, end in old if end > now)]
            return to_record(spec, digests, secret[-4:], key.created_at)

        key, _ = await self._alter(name, "rotate", actor, rotated)
        return key, secret

    async def change_key(self, name: str, changes: Mapping[str, Any], actor: str) -> tuple[VirtualKey, KeySpec]:
        """Replace these fields of `KeySpec`. Raises InvalidRequest, NotFound, Conflict."""

        def changed(key: VirtualKey, spec: KeySpec) -> dict[str, Any]:
            merged = parse(KeySpec, {**spec.model_dump(mode="json"), **changes})
            return to_record(merged, key.digests, key.hint, key.created_at, key.revoked_at)

        return await self._alter(name, "change", actor, changed)

    async def revoke_key(self, name: str, actor: str) -> VirtualKey:
        """Revoke it in every worker. The record stays, because the ledger names it. Raises NotFound, Conflict."""
        now = self._clock()

        def revoked(key: VirtualKey, spec: KeySpec) -> dict[str, Any]:
            return to_record(spec, key.digests, key.hint, key.created_at, key.revoked_at or now)

        key, _ = await self._alter(name, "revoke", actor, revoked)
        return key

    async def _alter(
        self, name: str, action: str, actor: str, alter: Callable[[VirtualKey, KeySpec], dict[str, Any]]
    ) -> tuple[VirtualKey, KeySpec]:
        """Replace a key by its changed version, unless someone else has changed it meanwhile: a key that was just
        revoked must not come back."""
        if name in self._policy().keys:
            raise Conflict(f"key {name!r} is declared in the configuration file; change it there")
        for _ in range(_TRIES):
            record = await self._get_record(name)
            value = alter(*from_record(record.id, record.value))
            # Before it is written: what cannot be read, or made into rules, must not be stored.
            key, spec = from_record(record.id, value)
            scope_rules("key", key.id, spec)
            at, digests = self._clock(), key.digests
            renamed = spec.name if spec.name != record.value["spec"].get("name", "") else ""
            await self._refuse_namesake(key.id, renamed)
            change = Change(
                "key", key.id, value, actor, action, at, digests, replaces=record.value, unique_name=renamed
            )
            if await self._store.change(change):
                return key, spec
            await self._refuse_namesake(key.id, renamed, stored=True)
        raise Conflict(f"key {name!r} is being changed by others; try again")

    async def _get_record(self, name: str) -> Record:
        record = await self._store.get_record("key", name)
        if record is not None:
            return record
        keys = all_records(self._store, "key")
        named = [record async for record in keys if record.value["spec"].get("name") == name]
        if len(named) > 1:  # a revoked key's name may be reused
            named = [record for record in named if record.value["revoked_at"] is None] or named
        if len(named) != 1:
            several = f"; {len(named)} keys have this name; use the id" if named else ""
            raise NotFound(f"there is no key {name!r}{several}")
        return named[0]

    # --- customers, teams, users, budgets, rate limits

    def list_declared(self, kind: str) -> dict[str, tuple[BaseModel, bool]]:
        """Id → the declaration, and whether it is in the configuration file."""
        return {id: (value, id in self._policy().in_file[kind]) for id, value in self._table(kind).items()}

    def get_declared(self, kind: str, id: str) -> tuple[BaseModel, bool]:
        """One of `list_declared`. Raises NotFound."""
        declared = self._table(kind).get(id)
        if declared is None:
            raise self._unknown(kind, id)
        return declared, id in self._policy().in_file[kind]

    async def put(self, kind: str, id: str, value: Mapping[str, Any], actor: str) -> Any:
        """Create or replace a declaration. Raises InvalidRequest, Conflict."""
        if id in self._policy().in_file[kind]:
            raise Conflict(f"{kind} {id!r} is declared in the configuration file; change it there")
        given = {**value, "id": id} if kind in ("budget", "rate_limit") else dict(value)
        parsed = parse(RECORD_KINDS[kind], given)
        _rules_of(kind, id, parsed)  # what cannot be made into rules must not be stored
        stored = parsed.model_dump(mode="json", exclude_defaults=True)
        action = "change" if id in self._table(kind) else "create"
        await self._store.change(Change(kind, id, stored, actor, action, self._clock()))
        return parsed

    async def delete(self, kind: str, id: str, actor: str) -> None:
        """Raises NotFound, Conflict."""
        if id in self._policy().in_file[kind]:
            raise Conflict(f"{kind} {id!r} is declared in the configuration file; change it there")
        if id not in self._table(kind):
            raise self._unknown(kind, id)
        await self._store.change(Change(kind, id, None, actor, "delete", self._clock()))

    def _table(self, kind: str) -> Mapping[str, BaseModel]:
        return self._policy().tables[kind]

    def _unknown(self, kind: str, id: str) -> NotFound:
        near = difflib.get_close_matches(id, self._table(kind), 3)
        return NotFound(f"there is no {kind.replace('_', ' ')} {id!r}", nearest=near)

    # --- usage

    async def standings(self, kind: str, id: str, subjects: int = _MOST_SUBJECTS) -> list[dict[str, Any]]:
        """Current usage of a budget or rate limit, for each subject with any, at most so many. `kind` may also be that
        of a scope, for its own limits. Raises NotFound."""
        found = []
        for rule in await self._rules(kind, id):
            names = await self._counters.names(rule.counter(""), subjects)
            if rule.per == "shared" and not names:
                names = [rule.counter("")]
            now = self._clock()
            span, limit = rule.window.span(now), rule.limit_at(now)
            for name, standing in zip(
                names, await self._counters.read([(name, span.oldest) for name in names]), strict=True
            ):
                frees = rule.window.frees_at(span.cell if standing.first is None else standing.first)
                shown: Callable[[int], Any] = _usd if rule.measure == "cost" else rule.plain_amount
                ahead = forecast(rule.window, limit, standing, now)
                found.append(
                    {
                        "id": rule.id,
                        "measure": rule.measure,
                        "subject": name.split("|", 3)[3] or None,
                        "limit": shown(limit),
                        "spent": shown(standing.spent),
                        "reserved": shown(standing.held),
                        "left": shown(max(0, limit - standing.spent - standing.held)),
                        "window": str(rule.window) or None,
                        "soft_limit": None if rule.soft_limit is None else shown(rule.soft_limit),
                        "resets_at": shown_moment(frees),
                        "forecast": None if ahead is None else shown(ahead.amount),
                        "runs_out_at": None if ahead is None else shown_moment(ahead.runs_out_at),
                    }
                )
        return found

    async def list_limited(self, kind: str, after: str, limit: int) -> tuple[list[str], str | None]:
        """Ids, later than `after`, of what has limits: at most so many; and after which to go on. `kind` as in
        `standings`; a revoked key has none."""
        if kind == "key":
            keys = await self.list_keys(after, limit)
            stored = [key.id for key in keys if not key.declared]
            used = [key.id for key in keys if key.revoked_at is None]
            found = [id for id in used if await self._rules(kind, id)]
            return found, stored[-1] if len(stored) == limit else None
        table = self._table(kind)
        found = [id for id in sorted(table) if id > after and _rules_of(kind, id, table[id])]
        return found[:limit], found[limit - 1] if len(found) > limit else None

    async def reset(self, kind: str, id: str, subject: str | None, actor: str) -> None:
        """Reset what is spent of a budget or rate limit, for one subject or for all. Reservations stay. Raises
        NotFound."""
        for rule in await self._rules(kind, id):
            if subject is None:
                names = await self._counters.names(rule.counter(""), 1_000_000)
            else:
                names = [rule.counter(subject)]
            for name in names:
                await self._counters.reset(name)
        await self._store.change(Change(kind, id, {"subject": subject}, actor, "reset", self._clock()))

    async def _rules(self, kind: str, id: str) -> Sequence[Rule]:
        if kind == "key":
            key, spec = await self.get_key(id)
            return scope_rules("key", key.id, spec)
        declared = self._table(kind).get(id)
        if declared is None:
            raise self._unknown(kind, id)
        return _rules_of(kind, id, declared)


def _seconds(overlap: str, now: float) -> float:
    if overlap.strip() in ("0", "0s"):
        return 0.0
    try:
        today = datetime.datetime.fromtimestamp(now, datetime.UTC)
        return (today - Period.parse(overlap).before(today)).total_seconds()
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"overlap: {error}") from None


def _rules_of(kind: str, id: str, declared: Any) -> Sequence[Rule]:
    if kind == "budget":
        return [budget_rule(declared)]
    return rate_limit_rules(declared) if kind == "rate_limit" else scope_rules(kind, id, declared)


def parse(model: type[BaseModel], value: Mapping[str, Any]) -> Any:
    """Raises InvalidRequest, which says what is wrong and where."""
    try:
        return model.model_validate(dict(value))
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            where = ".".join(str(part) for part in fault["loc"]) or "body"
            faults.append(f"{where}: {fault['msg'].removeprefix('Value error, ')}")
        raise InvalidRequest("; ".join(faults)) from None


def shown_key(key: VirtualKey, spec: KeySpec | None = None) -> dict[str, Any]:
    """A key for people and programs, without its digests."""
    grants = dataclasses.asdict(key.grants)
    shown = {
        "id": key.id,
        "name": key.name,
        "secret_ends_with": key.hint,
        "state": key.state(time.time()),
        "user": key.user,
        "team": key.team,
        "customer": key.customer,
        "grants": {name: list(value) if isinstance(value, tuple) else value for name, value in grants.items()},
        "expires_at": None if key.expires_at is None else shown_moment(key.expires_at),
        "created_at": shown_moment(key.created_at) if key.created_at else None,
        "secrets": len(key.digests),
        "declared": key.declared,
    }
    return shown if spec is None else {**shown, "spec": spec.model_dump(mode="json", exclude={"secret"})}


def _usd(nano: int) -> str:
    return f"{to_usd(nano):f}"
