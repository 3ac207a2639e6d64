"""A pool of warm guests behind the `Engine` contract. What a guest is, an engine says; fresh ones, sessions, turns and
the threads that serve them are the same for all."""

import asyncio
import dataclasses
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol, TypeVar

from mcpgate_sandbox.engine import Execution, Outcome
from mcpgate_sandbox.errors import Cancelled, CodeFailed, LimitReached, SandboxUnavailable
from mcpgate_sandbox.host import Call
from mcpgate_sandbox.sessions import SessionLimits, Sessions, Turns
from mcpgate_sandbox.slots import QueueLimits, Slots
from mcpgate_sandbox.workers import Workers, start_thread

log = logging.getLogger("mcpgate_sandbox.pool")
_AFTER_ANSWER_S = 0.003
"""What need not stand in the way of an answer, on the other core and in the GIL, is done so long after it."""
_EXPIRE_EVERY_S = 30.0
T = TypeVar("T")


class Occupancy(NamedTuple):
    """How busy an engine is."""

    running: int
    waiting: int
    """Executions that wait for a slot, or for the turn of their session."""
    warm: int
    """Interpreters in which nothing has run."""


Progress = Callable[[str], None]


class Guest(Protocol):
    """One live interpreter. Used by one thread at a time."""

    @property
    def usable(self) -> bool:
        """Whether another execution may be run in it."""
        ...

    def run(self, call: Call) -> Outcome: ...

    @property
    def renewable(self) -> bool:
        """Whether `renew` can be tried."""
        ...

    def renew(self) -> bool:
        """Make it as if nothing had ever run in it. False where that failed: then it is to be closed."""
        ...

    def close(self) -> None: ...


class Source(Protocol):
    """Where guests come from, once everything that they share is loaded."""

    def new_guest(self, warm: bool) -> Guest:
        """A fresh interpreter; a warm one has walked the way of a program once. Raises SandboxUnavailable."""
        ...

    def modules(self) -> tuple[list[str], list[str]]: ...

    def locks(self) -> list[str]: ...

    def close(self) -> None: ...


class PooledEngine:
    """Fresh interpreters from a pool of warm ones. To be used from one event loop."""

    name = ""

    def __init__(
        self,
        *,
        warm: int | None = None,
        max_executions: int = 32,
        sessions: SessionLimits = SessionLimits(),  # noqa: B008  it is frozen
        queue: QueueLimits = QueueLimits(),  # noqa: B008
        stack_bytes: int = 0,
    ) -> None:
        """`warm`: interpreters kept ready (default: two a core, at most 8). `max_executions`: how many run at
        once; further ones wait, within the limits of `queue`. `stack_bytes`: of the threads that serve guests."""
        self._warm_target = warm if warm is not None else min(8, 2 * (os.cpu_count() or 1))
        self._slots = Slots(max_executions, queue)
        self._workers = Workers(max_executions, stack_bytes, self._tidy_up, _AFTER_ANSWER_S)
        self._errands = Workers(1, stack_bytes)
        """For what must not wait for executions to end."""
        self._stack_bytes = stack_bytes
        self._sessions: Sessions[Guest] = Sessions(sessions)
        self._turns = Turns()
        self._pool: deque[Guest] = deque()
        """Guests in which nothing has run; the one that was renewed last is on the right, and taken first."""
        self._used: deque[Guest] = deque()
        """Guests in which something ran and came to a clean end: they can be renewed."""
        self._spent: deque[Guest] = deque()
        """Guests that are to be closed."""
        self._wanted = threading.Event()
        """Set when spent guests are to be closed, and the pool filled."""
        self._closed = threading.Event()
        self._running: set[Call] = set()
        self._loaded: Future[Source] = Future()
        self._thread: threading.Thread | None = None

    def load(self, progress: Progress | None) -> Source:
        """Make whatever the guests share; called once, in a thread of its own. Raises SandboxUnavailable."""
        raise NotImplementedError

    def start(self, progress: Progress | None = None) -> None:
        if self._loaded.done() and self._loaded.exception() is not None:
            self._loaded, self._thread = Future(), None  # what failed once may work now
        if self._thread is None:
            self._thread = start_thread(lambda: self._load_and_fill(progress), "mcpgate-pool", self._stack_bytes)

    async def ready(self) -> None:
        self.start()
        if self._loaded.done():
            self._loaded.result()
        else:
            await asyncio.wrap_future(_copy(self._loaded))

    async def modules(self) -> tuple[list[str], list[str]]:
        await self.ready()
        return await self._on_an_errand(self._loaded.result().modules)

    @property
    def occupancy(self) -> Occupancy:
        return Occupancy(len(self._running), self._slots.number_waiting, len(self._pool))

    async def locks(self) -> list[str]:
        await self.ready()
        return await self._on_an_errand(self._loaded.result().locks)

    async def _on_an_errand(self, function: Callable[[], T]) -> T:
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._errands.submit(work)
        return await asyncio.shield(asyncio.wrap_future(future))

    async def run(self, execution: Execution) -> Outcome:
        if self._closed.is_set():
            raise SandboxUnavailable("the sandbox is closed")
        await self.ready()
        if len(execution.code) > execution.limits.max_source_chars:
            limit = execution.limits.max_source_chars
            return Outcome(error=LimitReached("max_source_chars", f"the code is longer than {limit:,} characters"))
        account = execution.account or execution.owner
        end_turn = None
        with self._slots.waiting(account):
            if execution.session is not None:
                try:
                    end_turn = await self._turns.next((execution.owner, execution.session), execution.limits.timeout_s)
                except TimeoutError:
                    waited = f"the session's other executions took longer than {execution.limits.timeout_s:g} s"
                    return Outcome(error=LimitReached("timeout_s", f"timeout: {waited}"))
            try:
                await self._slots.take(account)
            except BaseException:
                if end_turn is not None:
                    end_turn()
                raise

        def release() -> None:
            self._slots.give(account)
            if end_turn is not None:
                end_turn()

        return await self._run(execution, release)

    async def _run(self, execution: Execution, release: Callable[[], None]) -> Outcome:
        """Run an execution that has its slot and its turn; `release` gives them back once its thread is done."""
        loop = asyncio.get_running_loop()
        call = Call(execution, loop)
        answer: asyncio.Future[Outcome] = loop.create_future()

        def ended(outcome: Outcome | None, error: BaseException | None) -> None:
            release()
            if answer.done():
                return
            if outcome is not None:
                answer.set_result(outcome)
            elif error is not None:
                answer.set_exception(error)

        def work() -> None:
            outcome = failure = None
            try:
                outcome = self._run_in_thread(execution, call)
            except BaseException as error:
                failure = error
            try:
                loop.call_soon_threadsafe(ended, outcome, failure)
            except RuntimeError:  # the loop is closed: nobody waits any more
                release()

        try:
            self._workers.submit(work)
        except BaseException as error:
            release()
            raise SandboxUnavailable(f"no thread can be started to run code: {error}") from error
        self._running.add(call)
        try:
            return await answer
        except asyncio.CancelledError:
            call.stop(Cancelled())
            raise
        finally:
            self._running.discard(call)
            call.cancel_all()

    async def aclose(self) -> None:
        self._closed.set()
        for call in list(self._running):
            call.stop(Cancelled())
        self._slots.close()
        self._wanted.set()
        self._workers.close()
        self._errands.close()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._sessions.close()
        self._close_guests()
        if self._loaded.done() and self._loaded.exception() is None:
            self._loaded.result().close()

    def _close_guests(self) -> None:
        for guests in (self._pool, self._used, self._spent):
            _close_all(guests)

    def _run_in_thread(self, execution: Execution, call: Call) -> Outcome:
        if call.stopped is not None:  # given up while it waited for its turn; nobody reads this
            return call.failed(call.stopped)
        if execution.session is None:
            guest, clean = self._take(), False
            try:
                outcome = guest.run(call)
                clean = call.stopped is None and (outcome.error is None or isinstance(outcome.error, CodeFailed))
                return outcome
            finally:
                self._put_away(guest, clean)
        key = (execution.owner, execution.session)
        kept, notes = self._sessions.take(key)
        if kept is not None and not kept.usable:
            kept.close()
            kept, notes = None, [f"session {execution.session!r} is new: the interpreter of the earlier one died"]
        guest = kept if kept is not None else self._take()
        try:
            outcome = guest.run(call)
        except BaseException:
            guest.close()
            self._sessions.drop(key, "the earlier one ended when the sandbox failed")
            raise
        if guest.usable and not self._closed.is_set():
            account = execution.account or execution.owner
            self._sessions.put(key, guest, execution.limits.memory_mib, account)
        else:
            guest.close()
            # Nobody reads the outcome of a cancelled execution: the session's next one says what happened.
            cancelled = "the earlier one ended when its execution was cancelled"
            self._sessions.drop(key, cancelled if isinstance(outcome.error, Cancelled) else "")
            notes = [*notes, f"session {execution.session!r} ended with this: its variables are gone"]
        return dataclasses.replace(outcome, notes=tuple(notes)) if notes else outcome

    def _take(self) -> Guest:
        """A guest in which nothing has run. Raises SandboxUnavailable."""
        if len(self._pool) + len(self._used) <= self._warm_target // 2:
            self._wanted.set()  # executions that last must not leave the next ones without
        while True:
            try:
                guest = self._pool.pop()
            except IndexError:
                return self._renewed() or self._loaded.result().new_guest(warm=False)
            if guest.usable:
                return guest
            self._spent.append(guest)  # it died while it waited

    def _put_away(self, guest: Guest, clean: bool) -> None:
        # Renewing a guest or giving its memory back takes as long as a short program: once the answer is out.
        if clean and self._warm_target and guest.renewable:
            self._used.append(guest)
        elif len(self._spent) > self._warm_target or self._closed.is_set():
            guest.close()
        else:
            self._spent.append(guest)
            self._wanted.set()

    def _renewed(self) -> Guest | None:
        """A used guest that is as new."""
        while True:
            try:
                guest = self._used.popleft()
            except IndexError:
                return None
            if guest.renew():
                return guest
            self._spent.append(guest)

    def _tidy_up(self) -> None:
        try:
            while len(self._pool) < self._warm_target and (guest := self._renewed()) is not None:
                self._pool.append(guest)
            while self._used:
                self._spent.append(self._used.popleft())
        except IndexError:
            pass  # another thread was quicker
        except Exception:
            log.exception("used guests could not be renewed")
        if self._spent or len(self._pool) < self._warm_target:
            self._wanted.set()
        if self._closed.is_set():
            self._close_guests()

    def _load_and_fill(self, progress: Progress | None) -> None:
        try:
            source = self.load(progress)
        except SandboxUnavailable as error:
            self._loaded.set_exception(error)
            return
        except Exception as error:
            self._loaded.set_exception(SandboxUnavailable(f"the sandbox cannot start: {error}"))
            return
        self._loaded.set_result(source)
        self._wanted.set()
        while not self._closed.is_set():
            if not self._wanted.wait(_EXPIRE_EVERY_S):
                self._sessions.expire()
                continue
            time.sleep(_AFTER_ANSWER_S)
            self._wanted.clear()
            _close_all(self._spent)
            while len(self._pool) + len(self._used) < self._warm_target and not self._closed.is_set():
                try:
                    self._pool.append(source.new_guest(warm=True))
                except Exception:  # out of memory or of address space: executions make their own, or say so
                    time.sleep(0.1)
        self._close()  # also what was made while it was being closed


def _close_all(guests: deque[Guest]) -> None:
    while True:
        try:
            guests.pop().close()
        except IndexError:
            return


def _copy(source: "Future[Any]") -> "Future[Any]":
    # A waiter that is cancelled must not cancel what others wait for.
    copy: Future[Any] = Future()

    def done(finished: "Future[Any]") -> None:
        if copy.set_running_or_notify_cancel():
            error = finished.exception()
            copy.set_exception(error) if error else copy.set_result(None)

    source.add_done_callback(done)
    return copy
