"""Looks after requests under way, all of them with one timer: whether their clients wait, whether their keys are still
good, whether the server stops."""

import asyncio
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
        self._task: asyncio.Task[None] | None = None

    def over(self, http: Watched, context: RequestContext) -> "Watch":
        """An asynchronous context manager around the rest of a request whose body has been read. It raises what ended
        the block from outside: HungUp, NotAllowed, Unavailable."""
        if self._task is None:
            self._task = asyncio.create_task(self._look(), name="watcher")
            self._closing.stopped(SHUTDOWN_S).add_done_callback(self._stop)
        return Watch(self, http, context)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            for watch in tuple(self.watches):
                await watch.look()

    def _stop(self, _: "asyncio.Future[None]") -> None:
        for watch in tuple(self.watches):
            watch.end(Unavailable("the gateway is shutting down"))


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
        if self._reason is None:
            self._reason = reason
            self._task.cancel()

    async def look(self) -> None:
        caller, http = self._context.caller, self._http
        if not caller.is_local and not await self._watcher.access.still_admitted(caller):
            self.end(NotAllowed("the key or token of this request is no longer valid", key=caller.id))
        elif http.started and not (self._is_writing or self._ping) and time.monotonic() - self._wrote >= _PING_S:
            self._ping = asyncio.create_task(self._fill())

    async def _fill(self) -> None:
        """Ping a client that has heard nothing for long; it may be slow to read that as well."""
        await self._http.ping()
        self._wrote, self._ping = time.monotonic(), None

    async def __aenter__(self) -> "Watch":
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
