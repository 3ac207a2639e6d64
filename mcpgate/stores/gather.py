"""Batches concurrent requests to a store, so that they share one round trip, one transaction and one flush to disk."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from mcpgate.governance.store import StoreUnavailable

A = TypeVar("A")
R = TypeVar("R")


class Gather(Generic[A, R]):
    """While `at_once` requests are in progress, further ones wait and are then sent as one."""

    def __init__(self, ask: Callable[[list[A]], Awaitable[Sequence[R]]], at_once: int = 1, most: int = 100) -> None:
        self._ask, self._free, self._most = ask, at_once, most
        self._waiting: list[tuple[A, asyncio.Future[R]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, item: A) -> R:
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._free:
            self._free -= 1
            task = asyncio.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            # The caller may release the item next, which must happen after this request.
            await asyncio.wait([done])
            if not done.cancelled():
                done.exception()
            raise

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._flush(batch)
        finally:
            self._free += 1

    async def _flush(self, batch: list[tuple[A, "asyncio.Future[R]"]]) -> None:
        try:
            answers = await self._ask([item for item, _ in batch])
            for (_, done), answer in list(zip(batch, answers, strict=True)):
                if not done.done():
                    done.set_result(answer)
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, StoreUnavailable):  # one of them may have caused it
                for one in batch:
                    await self._flush([one])
                return
            _fail(batch, error)
        except BaseException:  # cancelled: nothing else would wake the waiters
            _fail(batch, StoreUnavailable("the request was cancelled"))
            raise


def _fail(batch: Sequence[tuple[object, "asyncio.Future[R]"]], error: Exception) -> None:
    for _, done in batch:
        if not done.done():
            done.set_exception(error)
