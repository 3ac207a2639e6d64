"""Writes settlements to the ledger, at once or a moment later, and again if the store was unavailable; and notifies
listeners of every entry. Requests that end at once are written together. admission.py decides what an entry says."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from mcpgate.governance.background import Background
from mcpgate.governance.declared import Declared
from mcpgate.governance.gather import Gather
from mcpgate.governance.holds import Holds
from mcpgate.governance.records import Entry, Reservation
from mcpgate.governance.store import Counters, Settlement, StoreUnavailable

log = logging.getLogger("mcpgate.governance")
_SOON_S = 0.1
"""How long an entry may wait if no answer waits for it: a killed process loses at most this much."""
_MAX_UNWRITTEN = 100_000
_WRITTEN_AT_ONCE = 500
_MOST_REFUSED = 20
"""Of one key that are written each second."""

Listener = Callable[[Entry], None]


class Journal:
    """One per process."""

    def __init__(self, declared: Declared, holds: Holds, counters: Counters, background: Background) -> None:
        self._declared, self._holds, self._counters, self._background = declared, holds, counters, background
        self._listeners: list[Listener] = []
        self._soon: list[Settlement] = []
        self._due: asyncio.TimerHandle | None = None
        self._unwritten: list[Settlement] = []
        self._second, self._refused = 0, Counter[str]()
        """Requests that were refused in one second, by key."""
        self._settle_next: Gather[Sequence[Settlement], None] = Gather(self._settle_all, most=_WRITTEN_AT_ONCE)

    def listen(self, listener: Listener) -> None:
        """Call a function with every entry as soon as its request is over; it must be fast and must not raise."""
        self._listeners.append(listener)

    def tell(self, entry: Entry) -> None:
        for listener in self._listeners:
            listener(entry)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Write entries durably, and settle their reservations. What cannot be written is queued and written later.
        Completes even if the caller stops waiting. Raises StoreUnavailable if nothing was written yet."""
        await self._settle_next(settlements)

    async def _settle_all(self, batches: Sequence[Sequence[Settlement]]) -> list[None]:
        await self._settle([settlement for batch in batches for settlement in batch])
        return [None] * len(batches)

    def settle_soon(self, settlement: Settlement) -> None:
        """Write an entry shortly, together with others. For requests that no limit depends on."""
        self._soon.append(settlement)
        if len(self._soon) >= _WRITTEN_AT_ONCE:
            self._write_soon()
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(_SOON_S, self._write_soon)

    def refused(self, entry: Entry) -> None:
        """Write the entry of a request that was not admitted, for the request log; reports leave it out. A caller that
        goes on regardless cannot fill the store, nor, while that is away, the place of entries that cost something: of
        what comes faster, a few in each second stand for many."""
        if self._declared.unavailable is not None:
            return
        second = int(time.time())  # not when they came: some have waited
        if second != self._second:
            self._second, self._refused = second, Counter()
        self._refused[entry.key] += 1
        if self._refused[entry.key] <= _MOST_REFUSED:
            self.settle_soon(Settlement(entry, (), (), ()))

    async def flush(self) -> None:
        """Returns when everything settled so far is written, or queued because it cannot be."""
        self._write_soon()
        await self._settle_next.drain()
        await self._background.drain()

    async def write_again(self) -> None:
        """Write what could not be written. Raises StoreUnavailable."""
        while some := self._unwritten[:_WRITTEN_AT_ONCE]:
            await self._write(some)
            # Removed only now: if this is cancelled, they are still queued, and settling twice counts once.
            del self._unwritten[: len(some)]

    async def aclose(self) -> None:
        """Write everything; logs what could not be written."""
        await self.flush()
        with suppress(StoreUnavailable):
            await self.write_again()
        if self._unwritten:
            log.error("%d entries of the ledger could not be written and are lost", len(self._unwritten))

    def _write_soon(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._soon:
            settlements, self._soon = self._soon, []
            self._background.start(self._settle_quietly(settlements))

    async def _settle_quietly(self, settlements: Sequence[Settlement]) -> None:
        with suppress(StoreUnavailable):
            await self._settle(settlements)

    async def _settle(self, settlements: Sequence[Settlement]) -> None:
        try:
            await self._write(settlements)
        except StoreUnavailable as error:
            self._declared.lost(error)
            self._unwritten += settlements
            if len(self._unwritten) > _MAX_UNWRITTEN:
                lost = len(self._unwritten) - _MAX_UNWRITTEN
                log.error("the ledger has been unavailable for too long: %d entries are lost", lost)
                del self._unwritten[_MAX_UNWRITTEN:]
            raise
        finally:
            for settlement in settlements:
                self._holds.wake(settlement.claims)

    async def _write(self, settlements: Sequence[Settlement]) -> None:
        """All at once; if the store rejects one of them, one by one, without that one. Raises
        StoreUnavailable."""
        try:
            await self._counters.settle(settlements)
        except StoreUnavailable:
            raise
        except Exception:
            if len(settlements) > 1:
                for settlement in settlements:
                    await self._write([settlement])
                return
            (lost,) = settlements
            log.exception("the entry of request %s cannot be written and is lost", lost.entry.id)
            for id in lost.holds:
                await self._counters.release(Reservation(id, self._holds.owner, lost.claims))
