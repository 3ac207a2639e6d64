"""Engine 1: CPython in a Wasm component under wasmtime.

A guest reaches four host functions (`submit`, `poll`, `call`, `emit`: guest/world.wit), two clocks and
random bytes. Nothing else of WASI is linked: any further import is a trap. One guest runs in one thread,
where every host function and every tick of the epoch finds it by thread; all policy is on this side, and
whatever a guest sends is checked here before it is believed.
"""

import asyncio
import ctypes
import dataclasses
import json
import os
import queue
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import orjson
from wasmtime import Engine as WasmtimeEngine
from wasmtime import Store, WasmtimeError
from wasmtime import _ffi as ffi
from wasmtime.component import Component, Linker

from mcpgate_sandbox import component as artefact
from mcpgate_sandbox.engine import Execution, Handle, Limits, Outcome
from mcpgate_sandbox.errors import (
    Cancelled,
    CodeFailed,
    LimitReached,
    SandboxError,
    SandboxUnavailable,
    ToolFailed,
)

TICK_S = 0.005
"""How often a running guest is looked at."""
_REFILL_AFTER_S = 0.003
_TICKING_ON_S = 0.5
"""How long the ticker goes on after the last execution, so that not every short one has to wake it."""
_MIB = 1024 * 1024
_STRING, _U64, _LIST, _RECORD, _OPTION, _U8 = (
    getattr(ffi, f"WASMTIME_COMPONENT_{name}").value for name in ["STRING", "U64", "LIST", "RECORD", "OPTION", "U8"]
)


class WasmEngine:
    """Fresh CPython interpreters from a pool of warm ones. Thread-safe; use from any event loop."""

    name = "wasm"

    def __init__(
        self, *, warm: int | None = None, max_executions: int = 32, max_sessions: int = 64, session_idle_s: float = 1800
    ) -> None:
        """`warm`: interpreters kept ready (default: two a core, at most 8). `max_executions`: how many run at
        once; further ones wait. `max_sessions`: live sessions, the least recently used ends first."""
        self._warm_target = warm if warm is not None else min(8, 2 * (os.cpu_count() or 1))
        self._workers = _Workers(max_executions)
        self._sessions = _Sessions(max_sessions, session_idle_s)
        self._turns = _Turns()
        self._pool: queue.SimpleQueue[_Guest] = queue.SimpleQueue()
        self._wanted = threading.Semaphore(0)
        self._closed = threading.Event()
        self._loaded: Future[_Runtime] = Future()
        self._thread: threading.Thread | None = None

    def start(self, progress: Callable[[str], None] | None = None) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._load_and_fill, args=(progress,), daemon=True)
            self._thread.start()

    async def ready(self) -> None:
        self.start()
        await asyncio.wrap_future(_copy(self._loaded))

    async def modules(self) -> tuple[list[str], list[str]]:
        await self.ready()
        runtime = self._loaded.result()

        def ask() -> dict[str, list[str]]:
            guest = _Guest(runtime)
            return orjson.loads(guest.enter("", '{"stdlib":true}'))["result"]  # type: ignore[no-any-return]

        found = await asyncio.wrap_future(self._workers.submit(ask))
        return found["available"], found["missing"]

    async def run(self, execution: Execution) -> Outcome:
        await self.ready()
        if len(execution.code) > execution.limits.max_source_chars:
            limit = execution.limits.max_source_chars
            return Outcome(error=LimitReached("max_source_chars", f"the code is longer than {limit:,} characters"))
        loop = asyncio.get_running_loop()
        turn = None
        if execution.session is not None:
            try:
                turn = await self._turns.next(execution.session, execution.limits.timeout_s)
            except TimeoutError:
                waited = f"timeout: the session's other executions took longer than {execution.limits.timeout_s:g} s"
                return Outcome(error=LimitReached("timeout_s", waited))
        call = _Call(execution, loop)
        future = self._workers.submit(lambda: self._run_in_thread(execution, call))
        if turn is not None:
            # Cancelled or not, the turn ends when the thread has let go of the session's guest.
            future.add_done_callback(lambda _: loop.call_soon_threadsafe(_end, turn))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            call.stop(Cancelled())
            raise
        finally:
            call.cancel_all()
            # Making the next guest takes the other core and the GIL: once this answer is out, not beside it.
            loop.call_later(_REFILL_AFTER_S, self._wanted.release)

    async def aclose(self) -> None:
        self._closed.set()
        self._wanted.release()
        self._workers.close()

    def _run_in_thread(self, execution: Execution, call: "_Call") -> Outcome:
        session = execution.session
        if session is None:
            return self._take().run(execution, call)
        guest, notes = self._sessions.get(session)
        if guest is None:
            guest = self._take()
        outcome = guest.run(execution, call)
        if guest.usable:
            self._sessions.put(session, guest)
        else:
            # Nobody reads the outcome of a cancelled execution: the session's next one says what happened.
            cancelled = "the earlier one ended when its execution was cancelled"
            self._sessions.drop(session, cancelled if isinstance(outcome.error, Cancelled) else "")
            notes = [*notes, f"session {session.rpartition('/')[2]!r} ended with this: its variables are gone"]
        return dataclasses.replace(outcome, notes=tuple(notes)) if notes else outcome

    def _take(self) -> "_Guest":
        if self._pool.qsize() <= self._warm_target // 2:
            self._wanted.release()  # executions that last must not leave the next ones without
        try:
            return self._pool.get_nowait()
        except queue.Empty:
            return _Guest(self._loaded.result(), warm=False)

    def _load_and_fill(self, progress: Callable[[str], None] | None) -> None:
        try:
            self._loaded.set_result(_Runtime(progress))
        except SandboxUnavailable as error:
            self._loaded.set_exception(error)
            return
        except Exception as error:
            self._loaded.set_exception(SandboxUnavailable(f"the sandbox cannot start: {error}"))
            return
        for _ in range(self._warm_target):
            self._wanted.release()
        while not self._closed.is_set():
            self._wanted.acquire()
            if self._closed.is_set():
                return
            if self._pool.qsize() >= self._warm_target:
                continue
            try:
                self._pool.put(self._workers.submit(lambda: _Guest(self._loaded.result())).result())
            except Exception:  # out of memory or of address space: executions make their own, or say so
                time.sleep(0.1)


def _copy(source: "Future[Any]") -> "Future[Any]":
    # A waiter that is cancelled must not cancel what others wait for.
    copy: Future[Any] = Future()

    def done(finished: "Future[Any]") -> None:
        if copy.set_running_or_notify_cancel():
            error = finished.exception()
            copy.set_exception(error) if error else copy.set_result(None)

    source.add_done_callback(done)
    return copy


class _Workers:
    """Threads with a stack that is big enough for a guest; made on demand, kept."""

    def __init__(self, limit: int) -> None:
        self._limit, self._threads, self._waiting = limit, 0, 0
        self._changed = threading.Condition()
        self._items: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._closed = False

    def submit(self, function: Callable[[], Any]) -> "Future[Any]":
        future: Future[Any] = Future()
        with self._changed:
            self._items.append((future, function))
            if len(self._items) > self._waiting and self._threads < self._limit:
                self._threads += 1
                before = threading.stack_size(artefact.THREAD_STACK)
                try:
                    threading.Thread(target=self._serve, name="mcpgate-guest", daemon=True).start()
                finally:
                    threading.stack_size(before)
            else:
                self._changed.notify()
        return future

    def _serve(self) -> None:
        while (item := self._next()) is not None:
            future, function = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)
            del item, future, function

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._changed:
            self._waiting += 1
            while not self._items and not self._closed:
                self._changed.wait()
            self._waiting -= 1
            return self._items.popleft() if self._items else None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class _Sessions:
    """Live guests by session; bounded in number and in idle time."""

    def __init__(self, limit: int, idle_s: float) -> None:
        self._limit, self._idle_s = limit, idle_s
        self._lock = threading.Lock()
        self._guests: OrderedDict[str, tuple[_Guest, float]] = OrderedDict()
        self._ended: OrderedDict[str, str] = OrderedDict()

    def get(self, session: str) -> tuple["_Guest | None", list[str]]:
        """The session's guest, if it still lives, and what to tell the model if it does not."""
        with self._lock:
            self._expire()
            found = self._guests.pop(session, None)
            reason = self._ended.pop(session, None)
            name = session.rpartition("/")[2]
            return (found[0] if found else None), ([f"session {name!r} is new: {reason}"] if reason else [])

    def put(self, session: str, guest: "_Guest") -> None:
        with self._lock:
            self._guests[session] = (guest, time.monotonic())
            while len(self._guests) > self._limit:
                oldest, _ = self._guests.popitem(last=False)
                self._note(oldest, "the earlier one made room for others")

    def drop(self, session: str, reason: str = "") -> None:
        with self._lock:
            self._guests.pop(session, None)
            if reason:
                self._note(session, reason)

    def _expire(self) -> None:
        horizon = time.monotonic() - self._idle_s
        for session, (_, used) in list(self._guests.items()):
            if used < horizon:
                del self._guests[session]
                self._note(session, f"the earlier one was idle for more than {self._idle_s:.0f} s")

    def _note(self, session: str, reason: str) -> None:
        self._ended[session] = reason
        while len(self._ended) > 1000:
            self._ended.popitem(last=False)


class _Turns:
    """One execution of a session at a time, in the order they came. Waiting is done on the event loop, for a thread
    that waits is one that other executions lack."""

    def __init__(self) -> None:
        self._last: dict[str, asyncio.Future[None]] = {}

    async def next(self, session: str, timeout_s: float) -> "asyncio.Future[None]":
        """Wait for the session's earlier executions; the caller ends its own turn by resolving what it gets.
        Raises TimeoutError."""
        before = self._last.get(session)
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._last[session] = mine
        mine.add_done_callback(lambda _: self._forget(session, mine))
        if before is not None:
            try:
                async with asyncio.timeout(timeout_s):
                    await asyncio.shield(before)
            except BaseException:
                # Out of the queue: whoever waits for us waits for those before us.
                before.add_done_callback(lambda _: _end(mine))
                raise
        return mine

    def _forget(self, session: str, turn: "asyncio.Future[None]") -> None:
        if self._last.get(session) is turn:
            del self._last[session]


def _end(turn: "asyncio.Future[None]") -> None:
    if not turn.done():
        turn.set_result(None)


class _Runtime:
    """What all guests of a process share: engine, component, linker, ticker."""

    def __init__(self, progress: Callable[[str], None] | None) -> None:
        self.engine = artefact.new_engine()
        self.component = artefact.load(self.engine, progress)
        self.linker = _link(self.engine, self.component)
        self.run_index = self.component.get_export_index("run")
        self.ticker = _Ticker(self.engine)


class _Ticker:
    """Moves the engine's epoch on while any guest runs, so that every guest is looked at each tick."""

    def __init__(self, engine: WasmtimeEngine) -> None:
        self._engine, self._running = engine, 0
        self._last_used = 0.0
        self._parked = True
        self._changed = threading.Condition()
        threading.Thread(target=self._tick, name="mcpgate-ticker", daemon=True).start()

    def __enter__(self) -> None:
        with self._changed:
            self._running += 1
            if self._parked:
                self._changed.notify()

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._running -= 1
            self._last_used = time.monotonic()

    def _tick(self) -> None:
        while True:
            with self._changed:
                while self._running == 0 and time.monotonic() - self._last_used > _TICKING_ON_S:
                    self._parked = True
                    self._changed.wait()
                self._parked = False
            time.sleep(TICK_S)
            self._engine.increment_epoch()


class _Call:
    """The host's side of one execution: tool calls on the event loop, waiting in the guest's thread."""

    def __init__(self, execution: Execution, loop: asyncio.AbstractEventLoop) -> None:
        self.execution, self.limits = execution, execution.limits
        self.stopped: SandboxError | None = None
        self.tool_calls = 0
        self._loop = loop
        self._inbox: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self._ready: deque[tuple[int, str]] = deque()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(execution.limits.max_parallel_calls)
        self._in_flight: set[int] = set()
        self._next_sync = 0
        self._ended = False
        self._held = _Held(4 * max(self.limits.max_argument_chars, self.limits.max_reply_chars))

    # --- on the event loop

    def stop(self, reason: SandboxError) -> None:
        """End the guest at its next tick or wait."""
        if self.stopped is None:
            self.stopped = reason
        self._inbox.put((0, ""))

    def cancel_all(self) -> None:
        self._ended = True
        for task in list(self._tasks.values()):
            task.cancel()

    def _start(self, id: int, name: str, arguments: str) -> None:
        if self._ended:
            return
        task = self._loop.create_task(self._answer(id, name, arguments))
        self._tasks[id] = task
        task.add_done_callback(lambda _: self._tasks.pop(id, None))

    async def _answer(self, id: int, name: str, arguments: str) -> None:
        try:
            async with self._turns:
                answer = await self._ask(name, arguments)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            answer = _error_answer(ToolFailed("the call was cancelled on its way"), name)
        except ToolFailed as error:
            answer = _error_answer(error, name)
        except Exception as error:  # a defect of the host's own: the guest hears of it, and goes on
            answer = _error_answer(ToolFailed(f"the gateway failed: {type(error).__name__}"), name)
            self._report(name, error)
        finally:
            self._held.give(len(arguments))
        if not self._held.take(len(answer)):
            answer = _error_answer(ToolFailed(f"too much at once: {self._held}; read answers before asking on"), name)
            self._held.force(len(answer))
        self._inbox.put((id, answer))

    async def _ask(self, name: str, arguments: str) -> str:
        server, _, tool = name.partition(".")
        positional, named = _parse_arguments(arguments)
        value = await self.execution.call_tool(server, tool, positional, named)
        return self._checked(encode_answer(value))

    def _checked(self, answer: str) -> str:
        if len(answer) > self.limits.max_reply_chars:
            raise ToolFailed(
                f"the answer has {len(answer):,} characters, more than the sandbox takes "
                f"(max_reply_chars={self.limits.max_reply_chars:,}); ask the tool for less at a time"
            )
        return answer

    def _report(self, name: str, error: Exception) -> None:
        self._loop.call_exception_handler({"message": f"tool call {name} failed in the host", "exception": error})

    # --- in the guest's thread

    def submit(self, id: int, name: str, arguments: str) -> None:
        refusal = self._refusal(name, arguments)
        if id in self._in_flight or id <= 0:
            raise _Violation("a call id was used twice")
        self._in_flight.add(id)
        if refusal is not None:
            answer = _error_answer(refusal, name)
            self._held.force(len(answer))
            self._ready.append((id, answer))
            return
        self._loop.call_soon_threadsafe(self._start, id, name, arguments)

    def call(self, name: str, arguments: str) -> str:
        if name.startswith("@"):
            return self._host_call(name, arguments)
        refusal = self._refusal(name, arguments)
        if refusal is not None:
            return _error_answer(refusal, name)
        self._next_sync -= 1
        id = self._next_sync
        self._loop.call_soon_threadsafe(self._start, id, name, arguments)
        while True:
            arrived, answer = self._wait(None)
            if arrived == id:
                self._held.give(len(answer))
                return answer
            self._ready.append((arrived, answer))

    def poll(self, timeout_ms: int) -> str:
        if not self._ready:
            try:
                self._ready.append(self._wait(None if timeout_ms < 0 else timeout_ms / 1000))
            except queue.Empty:
                return ""
        while True:
            try:
                self._ready.append(self._inbox.get_nowait())
            except queue.Empty:
                break
        arrived, self._ready = self._ready, deque()
        self._in_flight.difference_update(id for id, _ in arrived)
        self._held.give(sum(len(answer) for id, answer in arrived if id))
        head = " ".join(f"{id}:{len(answer)}" for id, answer in arrived if id)
        return f"{head}\n{''.join(answer for id, answer in arrived if id)}"

    def _wait(self, timeout_s: float | None) -> tuple[int, str]:
        left = self.deadline - time.monotonic()
        self.check_stopped()
        try:
            item = self._inbox.get(timeout=max(0.0, left if timeout_s is None else min(timeout_s, left)))
        except queue.Empty:
            if time.monotonic() >= self.deadline:
                self.stopped = self.stopped or self._timeout()
            self.check_stopped()
            raise
        self.check_stopped()
        return item

    def _refusal(self, name: str, arguments: str) -> ToolFailed | None:
        self.tool_calls += 1
        if self.tool_calls > self.limits.max_tool_calls:
            return ToolFailed(f"no more tool calls: this execution had its {self.limits.max_tool_calls}", kind="limit")
        if len(arguments) > self.limits.max_argument_chars:
            return ToolFailed(
                f"the arguments have {len(arguments):,} characters; a call takes {self.limits.max_argument_chars:,}",
                kind="arguments",
            )
        if not self._held.take(len(arguments)):
            return ToolFailed(f"too much at once: {self._held}; make fewer calls at a time", kind="limit")
        return None

    def _host_call(self, name: str, arguments: str) -> str:
        if name == "@cancel":
            if not arguments.isascii() or not arguments.isdigit() or len(arguments) > 10:
                raise _Violation("a call was cancelled that cannot be one")
            self._loop.call_soon_threadsafe(self._cancel, int(arguments))
            return "+null"
        try:
            positional, _ = _parse_arguments(arguments)
            return self._checked(encode_answer(self.execution.host_call(name, positional)))
        except ToolFailed as error:
            return _error_answer(error, "")
        except Exception as error:
            self._loop.call_soon_threadsafe(self._report, name, error)
            return _error_answer(ToolFailed(f"the gateway failed: {type(error).__name__}"), "")

    def _cancel(self, id: int) -> None:
        if (task := self._tasks.get(id)) is not None:
            task.cancel()

    def _timeout(self) -> LimitReached:
        return LimitReached("timeout_s", f"timeout: the execution took longer than {self.limits.timeout_s:g} s")

    def begin(self) -> None:
        self.cpu_began, self.began = time.thread_time(), time.monotonic()
        self.deadline = self.began + self.limits.timeout_s

    def tick(self) -> None:
        """Called in the guest's thread at every epoch; raises to end the guest."""
        self.check_stopped()
        if time.thread_time() - self.cpu_began > self.limits.cpu_s:
            self.stopped = LimitReached("cpu_s", f"the code used its {self.limits.cpu_s:g} s of CPU time")
        elif time.monotonic() > self.deadline:
            self.stopped = self._timeout()
        self.check_stopped()

    def check_stopped(self) -> None:
        if self.stopped is not None:
            raise self.stopped


class _Held:
    """Characters of arguments and answers that the host holds for one execution. Each is bounded by itself; this
    bounds what hundreds of them come to. Counted from two threads."""

    def __init__(self, limit: int) -> None:
        self._limit, self._chars = limit, 0
        self._lock = threading.Lock()

    def take(self, chars: int) -> bool:
        with self._lock:
            if self._chars + chars > self._limit:
                return False
            self._chars += chars
            return True

    def force(self, chars: int) -> None:
        with self._lock:
            self._chars += chars

    def give(self, chars: int) -> None:
        with self._lock:
            self._chars -= chars

    def __str__(self) -> str:
        return f"arguments and answers on their way come to {self._limit:,} characters"


class _Violation(Exception):
    """The guest broke the protocol between guest and host."""


class _Guest:
    """One live interpreter. Used by one thread at a time."""

    def __init__(self, runtime: _Runtime, warm: bool = True) -> None:
        self.usable = True
        self._runtime = runtime
        self._call: _Call | None = None
        self._output: list[list[str]] = [[], [], []]
        self._output_chars = 0
        self._store = Store(runtime.engine)
        # Until an execution sets its own, the limit is generous: instantiating needs about 45 MiB.
        self._store.set_limits(memory_size=256 * _MIB, instances=1000, tables=1000, memories=100)
        ffi.wasmtime_store_epoch_deadline_callback(self._store.ptr(), _on_tick, None, _no_finalizer)
        self._store.set_epoch_deadline(1)
        instance = runtime.linker.instantiate(self._store, runtime.component)
        function = instance.get_func(self._store, runtime.run_index) if runtime.run_index else None
        if function is None:
            raise SandboxUnavailable("the sandbox component has no `run`; rebuild it with `mcpgate sandbox build`")
        self._function = function
        if warm:
            self.enter("", '{"warm":true}')

    def run(self, execution: Execution, call: _Call) -> Outcome:
        if call.stopped is not None:  # given up while it waited for its turn; this guest has seen nothing of it
            return Outcome(error=call.stopped if isinstance(call.stopped, Cancelled) else None)
        limits = execution.limits
        self._call, self._output, self._output_chars = call, [[], [], []], 0
        self._store.set_limits(memory_size=limits.memory_mib * _MIB, instances=1000, tables=1000, memories=100)
        call.begin()
        error: SandboxError | None = None
        result: Any = None
        try:
            with self._runtime.ticker:
                call.check_stopped()
                text = self.enter(execution.code, orjson.dumps({"servers": list(execution.servers)}).decode())
            result, error = _parse_outcome(text, limits)
        except SandboxError as stopped:
            self.usable, error = False, stopped
        except (WasmtimeError, _Violation) as trap:
            self.usable, error = False, _explain(trap, limits)
        finally:
            self._call = None
        return Outcome(
            result=result,
            stdout="".join(self._output[1]),
            stderr="".join(self._output[2]),
            error=error if isinstance(error, (CodeFailed, LimitReached, Cancelled)) else None,
            tool_calls=call.tool_calls,
            cpu_s=time.thread_time() - call.cpu_began,
            wall_s=time.monotonic() - call.began,
        )

    def enter(self, code: str, options: str) -> str:
        """Call the guest's `run`. Raises the SandboxError that stopped it, or WasmtimeError for a trap."""
        values = (ffi.wasmtime_component_val_t * 2)()
        result = ffi.wasmtime_component_val_t()
        context = self._store._context()
        _here.guest = self
        try:
            for value, text in zip(values, (code, options), strict=True):
                _set_string(value, text)
            failure = ffi.wasmtime_component_func_call(
                ctypes.byref(self._function._func), context, values, 2, ctypes.byref(result), 1
            )
            if failure:
                self.usable = False
                trap = WasmtimeError._from_ptr(failure)
                raise (self._call.stopped if self._call and self._call.stopped else None) or trap
            try:
                return _get_string(result)
            finally:
                ffi.wasmtime_component_val_delete(ctypes.byref(result))
                self._function.post_return(self._store)
        finally:
            _here.guest = None
            for value in values:
                ffi.wasmtime_component_val_delete(ctypes.byref(value))

    # --- host functions, in this guest's thread

    @property
    def call(self) -> _Call:
        if self._call is None:
            raise _Violation("a host function was called while no code was running")
        return self._call

    def emit(self, fd: int, text: str) -> None:
        call = self.call
        room = call.limits.max_output_chars - self._output_chars
        self._output[1 if fd == 1 else 2].append(text[:room])
        self._output_chars += len(text)
        if len(text) > room:
            limit = call.limits.max_output_chars
            call.stopped = LimitReached("max_output_chars", f"the code printed more than {limit:,} characters")
        call.check_stopped()


def _explain(trap: Exception, limits: Limits) -> SandboxError:
    text = str(trap)
    if isinstance(trap, _Violation):
        return LimitReached("protocol", f"the execution was ended: {text}")
    if "call stack exhausted" in text:
        return LimitReached("stack", "the execution was ended: recursion too deep for the interpreter's stack")
    # The interpreter's last words go to stderr, mostly because memory ran out; all else is the code's own doing.
    if (reached := re.search(r"unknown import: `wasi:([^`@]+)", text)) and reached[1] != "cli/stderr":
        return LimitReached(
            "protocol", f"the execution was ended: it reached for {reached[1]}, which the sandbox does not have"
        )
    return LimitReached(
        "memory_mib",
        f"the interpreter gave up, most likely out of memory (limit {limits.memory_mib} MiB); what it held is lost",
    )


# --- values across the border


def encode_answer(value: Any) -> str:
    """A tool's value as guest/…/wire.py reads it."""
    if type(value) is str:
        return '"' + value
    handles = False

    def default(other: Any) -> Any:
        nonlocal handles
        if isinstance(other, Handle):
            handles = True
            inner = {"id": other.id, "kind": other.kind, "mime_type": other.mime_type, "size": other.size}
            return {"$handle": {**inner, "uri": other.uri}}
        raise TypeError(type(other).__name__)

    options = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_NON_STR_KEYS
    try:
        text = orjson.dumps(value, default=default, option=options).decode()
    except TypeError:  # integers over 64 bits, lone surrogates
        text = json.dumps(value, default=default).encode("utf-8", "replace").decode()
    return ("*" if handles else "+") + text


def _error_answer(error: ToolFailed, name: str) -> str:
    server, _, tool = name.partition(".")
    fields = {
        "kind": error.kind,
        "message": error.message,
        "server": error.server or server,
        "tool": error.tool or tool,
        "data": error.data,
    }
    return "-" + encode_answer(fields)[1:]


_LONG_NUMBER = re.compile(r"\d{19}")


def _parse_json(text: str) -> Any:
    try:
        # orjson makes floats of integers over 64 bits.
        if _LONG_NUMBER.search(text) is None:
            return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    # NaN, lone surrogates and huge integers are Python's JSON, not orjson's.
    return json.loads(text, parse_constant=str)


def _parse_arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    try:
        match _parse_json(text):
            case [list() as positional, dict() as named]:
                return positional, named
    except (ValueError, RecursionError) as error:
        raise ToolFailed(f"the arguments are not JSON: {error}", kind="arguments") from None
    raise ToolFailed("the arguments have the wrong form", kind="arguments")


def _parse_outcome(text: str, limits: Limits) -> tuple[Any, SandboxError | None]:
    """The guest's envelope, believed in nothing but its form: the guest may have forged it."""
    if len(text) > limits.max_result_chars:
        return None, LimitReached(
            "max_result_chars", f"the result is longer than {limits.max_result_chars:,} characters; return less"
        )
    try:
        outcome = _parse_json(text)
    except (ValueError, RecursionError):
        return None, LimitReached("protocol", "the result could not be read: it is nested too deeply or not JSON")
    if not isinstance(outcome, dict):
        return None, LimitReached("protocol", "the result has the wrong form")
    error = outcome.get("error")
    if not isinstance(error, dict):
        return outcome.get("result"), None

    def text_of(key: str, size: int) -> str:
        found = error.get(key)
        return found[:size] if isinstance(found, str) else ""

    if text_of("type", 100) == "MemoryError":
        return None, LimitReached(
            "memory_mib", f"MemoryError: the code needed more than {limits.memory_mib} MiB. {text_of('traceback', 500)}"
        )
    line = error.get("line")
    return None, CodeFailed(
        type=text_of("type", 100) or "Error",
        message=text_of("message", 20_000),
        traceback=text_of("traceback", 20_000),
        line=line if isinstance(line, int) else None,
        name=text_of("name", 200) or None,
        server=text_of("server", 200) or None,
        tool=text_of("tool", 200) or None,
    )


# --- wasmtime's C interface. wasmtime-py's own wrappers build type objects at every call (66–246 µs) and keep
# exceptions in one slot for the whole process, where another thread's call can pick them up.


class _Here(threading.local):
    guest: _Guest | None = None


_here = _Here()


def _pointer(data: bytes) -> Any:
    return ctypes.cast(ctypes.c_char_p(data), ctypes.POINTER(ctypes.c_uint8))


def _set_string(value: Any, text: str) -> None:
    data = text.encode("utf-8", "replace")
    value.kind = _STRING
    ffi.wasm_byte_vec_new(ctypes.byref(value.of.string), len(data), _pointer(data))


def _get_string(value: Any) -> str:
    if value.kind != _STRING:
        raise _Violation("a string was expected")
    return ctypes.string_at(value.of.string.data, value.of.string.size).decode("utf-8", "replace")


def _host_function(body: Callable[[Any, Any], None]) -> Any:
    """A C callback that runs `body(arguments, results)` and turns whatever it raises into a trap."""

    @ffi.wasmtime_component_func_callback_t  # type: ignore[untyped-decorator]
    def callback(_data: Any, _context: Any, _type: Any, arguments: Any, _n: int, results: Any, _m: int) -> int:
        try:
            body(arguments, results)
            return 0
        except BaseException as error:
            if (guest := _here.guest) is not None and (call := guest._call) is not None and call.stopped is None:
                call.stopped = LimitReached("protocol", f"the execution was ended: {error}")
            return _new_error(str(error))

    return callback


def _new_error(text: str) -> int:
    pointer = ffi.wasmtime_error_new(ctypes.create_string_buffer(text.encode("utf-8", "replace") or b"stopped"))
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


def _guest() -> _Guest:
    guest = _here.guest
    if guest is None:
        raise _Violation("a host function was called outside a guest")
    return guest


def _submit(arguments: Any, _results: Any) -> None:
    _guest().call.submit(arguments[0].of.u32, _get_string(arguments[1]), _get_string(arguments[2]))


def _poll(arguments: Any, results: Any) -> None:
    _set_string(results[0], _guest().call.poll(arguments[0].of.s64))


def _do_call(arguments: Any, results: Any) -> None:
    _set_string(results[0], _guest().call.call(_get_string(arguments[0]), _get_string(arguments[1])))


def _emit(arguments: Any, _results: Any) -> None:
    _guest().emit(arguments[0].of.u8, _get_string(arguments[1]))


def _monotonic(_arguments: Any, results: Any) -> None:
    results[0].kind, results[0].of.u64 = _U64, time.monotonic_ns()


def _resolution(_arguments: Any, results: Any) -> None:
    results[0].kind, results[0].of.u64 = _U64, 1000


def _random_bytes(arguments: Any, results: Any) -> None:
    size = min(arguments[0].of.u64, 65536)
    results[0].kind = _LIST
    values = results[0].of.list
    ffi.wasmtime_component_vallist_new_uninit(ctypes.byref(results[0].of.list), size)
    for index, byte in enumerate(os.urandom(size)):
        values.data[index].kind, values.data[index].of.u8 = _U8, byte


def _wall_clock(_arguments: Any, results: Any) -> None:
    now = time.time_ns()
    _set_record(results[0], seconds=now // 1_000_000_000, nanoseconds=now % 1_000_000_000)


def _set_record(value: Any, *, seconds: int, nanoseconds: int) -> None:
    value.kind = _RECORD
    ffi.wasmtime_component_valrecord_new_uninit(ctypes.byref(value.of.record), 2)
    for index, (name, kind, field, number) in enumerate(
        (("seconds", _U64, "u64", seconds), ("nanoseconds", ffi.WASMTIME_COMPONENT_U32.value, "u32", nanoseconds))
    ):
        entry = value.of.record.data[index]
        data = name.encode()
        ffi.wasm_byte_vec_new(ctypes.byref(entry.name), len(data), _pointer(data))
        entry.val.kind = kind
        setattr(entry.val.of, field, number)


def _empty_list(_arguments: Any, results: Any) -> None:
    results[0].kind = _LIST
    ffi.wasmtime_component_vallist_new_empty(ctypes.byref(results[0].of.list))


def _none(_arguments: Any, results: Any) -> None:
    results[0].kind, results[0].of.option = _OPTION, None


_TICK_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_size_t,
    ctypes.POINTER(ffi.wasmtime_context_t),
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint64),
    ctypes.POINTER(ffi.wasmtime_update_deadline_kind_t),
)


@_TICK_CALLBACK  # type: ignore[untyped-decorator]
def _on_tick(_context: Any, _data: Any, delta: Any, kind: Any) -> int:
    try:
        guest = _here.guest
        if guest is not None and guest._call is not None:
            guest._call.tick()
        delta[0] = 1
        kind[0] = 0  # continue
        return 0
    except BaseException as error:
        return _new_error(str(error))


_no_finalizer = ctypes.CFUNCTYPE(None, ctypes.c_void_p)()

_FUNCTIONS = {
    "submit": _host_function(_submit),
    "poll": _host_function(_poll),
    "call": _host_function(_do_call),
    "emit": _host_function(_emit),
}
_WASI = {
    "clocks/monotonic-clock": {"now": _host_function(_monotonic), "resolution": _host_function(_resolution)},
    "clocks/wall-clock": {"now": _host_function(_wall_clock)},
    "random/random": {"get-random-bytes": _host_function(_random_bytes)},
    "cli/environment": {
        "get-environment": _host_function(_empty_list),
        "get-arguments": _host_function(_empty_list),
        "initial-cwd": _host_function(_none),
    },
    "filesystem/preopens": {"get-directories": _host_function(_empty_list)},
}


def _link(engine: WasmtimeEngine, component: Component) -> Linker:
    """All that a guest can reach; every other import of the component traps."""
    linker = Linker(engine)
    linker.define_unknown_imports_as_traps(component)
    linker.allow_shadowing = True
    with linker.root() as root:
        for name, callback in _FUNCTIONS.items():
            _define(root, name, callback)
        for full_name in component.type.imports(engine):
            functions = _WASI.get(full_name.removeprefix("wasi:").partition("@")[0])
            if functions is not None and full_name.startswith("wasi:"):
                with root.add_instance(full_name) as instance:
                    for name, callback in functions.items():
                        _define(instance, name, callback)
    return linker


def _define(instance: Any, name: str, callback: Any) -> None:
    data = name.encode()
    failure = ffi.wasmtime_component_linker_instance_add_func(
        instance.ptr(), ctypes.create_string_buffer(data), len(data), callback, None, _no_finalizer
    )
    if failure:
        raise WasmtimeError._from_ptr(failure)
