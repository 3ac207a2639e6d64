"""Looks after requests under way, all of them with two tasks: whether their clients wait and for how long they have
heard nothing, whether their keys are still good, whether the server stops."""

import asyncio
import logging
import time
from types import TracebackType
from typing import Protocol

from mcpgate.api.http.access import Access
from mcpgate.api.http.exchange import Closing
from mcpgate.errors import McpgateError, NotAllowed, Unavailable
from mcpgate.governance.context import RequestContext

_LOOK_S = 1.0
_PING_S = 15.0
SHUTDOWN_S = 4.0
"""How long requests under way may go on when the server stops; it closes their connections a second later."""
_STOPPED = "the gateway is shutting down"
log = logging.getLogger("mcpgate.http")


class HungUp(McpgateError):
    """The client is gone."""

    code = "cancelled"


class Watched(Protocol):
    """What a request is answered over."""

    started: bool
    """Whether the client waits for the rest of a stream, in which pings have a place."""

    @property
    def gone(self) -> "asyncio.Future[None]":
        """Done when the client is gone."""
        ...

    async def raw(self, data: bytes) -> None:
        """Send a part of the answer."""
        ...

    async def ping(self) -> None: ...


class Watcher:
    """Watches the requests of one server."""

    def __init__(self, access: Access, closing: Closing) -> None:
        self.access, self._closing = access, closing
        self.watches: set[Watch] = set()
        self.stopped = False
        self._tasks: list[asyncio.Task[None]] = []

    def over(self, http: Watched, context: RequestContext) -> "Watch":
        """An asynchronous context manager around the rest of a request whose body has been read. It raises what ended
        the block from outside: HungUp, NotAllowed, Unavailable."""
        if not self._tasks:
            # A store that does not answer holds up rights, but no pings.
            self._tasks = [
                asyncio.create_task(self._ping(), name="pings"),
                asyncio.create_task(self._check(), name="rights of requests under way"),
            ]
            self._closing.stopped(SHUTDOWN_S).add_done_callback(self._stop)
        return Watch(self, http, context)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            for watch in tuple(self.watches):
                watch.ping()

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            for watch in tuple(self.watches):
                try:
                    await watch.check()
                except Exception:
                    log.exception("the rights of a request under way cannot be checked")

    def _stop(self, _: "asyncio.Future[None]") -> None:
        self.stopped = True
        for watch in tuple(self.watches):
            watch.end(Unavailable(_STOPPED))


class Watch:
    """One request under way."""

    def __init__(self, watcher: Watcher, http: Watched, context: RequestContext) -> None:
        self._watcher, self._http, self._context = watcher, http, context
        self._wrote = time.monotonic()
        self._is_writing = False
        self._ping: asyncio.Task[None] | None = None
        self._reason: McpgateError | None = None

    async def write(self, data: bytes) -> None:
        """Send a part of a stream. Pings fill the pauses between parts."""
        self._is_writing = True
        if self._ping is not None:
            await self._ping
        await self._http.raw(data)
        self._is_writing, self._wrote = False, time.monotonic()

    def end(self, reason: McpgateError) -> None:
        """No effect on a block that has been left: its task does something else by now."""
        if self._reason is None and self in self._watcher.watches:
            self._reason = reason
            self._task.cancel()

    async def check(self) -> None:
        caller = self._context.caller
        if not caller.is_local and not await self._watcher.access.still_admitted(caller):
            self.end(NotAllowed("the key or token of this request is no longer valid", key=caller.id))

    def ping(self) -> None:
        """Ping a client that has heard nothing for long."""
        is_silent = self._http.started and time.monotonic() - self._wrote >= _PING_S
        if is_silent and not self._is_writing and self._ping is None and self in self._watcher.watches:
            self._ping = asyncio.create_task(self._fill())

    async def _fill(self) -> None:
        """It may be slow to read that as well."""
        await self._http.ping()
        self._wrote, self._ping = time.monotonic(), None

    async def __aenter__(self) -> "Watch":
        if self._watcher.stopped:
            raise Unavailable(_STOPPED)
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._watcher.watches.add(self)
        self._http.gone.add_done_callback(self._hang_up)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watcher.watches.discard(self)
        self._http.gone.remove_done_callback(self._hang_up)
        if self._ping is not None:
            self._ping.cancel()
        if self._reason is not None and self._task.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
            raise self._reason from None

    def _hang_up(self, _: "asyncio.Future[None]") -> None:
        self.end(HungUp("the client is gone"))
