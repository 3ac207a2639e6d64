"""The one door: who is asking, whether they may, and what it may cost.

Holds its parts together and looks after them; the work is theirs: declared (the policy in force), identity (callers),
holds (reservations), journal (the ledger's writer), admission (one request).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from mcpgate.config.governance import GovernanceConfig
from mcpgate.errors import Unavailable
from mcpgate.governance.admission import Admission, Desk
from mcpgate.governance.background import Background
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.governance.declared import Declared
from mcpgate.governance.holds import Holds
from mcpgate.governance.identity import Identity
from mcpgate.governance.journal import Journal, Listener
from mcpgate.governance.policy import Policy
from mcpgate.governance.prices import Prices
from mcpgate.governance.records import Claim, Request, Reservation, new_id
from mcpgate.governance.store import Counters, Query, Store, StoreUnavailable
from mcpgate.telemetry.metrics import Metrics

log = logging.getLogger("mcpgate.governance")
_LOOK_EVERY_S = 1.0
"""How often the gate looks whether records were changed elsewhere, owners have died, and entries wait."""
_LAST_CALLS_S = 5.0
"""How long the end waits for what was admitted to be settled."""


class Gate:
    """Identifies callers and admits requests. One for each process."""

    def __init__(
        self,
        config: GovernanceConfig,
        prices: Prices,
        counters: Counters,
        store: Store,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.counters, self.store = counters, store
        self._clock = clock
        self._background = Background()
        self._declared = Declared(config, prices, counters, store, metrics, clock)
        self._identity = Identity(self._declared, counters, store, clock)
        self._holds = Holds(self._declared, self._identity, counters, store, self._background, clock)
        self._journal = Journal(self._declared, self._holds, counters, self._background)
        self._desk = Desk(self._declared, self._identity, self._holds, self._journal, metrics, clock)
        self._journal.listen(metrics.settled)
        self._tasks: list[asyncio.Task[None]] = []
        self.identify = self._identity.identify

    @property
    def policy(self) -> Policy:
        """What is declared at this moment."""
        return self._declared.policy

    @property
    def config(self) -> GovernanceConfig:
        return self._declared.config

    @property
    def owner(self) -> str:
        """The name that this process reserves under."""
        return self._holds.owner

    # --- its own life

    async def start(self) -> None:
        """Read what is declared, and keep the lease from now on. Raises Unavailable where it cannot be read: without
        knowing the limits that were declared in the store nothing may be admitted."""
        try:
            await self._declared.reload()
        except StoreUnavailable as error:
            raise Unavailable(f"what is declared in the store cannot be read: {error}") from error
        try:
            await self._holds.lease()
        except StoreUnavailable as error:
            self._declared.lost(error)
        self._tasks = [
            asyncio.create_task(self._keep_lease(), name="lease"),
            asyncio.create_task(self._keep(), name="gate"),
        ]

    async def aclose(self) -> None:
        """Write everything that was spent; returns when it is written, or cannot be."""
        give_up = time.monotonic() + _LAST_CALLS_S
        while self._desk.open and time.monotonic() < give_up:
            await asyncio.sleep(0.01)  # what was admitted ends with its upstream, and is settled then
        for admission in tuple(self._desk.open):
            await admission.abandon()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._journal.aclose()
        with suppress(StoreUnavailable):
            await self._holds.end()

    async def reload(self, config: GovernanceConfig, prices: Prices) -> None:
        """Take over an edited configuration. Requests under way end under the rules they began with."""
        await self._declared.configure(config, prices)

    async def refresh(self) -> None:
        """Take over what was just declared."""
        try:
            await self._declared.look()
        except StoreUnavailable as error:
            self._declared.lost(error)

    async def flush(self) -> None:
        """Write every entry that is waiting for a moment, so that a report has it."""
        await self._journal.flush()

    async def probe(self) -> str:
        """Hold something, let go of it, and ask the ledger for a report: what went wrong, or nothing."""
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
        """Runs in a task of its own so that nothing slow delays renewal."""
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
                log.exception("the gate could not look after its store")

    # --- the door

    async def current(self, caller: Caller) -> Caller:
        """What an identified caller is by now, at most a second old. Raises NotAllowed when its key is no longer
        good."""
        return await self._identity.current(caller)

    def admit(self, context: RequestContext, request: Request, money_later: bool = False) -> Admission:
        """An asynchronous context manager. Entering it raises BudgetExceeded, RateLimited, NotAllowed, Unavailable;
        leaving it settles. With `money_later` only what limits speed is reserved, for a cache may answer; see
        `Admission.hold_money`."""
        return Admission(self._desk, context, request, money_later)

    async def headroom(self, context: RequestContext, request: Request) -> Mapping[str, int]:
        """Measure → what still fits every limit that applies to a request, in the units of `Claim.amount`. Measures
        without a limit are absent. Raises StoreUnavailable."""
        policy, now = self._declared.policy, self._clock()
        matches = policy.matches(context.caller, request)
        spans = [(match.rule.counter(match.subject), match.rule.window.span(now).oldest) for match in matches]
        left: dict[str, int] = {}
        for match, balance in zip(matches, await self.counters.read(spans), strict=True):
            if match.governs:
                rest = max(0, match.rule.limit - balance.spent - balance.held)
                left[match.rule.measure] = min(rest, left.get(match.rule.measure, rest))
        return left

    def listen(self, listener: Listener) -> None:
        """Tell a function of every entry of the ledger as its request ends; it must be quick and must not raise."""
        self._journal.listen(listener)
