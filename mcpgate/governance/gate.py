"""The one door: who is asking, whether they may, and what it may cost.

`async with gate.admit(caller, request) as admission:` reserves the estimate in every budget and rate limit that
applies, in one atomic step, before the block is entered; when it is left, whatever way, what was really spent is
settled and written to the ledger, and the rest is free again. What is only held by others is waited for a moment.
"""

import asyncio
import datetime
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any

from mcpgate.config.governance import GovernanceConfig, KeySpec
from mcpgate.errors import (
    ConfigError,
    InvalidKey,
    InvalidRequest,
    McpgateError,
    MissingKey,
    NotAllowed,
    Unavailable,
)
from mcpgate.governance.callers import LOCAL, Caller, VirtualKey
from mcpgate.governance.keys import PREFIX, digest_of, from_record, is_good
from mcpgate.governance.policy import RECORD_KINDS, Policy, Share
from mcpgate.governance.prices import Prices
from mcpgate.governance.records import Claim, Entry, Refusal, Request, Reservation, Standing, Usage, new_id
from mcpgate.governance.refusals import judge, scope_of
from mcpgate.governance.rule import Rule, measured, shown_amount
from mcpgate.governance.store import Content, Counters, CountersLost, Durable, Query, Settlement, StoreAway
from mcpgate.telemetry.metrics import Metrics

log = logging.getLogger("mcpgate.governance")
_LOOK_EVERY_S = 1.0
"""How often the gate looks whether records were changed elsewhere, owners have died, and entries wait."""
_POLL_S = 0.05
"""How often money that another process may have let go of is asked for."""
_MOST_CALLERS = 20_000
_LAST_CALLS_S = 5.0
"""How long the end waits for what was admitted to be settled."""
_MOST_UNWRITTEN = 100_000
_WRITTEN_AT_ONCE = 500


class Gate:
    """Identifies callers and admits requests. One for each process."""

    def __init__(
        self,
        config: GovernanceConfig,
        prices: Prices,
        counters: Counters,
        durable: Durable,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config, self.prices = config, prices
        self.policy = Policy(config)
        self.owner = new_id("gw")
        self.counters, self.durable, self._metrics, self._clock = counters, durable, metrics, clock
        self._callers: dict[str, tuple[Policy, Mapping[str, Any], VirtualKey, Caller]] = {}
        self._open: dict[str, Admission] = {}
        self._queues: dict[str, _Queue] = {}
        self._unwritten: list[Settlement] = []
        self._unreleased: list[Reservation] = []
        self._settling: set[asyncio.Task[None]] = set()
        self._warned: set[tuple[str, int]] = set()
        self._away: str | None = None
        self._leased_until = 0.0
        self._recounting: asyncio.Task[None] | None = None
        self._reloading = asyncio.Lock()
        self._checked: dict[str, tuple[float, str]] = {}
        self._inside = 0
        self._tasks: list[asyncio.Task[None]] = []

    # --- its own life

    async def start(self) -> None:
        """Read what is declared, and keep the lease from now on."""
        try:
            await self._lease()
            await self._reload()
        except StoreAway as error:
            self._lost(error)
        self._tasks = [
            asyncio.create_task(self._keep_lease(), name="lease"),
            asyncio.create_task(self._keep(), name="gate"),
        ]

    async def aclose(self) -> None:
        """Write everything that was spent; returns when it is written, or cannot be."""
        give_up = time.monotonic() + _LAST_CALLS_S
        while self._inside and time.monotonic() < give_up:
            await asyncio.sleep(0.01)  # what was admitted ends with its upstream, and is settled then
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._settling:
            await asyncio.wait(tuple(self._settling))
        if self._unwritten:
            with suppress(StoreAway):
                await self._write_again()
        if self._unwritten:
            log.error("%d entries of the ledger could not be written and are lost", len(self._unwritten))
        if self._leased_until:
            with suppress(StoreAway):
                await self.counters.renew(self.owner, 0.0)  # whatever it still holds is free at once
                await self.counters.expire(self._clock())

    async def reload(self, config: GovernanceConfig, prices: Prices) -> None:
        """Take over an edited configuration. Requests under way end under the rules they began with."""
        self.config, self.prices = config, prices
        # With what is known of the store's declarations, so that there is no moment without them.
        self.policy = Policy(config, self.policy.records, self.policy.version)
        with suppress(StoreAway):
            await self._reload()

    async def _keep_lease(self) -> None:
        """By itself, for nothing slow must come between."""
        while True:
            await asyncio.sleep(min(_LOOK_EVERY_S, self.config.lease_s / 4))
            try:
                await self._lease()
            except StoreAway as error:
                self._lost(error)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOK_EVERY_S, self.config.lease_s / 4))
            try:
                if self._unwritten:
                    await self._write_again()
                while self._unreleased:
                    reservation = self._unreleased[0]
                    await self.counters.release(reservation)
                    self._unreleased.remove(reservation)
                    self._wake(reservation.claims)
                await self._look()
                if self._clock() >= self._leased_until:
                    await self._lease()  # this machine slept: first of all ourselves
                await self.counters.expire(self._clock())
                self._found()
            except StoreAway as error:
                self._lost(error)
            except Exception:
                log.exception("the gate could not look after its store")

    async def _lease(self) -> None:
        until = self._clock() + self.config.lease_s
        await self.counters.renew(self.owner, until)
        self._leased_until = until

    async def refresh(self) -> None:
        """Take over what was just declared."""
        try:
            await self._look()
        except StoreAway as error:
            self._lost(error)

    async def _look(self) -> None:
        """See whether anything was declared elsewhere."""
        _, version = await self.durable.find_key("")
        if version != self.policy.version:
            await self._reload(version)

    async def _reload(self, wanted: int | None = None) -> None:
        """Read what is declared; once for all who want the same version of it."""
        async with self._reloading:
            if wanted is not None and wanted == self.policy.version:
                return
            _, version = await self.durable.find_key("")
            records = []
            for kind in RECORD_KINDS:
                after = ""
                while page := await self.durable.list_records(kind, after):
                    records += page
                    after = page[-1].id
            try:
                self.policy = Policy(self.config, records, version)
            except ConfigError as error:  # a limit that cannot be read must not be one that does not hold
                raise StoreAway(error.message) from error
            await self._start_values(self.policy.starting_rules())

    async def _start_values(self, rules: Iterable[Rule]) -> None:
        now = self._clock()
        for rule in rules:
            if rule.start:
                claim = replace(rule.claim("", now, rule.start), limit=None)
                await self.counters.adjust(claim, once=f"start {claim.counter}")

    async def _reserve_after_recount(self, reservation: Reservation) -> tuple[Standing, ...] | Refusal:
        if self._recounting is None or self._recounting.done():
            try:
                return await self.counters.reserve(reservation)  # somebody else may have been here before
            except CountersLost:
                self._recounting = self._background(self._recount())
        # Once for all who come meanwhile, and not in the task of one who may give up.
        await asyncio.shield(self._recounting)
        return await self.counters.reserve(reservation)

    async def _recount(self) -> None:
        """Count again from the ledger what the rules of today would have counted."""
        log.warning("the counters are lost; they are counted again from the ledger")
        callers: dict[str, Caller] = {}
        amounts: dict[tuple[str, int], tuple[Claim, int]] = {}
        async for entry in self.durable.entries(since=0.0):
            caller = callers.get(entry.key)
            if caller is None:
                caller = callers[entry.key] = await self._caller_by_id(entry.key)
            if entry.user is not None and caller.user is None:
                caller = self.policy.with_user(caller, entry.user)
            caller = replace(caller, user=entry.user, team=entry.team, customer=entry.customer, metadata=entry.metadata)
            request = Request(
                entry.kind,  # type: ignore[arg-type]
                entry.server,
                entry.tool,
                entry.provider,
                entry.model,
                entry.usage,
                entry.id,
                entry.parent_id,
                entry.at,
            )
            for share in self.policy.shares(caller, request, entry.cost):
                claim = share.claim
                _, before = amounts.get((claim.counter, claim.cell), (claim, 0))
                amount = measured(claim.measure, entry.cost, entry.usage)
                amounts[claim.counter, claim.cell] = (claim, before + amount)
        await self.counters.restore(amounts.values())
        await self._lease()
        await self._start_values(self.policy.starting_rules())

    async def _caller_by_id(self, id: str) -> Caller:
        found = await self._key_by_id(id)
        return Caller(id) if found is None else self.policy.caller_of(*found)

    async def _key_by_id(self, id: str) -> tuple[VirtualKey, KeySpec] | None:
        if (declared := self.policy.keys.get(id)) is not None:
            return declared
        record = await self.durable.get_record("key", id)
        return None if record is None else from_record(id, record.value)

    def _lost(self, error: StoreAway) -> None:
        self._metrics.store_failed()
        if self._away is None:
            log.error("the store is away: %s", error)
        self._away = str(error) or "it does not answer"

    def _found(self) -> None:
        if self._away is not None:
            log.warning("the store is back")
        self._away = None

    async def probe(self) -> str:
        """Hold something, let go of it, and ask the ledger for a report: what went wrong, or nothing."""
        now = self._clock()
        claim = Claim("probe", "requests", amount=1, limit=1_000_000, cell=int(now), oldest=int(now), ends_at=now + 1)
        reservation = Reservation(new_id("probe"), self.owner, (claim,))
        try:
            await self._ask(reservation)
            await self.counters.release(reservation)
            await self.durable.report(Query(now - 3600, now))
        except StoreAway as error:
            return str(error)
        return ""

    # --- who

    async def identify(
        self,
        secret: str | None,
        *,
        key_required: bool,
        address: str | None = None,
        metadata: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> Caller:
        """The caller behind a secret. Raises MissingKey, InvalidKey, NotAllowed, InvalidRequest, Unavailable."""
        if not key_required and secret is not None and not self._is_ours(secret):
            secret = None  # what clients send because they must send something
        if secret is None:
            if key_required:
                raise MissingKey("a virtual key is needed: send Authorization: Bearer mg-… or x-api-key: mg-…")
            caller = LOCAL
        else:
            key, caller = await self._find(digest_of(secret))
            match key.state(self._clock()):
                case "revoked":
                    raise InvalidKey("this key was revoked")
                case "expired":
                    when = datetime.datetime.fromtimestamp(key.expires_at or 0.0, datetime.UTC)
                    raise InvalidKey(f"this key expired on {when:%Y-%m-%d %H:%M} UTC")
                case "disabled":
                    raise NotAllowed("this key is disabled", key=key.id)
            if not key.admits_address(address):
                raise NotAllowed(f"this key may not be used from {address or 'an unknown address'}", key=key.id)
            missing = [name for name in self.config.required_metadata if not (metadata or {}).get(name)]
            if missing:
                raise InvalidRequest(
                    f"metadata {missing[0]!r} is required: send "
                    f"x-mcpgate-metadata: {json.dumps({missing[0]: '…'}, ensure_ascii=False)}"
                )
        if metadata:
            caller = replace(caller, metadata=metadata)
        if user:
            if caller.user not in (None, user):
                raise NotAllowed(f"this key belongs to another user than {user!r}")
            if caller.user is None:
                caller = self.policy.with_user(caller, user)
        return caller

    def _is_ours(self, secret: str) -> bool:
        return secret.startswith(PREFIX) or self.policy.find_declared(digest_of(secret)) is not None

    async def _find(self, digest: str) -> tuple[VirtualKey, Caller]:
        declared = self.policy.find_declared(digest)
        remembered = self._callers.get(digest)
        value: Mapping[str, Any] = {}
        if declared is None:
            try:
                record, version = await self.durable.find_key(digest)
                if version != self.policy.version:
                    await self._reload(version)
            except StoreAway as error:
                self._lost(error)
                known = remembered is not None and is_good(remembered[2], digest, self._clock())
                if remembered is not None and known and self.config.when_store_is_away == "allow":
                    return remembered[2], remembered[3]
                raise Unavailable("the store that knows the keys is away; try again soon") from error
            if record is None:
                raise InvalidKey("this is no key of this gateway")
            value = record.value
        if remembered is not None and remembered[0] is self.policy and (declared or remembered[1] == value):
            key, caller = remembered[2], remembered[3]
        else:
            key, spec = declared or from_record(record.id if record else "", value)
            caller = self.policy.caller_of(key, spec)
            if declared is None:
                try:
                    await self._start_values(caller.rules)
                except StoreAway as error:
                    self._lost(error)
            if len(self._callers) > _MOST_CALLERS:
                self._callers.clear()
            self._callers[digest] = (self.policy, value, key, caller)
        if not is_good(key, digest, self._clock()):
            raise InvalidKey("this secret was replaced by a newer one, and its overlap is over")
        return key, caller

    # --- what

    def admit(self, caller: Caller, request: Request) -> "Admission":
        """An asynchronous context manager. Entering it raises BudgetExceeded, RateLimited, NotAllowed, Unavailable;
        leaving it settles."""
        return Admission(self, caller, request)

    async def _enter(self, admission: "Admission") -> None:
        caller, request = admission.caller, admission.request
        if request.parent_id is not None and not caller.is_local:
            await self._check_again(caller)
        cost = admission.prices.cost(request, request.estimate)
        deny = self.config.unpriced == "deny"
        shares = self.policy.shares(caller, request, cost, with_unpriced=deny)
        if cost is None and deny:
            budget = next((s for s in shares if s.match.rule.measure == "cost" and s.claim.limit is not None), None)
            if budget is not None:
                what = f"{request.server}.{request.tool}" if request.kind == "tool" else str(request.model)
                raise NotAllowed(f"{what} has no known price, and budget {budget.match.rule.id!r} asks for one")
        admission.shares = shares
        if self._away is not None and (shares or not caller.is_local):
            self._when_away(StoreAway(self._away))
        elif shares:
            reservation = Reservation(request.id, self.owner, tuple(share.claim for share in shares))
            try:
                if not self._leased_until:
                    await self._lease()
                admission.standings = await self._reserve(admission, reservation)
            except StoreAway as error:
                self._lost(error)
                self._unreleased.append(reservation)  # it may have been made all the same
                self._when_away(error)
            except asyncio.CancelledError:
                # Whether it was reserved is not known: the answer was on its way.
                self._background(self._release(reservation))
                raise
            except McpgateError as error:
                self._metrics.refused(error.code)
                raise
            else:
                self._warn(admission)
        if request.parent_id is None:
            self._open[request.id] = admission
            if caller.noted is not None:
                caller.noted.append(admission)

    async def _check_again(self, caller: Caller) -> None:
        """Code may run for minutes after its key was revoked; its calls end within a second. Raises NotAllowed."""
        now = self._clock()
        until, refused = self._checked.get(caller.id, (0.0, ""))
        if now >= until:
            try:
                found = await self._key_by_id(caller.id)
            except StoreAway as error:
                self._lost(error)
                return  # what follows asks the store too, and decides
            good = found is not None and found[0].state(now) == "active"
            refused = "" if good else "this key was revoked, disabled or has expired meanwhile"
            if len(self._checked) > _MOST_CALLERS:
                self._checked.clear()
            self._checked[caller.id] = (now + _LOOK_EVERY_S, refused)
        if refused:
            raise NotAllowed(refused, key=caller.id)

    def _when_away(self, error: StoreAway) -> None:
        if self.config.when_store_is_away == "refuse":
            self._metrics.refused(Unavailable.code)
            raise Unavailable("the store of budgets and limits is away, so nothing is admitted; try again soon")
        self._metrics.admitted_uncounted()
        log.debug("admitted without counting: %s", error)

    async def _reserve(self, admission: "Admission", reservation: Reservation) -> tuple[Standing, ...]:
        refused: McpgateError | None = None
        counter = next((claim.counter for claim in reservation.claims if claim.counter in self._queues), None)
        if counter is None:
            answer = await self._ask(reservation)
            if not isinstance(answer, Refusal):
                return answer
            refused, held = judge(admission.caller, admission.shares, answer, self._clock())
            if not held or self.config.hold_wait_s == 0:
                raise refused
            counter = admission.shares[answer.misfits[0][0]].claim.counter
        # First come, first served: of those who wait for the same counter only the first one asks again.
        line = self._queues.get(counter)
        if line is None:
            line = self._queues[counter] = _Queue()
        line.waiting += 1
        try:
            async with asyncio.timeout(self.config.hold_wait_s), line.turn:
                while True:
                    line.changed.clear()
                    answer = await self._ask(reservation)
                    if not isinstance(answer, Refusal):
                        return answer
                    refused, held = judge(admission.caller, admission.shares, answer, self._clock())
                    if not held:
                        raise refused
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_POLL_S):
                            await line.changed.wait()
        except TimeoutError:
            # The answer to a last question may be lost on the way: what it took is given back.
            await self._release(reservation)
            if refused is not None:
                raise refused from None
            answer = await self._ask(reservation)  # its turn never came
            if not isinstance(answer, Refusal):
                return answer
            raise judge(admission.caller, admission.shares, answer, self._clock())[0] from None
        finally:
            line.waiting -= 1
            if not line.waiting:
                self._queues.pop(counter, None)

    async def _ask(self, reservation: Reservation) -> tuple[Standing, ...] | Refusal:
        try:
            return await self.counters.reserve(reservation)
        except CountersLost:
            return await self._reserve_after_recount(reservation)

    async def _release(self, reservation: Reservation) -> None:
        try:
            await self.counters.release(reservation)
        except StoreAway as error:
            self._lost(error)
            self._unreleased.append(reservation)
        self._wake(reservation.claims)

    def _wake(self, claims: Sequence[Any]) -> None:
        if self._queues:
            for claim in claims:
                if (line := self._queues.get(claim.counter)) is not None:
                    line.changed.set()

    def _warn(self, admission: "Admission") -> None:
        for share, standing in zip(admission.shares, admission.standings, strict=True):
            soft = share.match.rule.soft_limit
            if soft is None or standing.spent + standing.held <= soft:
                continue
            text = (
                f"{scope_of(admission.caller, share)} has used {shown_amount('cost', standing.spent + standing.held)} "
                f"of its budget {share.match.rule.id!r} ({share.match.rule.limit_text}), more than its soft limit "
                f"of {shown_amount('cost', soft)}"
            )
            admission.warnings = (*admission.warnings, text)
            self._metrics.warned()
            once = (share.claim.counter, share.claim.cell)
            if once not in self._warned:
                if len(self._warned) > _MOST_CALLERS:
                    self._warned.clear()
                self._warned.add(once)
                log.warning("%s", text)

    async def _exit(self, admission: "Admission", failed: bool) -> None:
        request = admission.request
        self._open.pop(request.id, None)
        cost = admission.prices.cost(request, admission.usage) if admission.cost is None else admission.cost
        entry = admission.entry(cost, (self._clock() - request.at) * 1000)
        claims = tuple(share.claim for share in admission.shares)
        amounts = tuple(measured(claim.measure, cost, admission.usage) for claim in claims)
        settlement = Settlement(entry, claims, amounts, admission.content)
        usage = entry.usage
        self._metrics.settled(entry.kind, entry.outcome, cost, usage.definition_tokens_saved, usage.result_tokens_saved)
        admission.total += cost or 0
        parent = self._open.get(request.parent_id) if request.parent_id else None
        if parent is not None:
            parent.total += cost or 0
            parent.warnings = tuple(dict.fromkeys((*parent.warnings, *admission.warnings)))
        if parent is not None and not claims and not cost:
            # Nothing hangs on it but the record, which must be there before the execution's answer is.
            parent.children.append(settlement)
            return
        task = self._background(self._settle([*admission.children, settlement]))
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:
                cancelled = error  # what was spent is written all the same
            except StoreAway:
                break
        if cancelled is not None:
            raise cancelled
        governed = claims or not admission.caller.is_local
        if task.exception() is None or failed:  # what the block ended with, above all a cancellation, goes on
            return
        if governed and self.config.when_store_is_away == "refuse":
            raise Unavailable(
                "it was done, but the ledger is away and could not be written before the answer; "
                "the entry is kept and written when it is back"
            )

    async def _settle(self, settlements: Sequence[Settlement]) -> None:
        try:
            await self._write(settlements)
        except StoreAway as error:
            self._lost(error)
            self._unwritten += settlements
            if len(self._unwritten) > _MOST_UNWRITTEN:
                log.error("the ledger has been away for too long: %d entries are lost", len(settlements))
                del self._unwritten[_MOST_UNWRITTEN:]
            raise
        finally:
            for settlement in settlements:
                self._wake(settlement.claims)

    async def _write_again(self) -> None:
        while some := self._unwritten[:_WRITTEN_AT_ONCE]:
            await self._write(some)
            # Only now: whoever cancels this finds them where they were, and settling twice counts once.
            del self._unwritten[: len(some)]

    async def _write(self, settlements: Sequence[Settlement]) -> None:
        """All at once; if one of them is such that no store takes it, each by itself, and without that one. Raises
        StoreAway."""
        try:
            await self.counters.settle(settlements)
        except StoreAway:
            raise
        except Exception:
            if len(settlements) > 1:
                for settlement in settlements:
                    await self._write([settlement])
                return
            (lost,) = settlements
            log.exception("the entry of request %s cannot be written and is lost", lost.entry.id)
            await self.counters.release(Reservation(lost.entry.id, self.owner, lost.claims))

    def _background(self, work: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task


class _Queue:
    """Those who wait for one counter."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.changed = asyncio.Event()
        self.waiting = 0


class Admission:
    """One admitted request. Use it as an asynchronous context manager; say inside what was spent."""

    __slots__ = (
        "_gate",
        "cache",
        "caller",
        "children",
        "content",
        "cost",
        "outcome",
        "prices",
        "request",
        "shares",
        "standings",
        "total",
        "usage",
        "warnings",
    )

    def __init__(self, gate: Gate, caller: Caller, request: Request) -> None:
        self._gate, self.caller, self.request = gate, caller, request
        self.prices = gate.prices
        """Those that it began with, whatever an edit says meanwhile."""
        self.shares: tuple[Share, ...] = ()
        self.standings: tuple[Standing, ...] = ()
        self.children: list[Settlement] = []
        self.usage = Usage()
        self.cost: int | None = None
        """Nano-dollars, where the answer says what it cost; else the price list does."""
        self.total = 0
        """Nano-dollars, when it is over: with what was called from inside."""
        self.outcome = "ok"
        self.cache = ""
        self.content: Content | None = None
        self.warnings: tuple[str, ...] = ()

    def spent(self, usage: Usage) -> None:
        """What has been used so far; said as soon as it is, for the block may be left at any moment."""
        self.usage = usage

    async def __aenter__(self) -> "Admission":
        await self._gate._enter(self)
        self._gate._inside += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self.outcome == "ok":
            self.outcome = error.code if isinstance(error, McpgateError) else _outcome_of(error)
        try:
            await self._gate._exit(self, failed=error is not None)
        finally:
            self._gate._inside -= 1

    def entry(self, cost: int | None, latency_ms: float) -> Entry:
        caller, request = self.caller, self.request
        return Entry(
            id=request.id,
            parent_id=request.parent_id,
            at=request.at,
            kind=request.kind,
            key=caller.id,
            user=caller.user,
            team=caller.team,
            customer=caller.customer,
            server=request.server,
            tool=request.tool,
            provider=request.provider,
            model=request.model,
            outcome=self.outcome,
            cost=cost,
            usage=self.usage,
            latency_ms=latency_ms,
            cache=self.cache,
            metadata=caller.metadata,
        )


def _outcome_of(error: BaseException) -> str:
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "error"
