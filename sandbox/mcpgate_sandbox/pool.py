"""A pool of warm guests behind the `Engine` contract. What a guest is, an engine says; fresh ones, sessions, turns and
the threads that serve them are the same for all."""

import asyncio
import dataclasses
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from mcpgate_sandbox.engine import Execution, Outcome
from mcpgate_sandbox.errors import Cancelled, LimitReached, SandboxUnavailable
from mcpgate_sandbox.host import Call
from mcpgate_sandbox.sessions import SessionLimits, Sessions, Turns
from mcpgate_sandbox.workers import Workers

_REFILL_AFTER_S = 0.003
_EXPIRE_EVERY_S = 30.0

Progress = Callable[[str], None]


class Guest(Protocol):
    """One live interpreter. Used by one thread at a time."""

    @property
    def usable(self) -> bool:
        """Whether another execution may be run in it."""
        ...

    def run(self, call: Call) -> Outcome: ...

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
        stack_bytes: int = 0,
    ) -> None:
        """`warm`: interpreters kept ready (default: two a core, at most 8). `max_executions`: how many run at
        once; further ones wait. `stack_bytes`: of the threads that serve guests."""
        self._warm_target = warm if warm is not None else min(8, 2 * (os.cpu_count() or 1))
        self._workers = Workers(max_executions, stack_bytes)
        self._sessions: Sessions[Guest] = Sessions(sessions)
        self._turns = Turns()
        self._pool: queue.SimpleQueue[Guest] = queue.SimpleQueue()
        self._used: queue.SimpleQueue[Guest] = queue.SimpleQueue()
        self._wanted = threading.Semaphore(0)
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
            self._thread = threading.Thread(target=self._load_and_fill, args=(progress,), daemon=True)
            self._thread.start()

    async def ready(self) -> None:
        self.start()
        await asyncio.wrap_future(_copy(self._loaded))

    async def modules(self) -> tuple[list[str], list[str]]:
        await self.ready()
        found: tuple[list[str], list[str]] = await asyncio.wrap_future(
            self._workers.submit(self._loaded.result().modules)
        )
        return found

    async def locks(self) -> list[str]:
        await self.ready()
        found: list[str] = await asyncio.wrap_future(self._workers.submit(self._loaded.result().locks))
        return found

    async def run(self, execution: Execution) -> Outcome:
        if self._closed.is_set():
            raise SandboxUnavailable("the sandbox is closed")
        await self.ready()
        if len(execution.code) > execution.limits.max_source_chars:
            limit = execution.limits.max_source_chars
            return Outcome(error=LimitReached("max_source_chars", f"the code is longer than {limit:,} characters"))
        loop = asyncio.get_running_loop()
        end_turn = None
        if execution.session is not None:
            try:
                end_turn = await self._turns.next((execution.owner, execution.session), execution.limits.timeout_s)
            except TimeoutError:
                waited = f"timeout: the session's other executions took longer than {execution.limits.timeout_s:g} s"
                return Outcome(error=LimitReached("timeout_s", waited))
        call = Call(execution, loop)
        try:
            future = self._workers.submit(lambda: self._run_in_thread(execution, call))
        except BaseException as error:
            if end_turn is not None:
                end_turn()
            raise SandboxUnavailable(f"no thread can be started to run code: {error}") from error
        if end_turn is not None:
            # Cancelled or not, the turn ends when the thread has let go of the session's guest.
            future.add_done_callback(lambda _: loop.call_soon_threadsafe(end_turn))
        self._running.add(call)
        try:
            outcome: Outcome = await asyncio.wrap_future(future)
            return outcome
        except asyncio.CancelledError:
            call.stop(Cancelled())
            raise
        finally:
            self._running.discard(call)
            call.cancel_all()
            # Making the next guest takes the other core and the GIL: once this answer is out, not beside it.
            loop.call_later(_REFILL_AFTER_S, self._wanted.release)

    async def aclose(self) -> None:
        self._closed.set()
        for call in list(self._running):
            call.stop(Cancelled())
        self._wanted.release()
        self._workers.close()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._sessions.close()
        self._close_used()
        while True:
            try:
                self._pool.get_nowait().close()
            except queue.Empty:
                break
        if self._loaded.done() and self._loaded.exception() is None:
            self._loaded.result().close()

    def _run_in_thread(self, execution: Execution, call: Call) -> Outcome:
        if call.stopped is not None:  # given up while it waited for its turn; nobody reads this
            return call.failed(call.stopped)
        if execution.session is None:
            guest = self._take()
            try:
                return guest.run(call)
            finally:
                self._discard(guest)
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
            self._sessions.put(key, guest, execution.limits.memory_mib)
        else:
            guest.close()
            # Nobody reads the outcome of a cancelled execution: the session's next one says what happened.
            cancelled = "the earlier one ended when its execution was cancelled"
            self._sessions.drop(key, cancelled if isinstance(outcome.error, Cancelled) else "")
            notes = [*notes, f"session {execution.session!r} ended with this: its variables are gone"]
        return dataclasses.replace(outcome, notes=tuple(notes)) if notes else outcome

    def _discard(self, guest: Guest) -> None:
        # Giving its memory back takes as long as a short program: once the answer is out, not before it.
        if self._used.qsize() > self._warm_target or self._closed.is_set():
            guest.close()
        else:
            self._used.put(guest)

    def _close_used(self) -> None:
        while True:
            try:
                self._used.get_nowait().close()
            except queue.Empty:
                return

    def _take(self) -> Guest:
        if self._pool.qsize() <= self._warm_target // 2:
            self._wanted.release()  # executions that last must not leave the next ones without
        while True:
            try:
                guest = self._pool.get_nowait()
            except queue.Empty:
                return self._loaded.result().new_guest(warm=False)
            if guest.usable:
                return guest
            guest.close()  # it died while it waited

    def _load_and_fill(self, progress: Progress | None) -> None:
        try:
            self._loaded.set_result(self.load(progress))
        except SandboxUnavailable as error:
            self._loaded.set_exception(error)
            return
        except Exception as error:
            self._loaded.set_exception(SandboxUnavailable(f"the sandbox cannot start: {error}"))
            return
        source = self._loaded.result()
        for _ in range(self._warm_target):
            self._wanted.release()
        while not self._closed.is_set():
            if not self._wanted.acquire(timeout=_EXPIRE_EVERY_S):
                self._sessions.expire()
                continue
            self._close_used()
            if self._closed.is_set():
                break
            if self._pool.qsize() >= self._warm_target:
                continue
            try:
                self._pool.put(self._workers.submit(lambda: source.new_guest(warm=True)).result())
            except Exception:  # out of memory or of address space: executions make their own, or say so
                time.sleep(0.1)
        self._close()  # also what was made while it was being closed


def _copy(source: "Future[Any]") -> "Future[Any]":
    # A waiter that is cancelled must not cancel what others wait for.
    copy: Future[Any] = Future()

    def done(finished: "Future[Any]") -> None:
        if copy.set_running_or_notify_cancel():
            error = finished.exception()
            copy.set_exception(error) if error else copy.set_result(None)

    source.add_done_callback(done)
    return copy
