"""Batches concurrent requests to a store, so that they share one round trip, one transaction and one flush to disk."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from mcpgate.governance.store import StoreUnavailable

A = TypeVar("A")
R = TypeVar("R")


class _Waiting(Generic[A, R]):
    __slots__ = ("done", "is_over", "item")

    def __init__(self, item: A, done: "asyncio.Future[R]") -> None:
        self.item, self.done = item, done
        self.is_over = False

    def answer(self, answer: R) -> None:
        self.is_over = True
        if not self.done.done():
            self.done.set_result(answer)

    def fail(self, error: Exception) -> None:
        self.is_over = True
        if not self.done.done():
            self.done.set_exception(error)


class Gather(Generic[A, R]):
    """While `at_once` requests are in progress, further ones wait and are then sent as one. Each is sent even if its
    caller stops waiting."""

    def __init__(self, ask: Callable[[list[A]], Awaitable[Sequence[R]]], at_once: int = 1, most: int = 100) -> None:
        self._ask, self._free, self._most = ask, at_once, most
        self._waiting: list[_Waiting[A, R]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, item: A) -> R:
        loop = asyncio.get_running_loop()
        waiting: _Waiting[A, R] = _Waiting(item, loop.create_future())
        self._waiting.append(waiting)
        if self._free:
            self._free -= 1
            task = loop.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            return await waiting.done
        except asyncio.CancelledError:
            # The caller may release the item next, which must happen after this request.
            if not waiting.is_over:
                waiting.done = loop.create_future()
            while not waiting.done.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([waiting.done])
            if not waiting.done.cancelled():
                waiting.done.exception()  # retrieved
            raise

    async def drain(self) -> None:
        """Returns when everything was sent and answered."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._flush(batch)
        finally:
            self._free += 1

    async def _flush(self, batch: "Sequence[_Waiting[A, R]]") -> None:
        try:
            answers = await self._ask([waiting.item for waiting in batch])
            for waiting, answer in list(zip(batch, answers, strict=True)):
                waiting.answer(answer)
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, StoreUnavailable):  # one of them may have caused it
                for one in batch:
                    await self._flush([one])
                return
            for waiting in batch:
                waiting.fail(error)
        except BaseException:  # cancelled: nothing else would wake the waiters
            for waiting in batch:
                waiting.fail(StoreUnavailable("the request was cancelled"))
            raise
