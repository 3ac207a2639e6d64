"""Who may run next. Executions wait here for one of a number of slots: accounts take turns, none takes all while others
wait, and the queue has an end. It starts nothing itself: see pool.

Used from one event loop at a time; a slot may be given back from any thread.
"""

import asyncio
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from mcpgate_sandbox.errors import SandboxBusy, SandboxUnavailable


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many executions may wait, and for how long."""

    per_account: int = 256
    in_all: int = 1024
    wait_s: float = 120.0
    """Seconds until an execution that has not begun is given up."""


def next_account(waiting: "Mapping[str, object]", held: Mapping[str, int], slots: int, reserve: int) -> str | None:
    """Who gets the next slot: of those that wait, in turn, the first that holds less than its fair share; else the
    first of all. None where no slot is free, or those that are free are reserved for accounts that hold none."""
    free = slots - sum(held.values())
    if free <= 0:
        return None
    share = max(1, slots // len(waiting.keys() | held.keys())) if waiting else slots
    for account in waiting:
        if not held.get(account) or (free > reserve and held[account] < share):
            return account
    return next(iter(waiting), None) if free > reserve else None


class Slots:
    """A number of slots, and the queue in front of them."""

    def __init__(self, slots: int, limits: QueueLimits = QueueLimits()) -> None:
        self._slots, self._limits = slots, limits
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        """Executions of each account that wait for anything: a slot, or the turn of their session."""
        self._queues: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        """Those that wait for a slot. The account whose turn it is comes first."""
        self._first_account: str | None = None
        self._reserve = 0
        """Slots for accounts that hold none. There is no need of any until a second account has come."""
        self._closed = False

    def __repr__(self) -> str:
        return f"<Slots [{self._held.total()} of {self._slots} held, {self._waiting.total()} waiting]>"

    @property
    def number_waiting(self) -> int:
        with self._lock:
            return self._waiting.total()

    @contextmanager
    def waiting(self, account: str) -> Iterator[None]:
        """Count an execution as one that waits. Raises SandboxBusy where too many do."""
        with self._lock:
            self._check(account)
            self._waiting[account] += 1
        try:
            yield
        finally:
            with self._lock:
                _take_one(self._waiting, account)

    async def take(self, account: str) -> None:
        """Wait for a slot, to be given back with `give`. Raises SandboxBusy, SandboxUnavailable."""
        with self._lock:
            if self._closed:
                raise SandboxUnavailable("the sandbox is closed")
            if self._first_account is None:
                self._first_account = account
            elif account != self._first_account and not self._reserve and self._slots > 1:
                self._reserve = max(1, self._slots // 8)
            if not self._queues and next_account({account: None}, self._held, self._slots, self._reserve):
                self._held[account] += 1
                return
            waiter = _Waiter(account)
            self._queues.setdefault(account, deque()).append(waiter)
            self._serve()
        try:
            async with asyncio.timeout(self._limits.wait_s):
                await waiter.future
        except TimeoutError:
            self._leave(waiter)
            raise SandboxBusy(
                f"the sandbox is busy: no execution ended for this one to begin within {self._limits.wait_s:g} s; try "
                "again later, or raise sandbox.max_executions",
                of_account=False,
            ) from None
        except BaseException:
            self._leave(waiter)
            raise

    def give(self, account: str) -> None:
        """Give a slot back."""
        with self._lock:
            _take_one(self._held, account)
            self._serve()

    def close(self) -> None:
        """Whoever waits is told that the sandbox is closed."""
        with self._lock:
            self._closed = True
            for queue in self._queues.values():
                for waiter in queue:
                    waiter.wake(SandboxUnavailable("the sandbox is closed"))
            self._queues.clear()

    def _check(self, account: str) -> None:
        limits = self._limits
        if self._waiting[account] >= limits.per_account:
            raise SandboxBusy(
                f"the sandbox is busy: {limits.per_account} executions of this account wait already; let some of them "
                "end before more are started",
                of_account=True,
            )
        if self._waiting.total() >= limits.in_all:
            raise SandboxBusy(
                f"the sandbox is busy: {limits.in_all} executions wait already; try again later, or raise "
                "sandbox.max_executions",
                of_account=False,
            )

    def _serve(self) -> None:
        while (account := next_account(self._queues, self._held, self._slots, self._reserve)) is not None:
            queue = self._queues[account]
            waiter = queue.popleft()
            if queue:
                self._queues.move_to_end(account)  # the others come first now
            else:
                del self._queues[account]
            if waiter.wake():
                waiter.has_slot = True
                self._held[account] += 1

    def _leave(self, waiter: "_Waiter") -> None:
        with self._lock:
            if waiter.has_slot:  # it came too late
                _take_one(self._held, waiter.account)
                self._serve()
            elif (queue := self._queues.get(waiter.account)) is not None and waiter in queue:
                queue.remove(waiter)
                if not queue:
                    del self._queues[waiter.account]


class _Waiter:
    def __init__(self, account: str) -> None:
        self.account, self.has_slot = account, False
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self._loop.create_future()

    def wake(self, error: Exception | None = None) -> bool:
        """False where its loop is closed, and nobody waits any more."""
        try:
            if asyncio._get_running_loop() is self._loop:
                self._set(error)
            else:
                self._loop.call_soon_threadsafe(self._set, error)
        except RuntimeError:
            return False
        return True

    def _set(self, error: Exception | None) -> None:
        if not self.future.done():
            if error is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(error)


def _take_one(counter: "Counter[str]", account: str) -> None:
    counter[account] -= 1
    if not counter[account]:
        del counter[account]
