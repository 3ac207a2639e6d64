"""One request from its admission to its settlement.

`async with gate.admit(context, request) as admission:` reserves the estimate in every budget and rate limit that
applies, in one atomic step, before the block is entered. When the block exits, in whatever way, the actual usage is
settled and written to the ledger, and the rest is released. If a cache may answer, money is reserved only after it
did not.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from mcpgate.errors import McpgateError, NotAllowed, Unavailable
from mcpgate.governance.callers import Caller
from mcpgate.governance.contents import Content, Contents, NoContents, cut
from mcpgate.governance.context import Admitted, RequestContext
from mcpgate.governance.declared import Declared
from mcpgate.governance.holds import Holds
from mcpgate.governance.identity import Identity
from mcpgate.governance.journal import Journal
from mcpgate.governance.records import HITS, Balance, Claim, Entry, Request, Reservation, Saved, Usage
from mcpgate.governance.refusals import scope_of
from mcpgate.governance.rule import Share, measured, shown_amount
from mcpgate.governance.store import Settlement, StoreUnavailable
from mcpgate.telemetry.metrics import Metrics
from mcpgate.telemetry.trace import NO_HEADERS, Trace, client_span_of, span_of

log = logging.getLogger("mcpgate.governance")
_MAX_REMEMBERED = 20_000
_NO_USAGE, _NOTHING_SAVED = Usage(), Saved()
_COST_HOLD = "/cost"
"""Suffix of a request's id in the id of its money's reservation, if that is reserved separately."""
_FRESH_S = 1.0
"""How long a request may wait before it is confirmed again."""


class Tracer(Protocol):
    """Makes spans of requests. Implementation: activity/tracing.py."""

    def begin(self, trace: Trace | None) -> Trace:
        """The trace of a request, which may have come with one; decides whether it is recorded."""
        ...

    def ended(self, entry: Entry, trace: Trace | None) -> None:
        """A request is over. Must be fast and must not raise."""
        ...


@dataclass(slots=True)
class Desk:
    """What the admissions of one process share."""

    declared: Declared
    identity: Identity
    holds: Holds
    journal: Journal
    metrics: Metrics
    clock: Callable[[], float] = time.time
    tracer: Tracer | None = None
    """None where traces are not exported."""
    open: "set[Admission]" = field(default_factory=set)
    """Admissions that are not settled yet."""
    warned: set[tuple[str, int]] = field(default_factory=set)
    """Counters and cells whose soft limits were logged."""
    contents: Contents = field(default_factory=NoContents)
    """Where what requests say is kept."""


class Admission(Admitted):
    """One admitted request. Use it as an asynchronous context manager; report inside what was spent."""

    __slots__ = (
        "_children",
        "_children_have_stake",
        "_confirmed_at",
        "_context",
        "_desk",
        "_estimated",
        "_held",
        "_money_later",
        "_prices",
        "cache",
        "content",
        "cost",
        "counts_requests",
        "facts",
        "joins",
        "outcome",
        "saved",
        "timings",
        "usage",
    )

    def __init__(self, desk: Desk, context: RequestContext, request: Request, money_later: bool = False) -> None:
        super().__init__(request)
        self._desk, self._context, self._money_later = desk, context, money_later
        self._prices = desk.declared.prices
        """Those in force when it began, whatever an edit changes meanwhile."""
        self._estimated: int | None = None
        """Nano-dollars: the price of the estimate, if any rule may apply."""
        self._held: tuple[Reservation, ...] = ()
        self._confirmed_at = 0.0
        """When its rights and limits were last looked at."""
        self._children: list[Settlement] = []
        """Entries of nested requests that are written together with its own."""
        self._children_have_stake = False
        self.usage = _NO_USAGE
        self.saved = _NOTHING_SAVED
        self.cost: int | None = None
        """Nano-dollars, if the answer states its cost; else the price list applies."""
        self.outcome = "ok"
        self.joins = False
        """It ends together with its parent: in one write, at the parent's end. What it holds stays held until then."""
        self.cache = ""
        """How the cache answered it: exact, semantic, miss; empty without the cache."""
        self.counts_requests = True
        """Whether it counts in limits on requests."""
        self.content: Content | None = None
        """What it says, if that is kept."""
        self.timings: dict[str, float] = {}
        """Milliseconds by stage: upstream, sandbox, tools, first_token …"""
        self.facts: dict[str, str] = {"request": context.id, **context.about}
        """Further facts for the request log: request, client, session, attempts …"""
        if desk.tracer is not None:
            if context.trace is None or not context.trace.is_ours:
                context.trace = desk.tracer.begin(context.trace)
            if context.trace.is_sampled:
                self.facts["trace"] = context.trace.id

    @property
    def caller(self) -> Caller:
        return self._context.caller

    def note_sent(self, text: Callable[[], str | bytes]) -> None:
        """Keep what was sent, if contents are kept: only then is `text` called."""
        if most := self._desk.contents.wants(self._context.caller, self.request):
            self.content = Content(most, cut(text(), most))

    def note_answered(self, text: Callable[[], str | bytes]) -> None:
        """Keep what was answered; after `note_sent`."""
        if self.content is not None:
            self.content = self.content._replace(answered=cut(text(), self.content.most))

    @property
    def trace_headers(self) -> Mapping[str, str]:
        """`traceparent` and `tracestate` of what is sent for it; nothing without a trace."""
        trace, request = self._context.trace, self.request
        if trace is None:
            return NO_HEADERS
        if not trace.is_ours:
            return trace.headers()
        has_two = request.parent_id is None and request.kind in ("tool", "resource")
        return trace.headers(client_span_of(request.id) if has_two else span_of(request.id))

    def spent(self, usage: Usage) -> None:
        """Report the usage so far; call it at once, because the block may exit at any moment."""
        self.usage = usage

    def price(self) -> int | None:
        """Nano-dollars of the usage so far; None without a known price."""
        return self._prices.cost(self.request, self.usage) if self.cost is None else self.cost

    async def hold_money(self) -> None:
        """Reserve what `money_later` left out. Raises like entering."""
        if self._money_later:
            self._money_later = False
            await self._reserve([share for share in self._shares() if share.claim.measure == "cost"], _COST_HOLD)

    async def confirm(self, check: Callable[[Caller], None]) -> None:
        """Call it just before sending, because the request may have waited since it was admitted: its key must still
        be valid, `check` must still pass, and it must fit the limits of now. Raises like entering, and what `check`
        raises; then nothing of the request is counted. What was sent already stays reserved and is counted."""
        desk, context = self._desk, self._context
        if desk.clock() - self._confirmed_at < _FRESH_S:
            return
        unsent = self.usage is _NO_USAGE
        try:
            context.caller = await desk.identity.current(context.caller)
            check(context.caller)
            shares = [share for share in self._shares() if not (self._money_later and share.claim.measure == "cost")]
            if unsent and {share.claim for share in shares} != {share.claim for share in self.shares}:
                await self._let_go()
                # Under another id: the release may be queued, and must not end this one.
                await self._reserve(shares, f"/{desk.clock():.6f}")
            self._confirmed_at = desk.clock()
        except McpgateError:
            if unsent:
                await self._let_go()
            raise

    async def _let_go(self) -> None:
        for reservation in self._held:
            await self._desk.holds.release(reservation)
        self._held, self.shares, self.balances, self.warnings = (), (), (), ()

    def refused(self, error: McpgateError) -> None:
        """It is not admitted: say so in the request log."""
        desk, request = self._desk, self.request
        self.facts["refused"] = _limit_of(error) or error.code
        entry = self._entry(_NO_USAGE, 0, error.code)
        if desk.tracer is not None:
            desk.tracer.ended(entry, self._context.trace)
        if request.parent_id is None or request.provider is None:  # else the model's request says it
            desk.journal.refused(entry)

    async def __aenter__(self) -> "Admission":
        desk, request, context = self._desk, self.request, self._context
        try:
            await self._enter()
        except McpgateError as error:
            self.refused(error)
            raise
        if request.parent_id is None:
            context.trail.admitted.append(self)
        self._confirmed_at = desk.clock()
        desk.open.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self.outcome == "ok":
            self.outcome = error.code if isinstance(error, McpgateError) else _outcome_of(error)
        await self._settle(failed=error is not None)

    async def abandon(self) -> None:
        """The process ends before the request: settle its known usage."""
        self.outcome = "cancelled"
        await self._settle(failed=True)

    # --- in

    async def _enter(self) -> None:
        desk, context = self._desk, self._context
        if self.request.parent_id is not None:
            context.caller = await desk.identity.current(context.caller)
        shares = self._shares()
        if self._money_later:
            at_once = [share for share in shares if share.claim.measure != "cost"]
            self._money_later = len(at_once) < len(shares)
            shares = at_once
        if desk.declared.unavailable is not None and (shares or not context.caller.is_local):
            self._admit_uncounted(StoreUnavailable(desk.declared.unavailable), shares)
        elif shares:
            await self._reserve(shares)

    def _shares(self) -> Sequence[Share]:
        """What every rule takes. Raises NotAllowed for a request without a price if a budget requires one."""
        declared, request, caller = self._desk.declared, self.request, self._context.caller
        if not declared.policy.limits(caller):
            return ()
        cost = self._estimated = self._prices.cost(request, request.estimate)
        deny = declared.config.unpriced == "deny"
        shares = declared.policy.shares(caller, request, cost, with_unpriced=deny)
        if cost is None and deny:
            budget = next((s for s in shares if s.match.rule.measure == "cost" and s.claim.limit is not None), None)
            if budget is not None:
                what = (
                    f"{request.server}.{request.tool}" if request.kind in ("tool", "resource") else str(request.model)
                )
                raise NotAllowed(
                    f"{what} has no known price, and budget {budget.match.rule.id!r} requires one",
                    **{"key": caller.id, "server": request.server, "tool": request.tool, "model": request.model},
                    budget=budget.match.rule.id,
                )
        return shares

    async def _reserve(self, shares: Sequence[Share], suffix: str = "") -> None:
        if not shares:
            return
        desk, caller = self._desk, self._context.caller
        claims = tuple(share.claim for share in shares)
        abandoned = self._if_abandoned(claims)
        flush = abandoned is not None and desk.declared.config.durability == "always"
        reservation = Reservation(self.request.id + suffix, desk.holds.owner, claims, abandoned, flush)
        try:
            balances = await desk.holds.reserve(caller, shares, reservation)
        except StoreUnavailable as error:
            desk.declared.lost(error)
            self._admit_uncounted(error, shares)
            return
        except McpgateError as error:
            desk.metrics.refused(error.code, _limit_of(error))
            raise
        self._held = (*self._held, reservation)
        self.shares, self.balances = (*self.shares, *shares), (*self.balances, *balances)
        for text, once in _soft_warnings(caller, shares, balances, self.request.at):
            self.warnings = (*self.warnings, text)
            desk.metrics.warned()
            if once not in desk.warned:
                if len(desk.warned) > _MAX_REMEMBERED:
                    desk.warned.clear()
                desk.warned.add(once)
                log.warning("%s", text)

    def _if_abandoned(self, claims: Sequence[Claim]) -> Entry | None:
        """The entry that is written if this process is killed before it can settle: a request for which more than
        concurrency was reserved counts as sent, and what was sent is spent."""
        if not any([claim.amount and claim.measure != "concurrency" for claim in claims]):
            return None
        cost = 0 if self._money_later else self._estimated
        entry = self._entry(self.request.estimate, cost, outcome="unknown")
        parent = self._context.parent
        if isinstance(parent, Admission) and not any(one.abandoned for one in parent._held):
            return entry._replace(parent_id=None)  # nothing will tell of its parent, under which the log would have it
        return entry

    def _admit_uncounted(self, error: StoreUnavailable, shares: Sequence[Share]) -> None:
        if self._desk.declared.config.when_store_is_away == "refuse":
            self._desk.metrics.refused(Unavailable.code)
            raise Unavailable(
                "the store of budgets and limits is unavailable, so nothing is admitted; try again shortly"
            )
        self.shares = (*self.shares, *shares)  # counted when the store is back
        self._desk.metrics.admitted_uncounted()
        log.debug("admitted without counting: %s", error)

    # --- out

    async def _settle(self, failed: bool) -> None:
        desk, context = self._desk, self._context
        desk.open.discard(self)  # from here on, nested requests are written separately
        cost = 0 if self.cost is None and self.cache in HITS else self.price()
        entry = self._entry(self.usage, cost, self.outcome)
        claims = tuple([share.claim for share in self.shares])
        amounts = tuple([measured(claim.measure, cost, self.usage) for claim in claims])
        if not self.counts_requests:
            amounts = tuple([0 if c.measure == "requests" else n for c, n in zip(claims, amounts, strict=True)])
        holds = tuple([reservation.id for reservation in self._held])
        settlement = Settlement(entry, claims, amounts, holds)
        if self.content is not None:
            desk.contents.keep(entry, self.content)
        desk.journal.tell(entry)
        if desk.tracer is not None:
            desk.tracer.ended(entry, context.trace)
        self.total += cost or 0
        parent = context.parent
        if parent is not None:
            parent.total += cost or 0
            if self.warnings:
                parent.warnings = tuple(dict.fromkeys((*parent.warnings, *self.warnings)))
        if isinstance(parent, Admission) and parent in desk.open:
            stake = self._stake(claims, cost)
            # Else only the record depends on it, which is written together with the parent's own.
            if self.joins or (not stake and parent._stake((), None)):
                parent._children.append(settlement)
                parent._children_have_stake |= stake
                return
        settlements = [*self._children, settlement]
        if not self._stake(claims, cost):
            for one in settlements:
                desk.journal.settle_soon(one)
            return
        try:
            await desk.journal.settle(settlements)
        except StoreUnavailable:
            governed = claims or any(one.claims for one in self._children) or not context.caller.is_local
            if failed or not governed or desk.declared.config.when_store_is_away == "allow":
                return  # the block's own exception propagates, above all a cancellation
            raise Unavailable(
                "the call succeeded, but the ledger is unavailable. Its entry is queued and will be written when the "
                "store recovers"
            ) from None

    def _stake(self, claims: Sequence[Claim], cost: int | None) -> bool:
        """Whether its entry must be on disk before its answer: if money was spent or any limit applies."""
        declared = self._desk.declared
        if claims or cost or self._children_have_stake or declared.config.durability == "always":
            return True
        return bool(declared.policy.matches(self._context.caller, self.request))

    def _entry(self, usage: Usage, cost: int | None, outcome: str) -> Entry:
        caller, request = self._context.caller, self.request
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
            outcome=outcome,
            cost=cost,
            usage=usage,
            latency_ms=(self._desk.clock() - request.at) * 1000,
            cache=self.cache,
            metadata=caller.metadata,
            saved=self.saved,
            timings=self.timings,
            facts=self.facts,
        )


def _soft_warnings(
    caller: Caller, shares: Sequence[Share], balances: Sequence[Balance], at: float
) -> list[tuple[str, tuple[str, int]]]:
    """Warnings about budgets over their soft limits, each with its counter and cell."""
    found = []
    for share, balance in zip(shares, balances, strict=True):
        rule, used = share.match.rule, balance.spent + balance.held
        if rule.soft_limit is None or used <= rule.soft_limit:
            continue
        text = (
            f"{scope_of(caller, share)} has used {shown_amount('cost', used)} of its budget {rule.id!r} "
            f"({rule.limit_text(at)}), more than its soft limit of {shown_amount('cost', rule.soft_limit)}"
        )
        found.append((text, (share.claim.counter, share.claim.cell)))
    return found


def _limit_of(error: McpgateError) -> str | None:
    """The budget or rate limit that refused a request."""
    return error.data.get("budget") or error.data.get("rate_limit")


def _outcome_of(error: BaseException) -> str:
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "error"
