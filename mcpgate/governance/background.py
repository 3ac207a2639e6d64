"""Work that continues when its caller stops waiting: settlements, releases, recounts."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Background:
    """Tasks that are never cancelled; `drain` waits for all of them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drain(self) -> None:
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))
