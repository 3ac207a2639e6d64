"""Credentials that blocking calls fetch, such as those of AWS and of Google."""

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio.to_thread

from mcpgate.llm.provider import Unreachable
from mcpgate.telemetry.text import one_line

T = TypeVar("T")
log = logging.getLogger("mcpgate.providers")
_SHOWN = 500


def no_credentials(what: str, error: Exception) -> Unreachable:
    """What clients hear. The error itself goes to the log, because it may name files, or hold what a program wrote."""
    log.warning("%s: %s", what, one_line(str(error), _SHOWN))
    return Unreachable(f"{what} ({type(error).__name__}); the log has more")


class Renewal(Generic[T]):
    """Runs a blocking call off the event loop, once for all who wait for it."""

    def __init__(self, fetch: Callable[[], T], limit_s: float) -> None:
        self._fetch, self._limit_s = fetch, limit_s
        self._task: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """What the call returns; a call that is under way is joined. Raises what it raises, TimeoutError."""
        task = self._task
        if task is None:
            task = self._task = asyncio.ensure_future(_off_the_loop(self._fetch))
            task.add_done_callback(self._over)
        done, _ = await asyncio.wait((task,), timeout=self._limit_s)
        if not done:
            raise TimeoutError
        return task.result()

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _over(self, task: "asyncio.Task[T]") -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # looked at, also if nobody waits any more


async def _off_the_loop(fetch: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(fetch, abandon_on_cancel=True)
