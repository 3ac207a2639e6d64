"""asyncio on two host functions: the loop sleeps in the host's `poll`, which also brings the answers of
tool calls. Thread-free and socket-free."""

import asyncio
import asyncio.tasks
import concurrent.futures
import concurrent.futures.thread
import selectors
import sys
import time
from asyncio import base_events
from typing import Any

from mcpgate_guest.calls import Pending, pump


class _HostSelector(selectors.SelectSelector):
    def select(self, timeout: float | None = None) -> list[Any]:
        from mcpgate_guest.calls import _waiting

        if timeout is None and not _waiting:
            raise RuntimeError("deadlock: the code waits for something that nothing will ever finish")
        if timeout == 0 and not _waiting:
            return []
        pump(timeout)
        return []


class Loop(base_events.BaseEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._selector = _HostSelector()

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def create_task(self, coro: Any, **options: Any) -> Any:
        return super().create_task(_awaitable(coro), **options)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        # There are no threads: the function runs here and now.
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        # The standard one logs a traceback through this package; the model needs one line.
        error = context.get("exception")
        if isinstance(error, Exception):
            print(f"a task that was never awaited failed: {type(error).__name__}: {error}", file=sys.stderr)

    def close(self) -> None:
        if not self.is_closed():
            super().close()


async def _wait_for_answer(pending: Pending) -> Any:
    return await pending


async def _already(value: Any) -> Any:
    return value


def _awaitable(thing: Any) -> Any:
    # A call made before the loop ran has its value already; gather() and the others should not mind.
    if type(thing) is Pending:
        return _wait_for_answer(thing)
    if asyncio.isfuture(thing) or asyncio.iscoroutine(thing) or hasattr(thing, "__await__"):
        return thing
    return _already(thing)


_std_ensure_future = getattr(asyncio.tasks, "_ensure_future", asyncio.ensure_future)  # the former up to Python 3.13
_std_wait = asyncio.wait
_std_wait_for = asyncio.wait_for
_std_as_completed = asyncio.as_completed
_std_gather = asyncio.gather
_std_iscoroutine = asyncio.iscoroutine


def ensure_future(thing: Any, *, loop: Any = None) -> Any:
    return _std_ensure_future(_awaitable(thing), loop=loop)


def wait(fs: Any, **options: Any) -> Any:
    return _std_wait([ensure_future(f) if not _std_iscoroutine(f) else asyncio.create_task(f) for f in fs], **options)


def wait_for(fut: Any, timeout: float | None) -> Any:
    return _std_wait_for(_awaitable(fut), timeout)


def as_completed(fs: Any, **options: Any) -> Any:
    return _std_as_completed([ensure_future(f) for f in fs], **options)


def gather(*things: Any, **options: Any) -> Any:
    # It keeps its arguments in a dict, and a call's hash is its value's.
    return _std_gather(*[_future(t) if type(t) is Pending else t for t in things], **options)


def _future(pending: Pending) -> Any:
    return ensure_future(pending) if asyncio._get_running_loop() is None else pending._mcpgate_future()


def run(main: Any, *, debug: bool | None = None, loop_factory: Any = None) -> Any:
    """asyncio.run(), also where a loop runs already (a program with a top-level await that calls it)."""
    outer = asyncio._get_running_loop()
    if outer is None:
        return run_in_fresh_loop(_awaitable(main))
    task = asyncio.current_task(outer)
    if task is not None:
        asyncio.tasks._leave_task(outer, task)
    asyncio._set_running_loop(None)
    try:
        return run_in_fresh_loop(_awaitable(main))
    finally:
        asyncio._set_running_loop(outer)
        if task is not None:
            asyncio.tasks._enter_task(outer, task)


def run_in_fresh_loop(main: Any) -> Any:
    loop = Loop()
    try:
        asyncio.set_event_loop(loop)
        try:
            return loop.run_until_complete(main)
        finally:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def sleep(seconds: float) -> None:
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        pump(left)


async def to_thread(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


class InlineExecutor(concurrent.futures.Executor):
    """In the place of ThreadPoolExecutor, for there are no threads: work is done when it is submitted."""

    def __init__(self, max_workers: int | None = None, *args: Any, **kwargs: Any) -> None:
        pass

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def get_event_loop() -> asyncio.AbstractEventLoop:
    """The running loop, else a new one, as asyncio did before Python 3.14: older programs begin with it."""
    return asyncio._get_running_loop() or Loop()


def install() -> None:
    """Put the above in asyncio's and time's places. Build time only."""
    concurrent.futures.ThreadPoolExecutor = concurrent.futures.thread.ThreadPoolExecutor = InlineExecutor
    for module in (asyncio, asyncio.tasks):
        module.ensure_future = ensure_future
        module.wait = wait
        module.wait_for = wait_for
        module.as_completed = as_completed
        module.gather = gather
    asyncio.tasks._ensure_future = ensure_future
    asyncio.run = asyncio.runners.run = run
    asyncio.get_event_loop = asyncio.events.get_event_loop = get_event_loop
    asyncio.new_event_loop = asyncio.events.new_event_loop = Loop
    asyncio.to_thread = asyncio.threads.to_thread = to_thread
    time.sleep = sleep
