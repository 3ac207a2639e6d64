"""Budget and concurrency reserved for requests in progress: reserved in one atomic step; waited for, first come first
served, while others only hold it; kept by a lease; and recounted from the ledger if the counters are lost."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from mcpgate.errors import McpgateError
from mcpgate.governance.background import Background
from mcpgate.governance.callers import Caller
from mcpgate.governance.declared import Declared
from mcpgate.governance.identity import Identity
from mcpgate.governance.records import Balance, Claim, Refusal, Request, Reservation, new_id
from mcpgate.governance.refusals import refusal_for
from mcpgate.governance.rule import Share, measured
from mcpgate.governance.store import Counters, CountersLost, Store, StoreUnavailable

log = logging.getLogger("mcpgate.governance")
_POLL_S = 0.05
"""How often a waiting request retries, since another process may have released something."""


class Holds:
    """What this process has reserved. One per process."""

    def __init__(
        self,
        declared: Declared,
        identity: Identity,
        counters: Counters,
        store: Store,
        background: Background,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.owner = new_id("gw")
        """The name under which this process reserves."""
        self._declared, self._identity, self._counters, self._store = declared, identity, counters, store
        self._background, self._clock = background, clock
        self._lines: dict[str, _Line] = {}
        self._unreleased: list[Reservation] = []
        self._leased_until = 0.0
        self._recounting: asyncio.Task[None] | None = None

    # --- the lease

    async def lease(self) -> None:
        """Extend this process's lease on its reservations by `lease_s`. Raises StoreUnavailable."""
        until = self._clock() + self._declared.config.lease_s
        await self._counters.renew(self.owner, until)
        self._leased_until = until

    async def tidy(self) -> None:
        """Release what could not be released earlier, and what dead processes hold. Raises StoreUnavailable."""
        await self._release_again()
        if self._clock() >= self._leased_until:
            await self.lease()  # this machine slept: renew before others' leases are judged
        await self._counters.expire(self._clock())

    async def _release_again(self) -> None:
        while self._unreleased:
            reservation = self._unreleased[0]
            await self._counters.release(reservation)
            self._unreleased.remove(reservation)
            self.wake(reservation.claims)

    async def end(self) -> None:
        """Give up the lease: what is still held ends at once and counts as spent where possible, so requests that never
        began are released first. Raises StoreUnavailable."""
        await self._release_again()
        if self._leased_until:
            await self._counters.renew(self.owner, 0.0)
            await self._counters.expire(self._clock())

    # --- reserving

    async def reserve(self, caller: Caller, shares: Sequence[Share], reservation: Reservation) -> tuple[Balance, ...]:
        """Reserve every share, or none; waits up to `hold_wait_s` for what others only hold. Raises BudgetExceeded,
        RateLimited, StoreUnavailable."""
        try:
            if self._clock() >= self._leased_until:
                await self.lease()  # the first time, or after this process was suspended
            return await self._reserve(caller, shares, reservation)
        except StoreUnavailable:
            self._unreleased.append(reservation)  # it may have been made nevertheless
            raise
        except asyncio.CancelledError:
            # Whether it was reserved is unknown: the answer was on its way.
            self._background.start(self.release(reservation))
            raise

    async def release(self, reservation: Reservation) -> None:
        """Release a reservation, at once or as soon as the store is available."""
        try:
            await self._counters.release(reservation)
        except StoreUnavailable as error:
            self._declared.lost(error)
            self._unreleased.append(reservation)
        self.wake(reservation.claims)

    def wake(self, claims: Sequence[Claim]) -> None:
        """Notify waiters that these counters have free capacity."""
        if self._lines:
            for claim in claims:
                if (line := self._lines.get(claim.counter)) is not None:
                    line.changed.set()

    async def _reserve(self, caller: Caller, shares: Sequence[Share], reservation: Reservation) -> tuple[Balance, ...]:
        refused: McpgateError | None = None
        counter: str | None = None
        if self._lines:
            counter = next((claim.counter for claim in reservation.claims if claim.counter in self._lines), None)
        if counter is None:
            answer = await self.ask(reservation)
            if not isinstance(answer, Refusal):
                return answer
            refused, held = refusal_for(caller, shares, answer, self._clock())
            if not held or self._declared.config.hold_wait_s == 0:
                raise refused
            counter = shares[answer.misfits[0][0]].claim.counter
        # First come, first served: of those waiting for the same counter, only the first retries.
        line = self._lines.get(counter)
        if line is None:
            line = self._lines[counter] = _Line()
        line.waiting += 1
        try:
            async with asyncio.timeout(self._declared.config.hold_wait_s), line.turn:
                while True:
                    line.changed.clear()
                    answer = await self.ask(reservation)
                    if not isinstance(answer, Refusal):
                        return answer
                    refused, held = refusal_for(caller, shares, answer, self._clock())
                    if not held:
                        raise refused
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_POLL_S):
                            await line.changed.wait()
        except TimeoutError:
            # The answer to the last attempt may be lost: what it took is given back.
            await self.release(reservation)
            if refused is not None:
                raise refused from None
            answer = await self.ask(reservation)  # its turn never came
            if not isinstance(answer, Refusal):
                return answer
            raise refusal_for(caller, shares, answer, self._clock())[0] from None
        finally:
            line.waiting -= 1
            if not line.waiting:
                self._lines.pop(counter, None)

    async def ask(self, reservation: Reservation) -> tuple[Balance, ...] | Refusal:
        """Reserve without waiting for others. Raises StoreUnavailable."""
        try:
            return await self._counters.reserve(reservation)
        except CountersLost:
            return await self._reserve_after_recount(reservation)

    # --- recounting

    async def _reserve_after_recount(self, reservation: Reservation) -> tuple[Balance, ...] | Refusal:
        if self._recounting is None or self._recounting.done():
            try:
                return await self._counters.reserve(reservation)  # another request may have recounted already
            except CountersLost:
                self._recounting = self._background.start(self._recount())
        # Once for all that arrive meanwhile, and not in the task of a request that may be cancelled.
        await asyncio.shield(self._recounting)
        return await self._counters.reserve(reservation)

    async def _recount(self) -> None:
        """Recount from the ledger what the current rules would have counted."""
        log.warning("the counters were lost; recounting from the ledger")
        policy = self._declared.policy
        callers: dict[str, Caller] = {}
        amounts: dict[tuple[str, int], tuple[Claim, int]] = {}
        async for entry in self._store.entries(since=0.0):
            caller = callers.get(entry.key)
            if caller is None:
                caller = callers[entry.key] = await self._identity.caller_by_id(entry.key)
            if entry.user not in (None, caller.user):
                caller = policy.with_user(caller, str(entry.user))
            caller = policy.with_scopes(caller, entry.team, entry.customer)
            caller = replace(caller, user=entry.user, metadata=entry.metadata)
            request = Request(
                kind=entry.kind,
                server=entry.server,
                tool=entry.tool,
                provider=entry.provider,
                model=entry.model,
                estimate=entry.usage,
                id=entry.id,
                parent_id=entry.parent_id,
                at=entry.at,
            )
            for share in policy.shares(caller, request, entry.cost):
                claim = share.claim
                _, before = amounts.get((claim.counter, claim.cell), (claim, 0))
                amount = measured(claim.measure, entry.cost, entry.usage)
                amounts[claim.counter, claim.cell] = (claim, before + amount)
        await self._counters.restore(amounts.values())
        await self.lease()
        await self._declared.start_values(policy.starting_rules())


class _Line:
    """The requests that wait for one counter."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.changed = asyncio.Event()
        self.waiting = 0
