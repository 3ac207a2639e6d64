"""The single entry point of governance: identifies callers and admits requests.

It connects and maintains its parts, which do the work: declared (the active policy), identity (callers), holds
(reservations), journal (the ledger's writer), admission (one request).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from mcpgate.config.governance import GovernanceConfig
from mcpgate.config.oauth import OAuthConfig
from mcpgate.errors import McpgateError, Unavailable
from mcpgate.governance.admission import Admission, Desk, Tracer
from mcpgate.governance.background import Background
from mcpgate.governance.callers import Caller
from mcpgate.governance.contents import Contents
from mcpgate.governance.context import RequestContext
from mcpgate.governance.declared import Declared
from mcpgate.governance.holds import Holds
from mcpgate.governance.identity import Identity
from mcpgate.governance.journal import Journal, Listener
from mcpgate.governance.policy import Policy
from mcpgate.governance.prices import Prices
from mcpgate.governance.records import Balance, Claim, Request, Reservation, new_id
from mcpgate.governance.rule import Match
from mcpgate.governance.store import Counters, Query, Store, StoreUnavailable
from mcpgate.governance.tokens import Tokens
from mcpgate.telemetry.metrics import Metrics

log = logging.getLogger("mcpgate.governance")
_LOOK_EVERY_S = 1.0
"""How often the gate checks for records changed elsewhere, dead owners and waiting entries."""
_LAST_CALLS_S = 5.0
"""How long shutdown waits for admitted requests to be settled."""


class Gate:
    """Identifies callers and admits requests. One per process."""

    def __init__(
        self,
        config: GovernanceConfig,
        prices: Prices,
        counters: Counters,
        store: Store,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        oauth: OAuthConfig | None = None,
        tokens: Tokens | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """`oauth` and `tokens`: whose access tokens are accepted in place of keys, and what verifies them. `tracer`:
        None where traces are not exported."""
        self.counters, self.store, self.tokens = counters, store, tokens
        self._clock = clock
        self._background = Background()
        self._declared = Declared(config, prices, counters, store, metrics, clock, oauth)
        self._identity = Identity(self._declared, counters, store, clock, tokens)
        self._holds = Holds(self._declared, self._identity, counters, store, self._background, clock)
        self._journal = Journal(self._declared, self._holds, counters, self._background)
        self._desk = Desk(self._declared, self._identity, self._holds, self._journal, metrics, clock, tracer)
        self._journal.listen(metrics.settled)
        self._tasks: list[asyncio.Task[None]] = []
        self.identify = self._identity.identify
        self.check_complete = self._identity.check_complete

    @property
    def policy(self) -> Policy:
        """The current declarations."""
        return self._declared.policy

    @property
    def config(self) -> GovernanceConfig:
        return self._declared.config

    @property
    def owner(self) -> str:
        """The name under which this process reserves."""
        return self._holds.owner

    # --- lifecycle

    async def start(self) -> None:
        """Read the declarations, and keep the lease from now on. Raises Unavailable if they cannot be read: without
        knowing the limits declared in the store, nothing may be admitted."""
        try:
            await self._declared.reload()
        except StoreUnavailable as error:
            raise Unavailable(f"the declarations in the store cannot be read: {error}") from error
        try:
            await self._holds.lease()
        except StoreUnavailable as error:
            self._declared.lost(error)
        self._tasks = [
            asyncio.create_task(self._keep_lease(), name="lease"),
            asyncio.create_task(self._keep(), name="gate"),
        ]

    async def aclose(self) -> None:
        """Write everything that was spent; returns when that is done or has failed."""
        give_up = time.monotonic() + _LAST_CALLS_S
        while self._desk.open and time.monotonic() < give_up:
            await asyncio.sleep(0.01)  # admitted requests end with their upstream, and are settled then
        for admission in tuple(self._desk.open):
            await admission.abandon()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._journal.aclose()
        with suppress(StoreUnavailable):
            await self._holds.end()

    async def reload(self, config: GovernanceConfig, prices: Prices, oauth: OAuthConfig | None = None) -> None:
        """Apply an edited configuration. Requests in progress end under the rules they began with."""
        await self._declared.configure(config, prices, oauth)

    async def refresh(self) -> None:
        """Apply what was just declared."""
        try:
            await self._declared.look()
        except StoreUnavailable as error:
            self._declared.lost(error)

    async def flush(self) -> None:
        """Write every waiting entry, so that a report includes it."""
        await self._journal.flush()

    async def probe(self) -> str:
        """Reserve, release and request a ledger report: the error, or an empty text."""
        now = self._clock()
        claim = Claim("probe", "requests", amount=1, limit=1_000_000, cell=int(now), oldest=int(now), ends_at=now + 1)
        reservation = Reservation(new_id("probe"), self._holds.owner, (claim,))
        try:
            await self._holds.ask(reservation)
            await self.counters.release(reservation)
            await self.store.report(Query(now - 3600, now))
        except StoreUnavailable as error:
            return str(error)
        return ""

    async def _keep_lease(self) -> None:
        """Runs in its own task so that nothing slow delays renewal."""
        while True:
            await asyncio.sleep(min(_LOOK_EVERY_S, self.config.lease_s / 4))
            try:
                await self._holds.lease()
            except StoreUnavailable as error:
                self._declared.lost(error)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOK_EVERY_S, self.config.lease_s / 4))
            try:
                await self._journal.write_again()
                await self._declared.look()
                await self._holds.tidy()
                self._declared.found()
            except StoreUnavailable as error:
                self._declared.lost(error)
            except Exception:
                log.exception("maintenance of the store failed")

    # --- admission

    async def current(self, caller: Caller) -> Caller:
        """The current state of an identified caller, at most a second old. Raises NotAllowed if its key or token is no
        longer valid."""
        return await self._identity.current(caller)

    def admit(self, context: RequestContext, request: Request, money_later: bool = False) -> Admission:
        """An asynchronous context manager. Entering it raises BudgetExceeded, RateLimited, NotAllowed, Unavailable;
        leaving it settles. With `money_later` only rate limits are reserved, because a cache may answer; see
        `Admission.hold_money`."""
        return Admission(self._desk, context, request, money_later)

    def refused(self, context: RequestContext, request: Request, error: McpgateError) -> None:
        """Say in the request log that a request was refused for another reason than a limit."""
        Admission(self._desk, context, request).refused(error)

    async def headroom(self, context: RequestContext, request: Request) -> Mapping[str, int]:
        """Measure → the amount that still fits every limit that applies to a request, in the units of `Claim.amount`.
        Measures without a limit are absent. Raises StoreUnavailable."""
        now = self._clock()
        matches = self._declared.policy.matches(context.caller, request)
        left: dict[str, int] = {}
        for match, balance in zip(matches, await self._balances(matches, now), strict=True):
            if match.governs:
                rest = max(0, match.rule.limit_at(now) - balance.spent - balance.held)
                left[match.rule.measure] = min(rest, left.get(match.rule.measure, rest))
        return left

    async def budget_used(self, context: RequestContext, request: Request) -> float:
        """The share of the fullest budget that applies to a request, reservations included; 0 without budgets. Raises
        StoreUnavailable."""
        matches = [
            match
            for match in self._declared.policy.matches(context.caller, request)
            if match.governs and match.rule.measure == "cost"
        ]
        used, now = 0.0, self._clock()
        for match, balance in zip(matches, await self._balances(matches, now), strict=True):
            limit = match.rule.limit_at(now)
            used = max(used, (balance.spent + balance.held) / limit if limit else 1.0)
        return used

    async def _balances(self, matches: Sequence[Match], now: float) -> Sequence[Balance]:
        return await self.counters.read(
            [(match.rule.counter(match.subject), match.rule.window.span(now).oldest) for match in matches]
        )

    def keep_contents(self, contents: Contents) -> None:
        """Have what requests say kept from now on."""
        self._desk.contents = contents

    def listen(self, listener: Listener) -> None:
        """Call a function with every ledger entry as its request ends; it must be fast and must not raise."""
        self._journal.listen(listener)
