"""asyncio for restricted code: the same names, behind which no task, future or loop of asyncio can be touched."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any


class Task:
    """A task, or anything else that is awaited: what code may ask of it. Two that stand for the same are equal."""

    __slots__ = ("_future",)
    _future: "asyncio.Future[Any]"

    def __init__(self) -> None:
        raise TypeError("use asyncio.create_task()")

    def done(self) -> bool:
        return self._future.done()

    def cancelled(self) -> bool:
        return self._future.cancelled()

    def cancel(self, msg: Any = None) -> bool:
        return self._future.cancel(msg)

    def result(self) -> Any:
        return self._future.result()

    def exception(self) -> BaseException | None:
        return self._future.exception()

    def get_name(self) -> str:
        future: Any = self._future
        return str(future.get_name()) if isinstance(future, asyncio.Task) else "future"

    def add_done_callback(self, callback: Callable[["Task"], Any]) -> None:
        self._future.add_done_callback(lambda future: callback(show(future)))

    def __await__(self) -> Any:
        return self._future.__await__()

    def __eq__(self, other: object) -> bool:
        return type(other) is Task and other._future is self._future

    def __hash__(self) -> int:
        return hash(self._future)

    def __repr__(self) -> str:
        return f"<task {self.get_name()}{' done' if self.done() else ''}>"


def show(future: "asyncio.Future[Any]") -> Task:
    task = object.__new__(Task)
    task._future = future
    return task


def real(thing: Any) -> Any:
    return thing._future if type(thing) is Task else thing


def gather(*things: Awaitable[Any], return_exceptions: bool = False) -> Any:
    return show(asyncio.gather(*map(real, things), return_exceptions=return_exceptions))


def create_task(coroutine: Any, *, name: str | None = None) -> Task:
    return show(asyncio.get_running_loop().create_task(real(coroutine), name=name))


def ensure_future(thing: Any) -> Task:
    return show(asyncio.ensure_future(real(thing)))


def shield(thing: Any) -> Task:
    return show(asyncio.shield(real(thing)))


async def wait_for(thing: Any, timeout: float | None) -> Any:
    return await asyncio.wait_for(real(thing), timeout)


async def wait(things: Any, *, timeout: float | None = None, return_when: str = asyncio.ALL_COMPLETED) -> Any:
    done, pending = await asyncio.wait([real(t) for t in things], timeout=timeout, return_when=return_when)
    return {show(future) for future in done}, {show(future) for future in pending}


class as_completed:
    """Both `for` and `async for` go over it."""

    __slots__ = ("_next",)

    def __init__(self, things: Any, *, timeout: float | None = None) -> None:
        self._next: Iterator[Any] = iter(asyncio.as_completed([real(t) for t in things], timeout=timeout))

    def __iter__(self) -> Iterator[Any]:
        yield from self._next

    async def __aiter__(self) -> AsyncIterator[Any]:
        for coming in self._next:
            yield await _settled(coming)


async def _settled(coming: Any) -> Task:
    async def value() -> Any:
        return await coming

    task: asyncio.Task[Any] = asyncio.ensure_future(value())
    await asyncio.wait([task])
    return show(task)


def run(main: Any, **_: Any) -> Any:
    return asyncio.run(real(main))


def current_task() -> Task | None:
    task = asyncio.current_task()
    return None if task is None else show(task)


def all_tasks() -> set[Task]:
    return {show(task) for task in asyncio.all_tasks()}


def _facade(cls: Any, *methods: str) -> type:
    """A class of the same name that has these methods and no others."""

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        self._inner = cls(*args, **kwargs)

    def forward(name: str) -> Any:
        return lambda self, *args, **kwargs: getattr(self._inner, name)(*args, **kwargs)

    members: dict[str, Any] = {"__slots__": ("_inner",), "__init__": init}
    members |= {name: forward(name) for name in methods}
    return type(cls.__name__, (), members)


class TaskGroup:
    __slots__ = ("_inner",)

    def __init__(self) -> None:
        self._inner = asyncio.TaskGroup()

    def create_task(self, coroutine: Any, *, name: str | None = None) -> Task:
        return show(self._inner.create_task(real(coroutine), name=name))

    async def __aenter__(self) -> "TaskGroup":
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._inner.__aexit__(*error)


class timeout:
    __slots__ = ("_inner",)

    def __init__(self, delay: float | None) -> None:
        self._inner = asyncio.timeout(delay)

    def expired(self) -> bool:
        return self._inner.expired()

    async def __aenter__(self) -> "timeout":
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._inner.__aexit__(*error)


_QUEUE = ("put", "get", "put_nowait", "get_nowait", "qsize", "empty", "full", "join", "task_done")
_LOCK = ("acquire", "release", "locked", "__aenter__", "__aexit__")

NAMES: dict[str, Any] = {
    **{f.__name__: f for f in (gather, create_task, ensure_future, shield, wait_for, wait, run, current_task)},
    **{f.__name__: f for f in (all_tasks, as_completed, Task, TaskGroup, timeout)},
    **{"Lock": _facade(asyncio.Lock, *_LOCK), "Semaphore": _facade(asyncio.Semaphore, *_LOCK)},
    **{"BoundedSemaphore": _facade(asyncio.BoundedSemaphore, *_LOCK)},
    **{"Event": _facade(asyncio.Event, "set", "clear", "is_set", "wait")},
    **{"Condition": _facade(asyncio.Condition, *_LOCK, "wait", "wait_for", "notify", "notify_all")},
    **{"Queue": _facade(asyncio.Queue, *_QUEUE), "LifoQueue": _facade(asyncio.LifoQueue, *_QUEUE)},
    **{"PriorityQueue": _facade(asyncio.PriorityQueue, *_QUEUE)},
    **{
        name: getattr(asyncio, name)
        for name in (
            *("sleep", "to_thread", "iscoroutine", "iscoroutinefunction", "CancelledError", "TimeoutError"),
            *("InvalidStateError", "QueueEmpty", "QueueFull", "FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"),
        )
    },
}
