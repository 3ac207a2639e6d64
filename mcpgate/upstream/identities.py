"""Connections to one upstream for individual callers, in addition to the shared one: opened on first use, closed
when idle, limited in number. For servers that must know on whose behalf they are called."""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from mcpgate.errors import UpstreamError
from mcpgate.upstream.connection import Connection, ServerFacts

MAX_CONNECTIONS = 64
IDLE_S = 300.0
RETRY_EVERY_S = 0.5
log = logging.getLogger("mcpgate.upstream")

Open = Callable[[Connection, contextlib.AsyncExitStack, str], Awaitable[ServerFacts]]


class Identities:
    """Maps identities to connections."""

    def __init__(
        self, make: Callable[[str], Connection], open_: Open, timeout_s: float, idle_s: float = IDLE_S
    ) -> None:
        self._make, self._open, self._timeout_s, self.idle_s = make, open_, timeout_s, idle_s
        self._table: OrderedDict[str, _Own] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, identity: str) -> Connection:
        """The live connection of an identity; it closes after a period without use. Raises UpstreamError."""
        own = self._table.get(identity)
        if own is None or (own.is_over and not own.failed_just_now):
            self._make_room()
            own = self._table[identity] = _Own(self, identity)
            self._tasks.add(own.task)
            own.task.add_done_callback(self._tasks.discard)
        self._table.move_to_end(identity)
        own.used.set()
        return await asyncio.shield(own.ready)

    def find(self, identity: str) -> Connection | None:
        """The live connection of an identity, if it has one now."""
        own = self._table.get(identity)
        if own is None or own.is_over or not own.ready.done():
            return None
        return own.connection

    def live(self) -> list[Connection]:
        """Every live connection."""
        return [found for identity in self._table if (found := self.find(identity)) is not None]

    def drop(self, identity: str) -> None:
        """Close the connection of an identity, if it has one."""
        if (own := self._table.pop(identity, None)) is not None:
            own.task.cancel()

    def _make_room(self) -> None:
        for identity in [identity for identity, own in self._table.items() if own.is_over]:
            del self._table[identity]
        while len(self._table) >= MAX_CONNECTIONS:
            idle = next((i for i, own in self._table.items() if not own.is_busy), None)
            if idle is None:
                raise UpstreamError(f"all {MAX_CONNECTIONS} per-caller connections to this server are in use")
            self._table.pop(idle).task.cancel()

    async def aclose(self) -> None:
        tasks = list(self._tasks)
        self._table.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def keep(self, own: "_Own", identity: str) -> None:
        """The lifetime of one connection, opened and closed by the same task."""
        connection = self._make(identity)
        own.connection = connection
        try:
            async with contextlib.AsyncExitStack() as stack:
                stack.callback(connection.stop)
                async with asyncio.timeout(self._timeout_s):
                    await self._open(connection, stack, identity)
                own.ready.set_result(connection)
                while not connection.closed.done() and await self._is_used(own, connection):
                    pass
        except TimeoutError:
            own.fail(UpstreamError(f"not ready within connect_timeout_s={self._timeout_s:g}"))
        except UpstreamError as error:
            own.fail(error)
        except Exception as error:
            log.exception("a caller's connection failed unexpectedly")
            own.fail(UpstreamError(f"{type(error).__name__}: {error}"))
        finally:
            own.fail(UpstreamError("the gateway closed the connection"))

    async def _is_used(self, own: "_Own", connection: Connection) -> bool:
        own.used.clear()
        used = asyncio.ensure_future(own.used.wait())
        try:
            await asyncio.wait((used, connection.closed), timeout=self.idle_s, return_when=asyncio.FIRST_COMPLETED)
            return used.done() or own.is_busy
        finally:
            used.cancel()


class _Own:
    def __init__(self, identities: Identities, identity: str) -> None:
        self.connection: Connection | None = None
        self.failed_at: float | None = None
        self.used = asyncio.Event()
        self.ready: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(identities.keep(self, identity))

    @property
    def is_over(self) -> bool:
        return self.task.done() or (self.connection is not None and self.connection.closed.done())

    @property
    def is_busy(self) -> bool:
        return not self.ready.done() or (self.connection is not None and self.connection.is_busy)

    @property
    def failed_just_now(self) -> bool:
        """A loop of calls must not start a broken server a hundred times a second."""
        return self.failed_at is not None and time.monotonic() - self.failed_at < RETRY_EVERY_S

    def fail(self, error: UpstreamError) -> None:
        if not self.ready.done():
            self.failed_at = time.monotonic()
            self.ready.set_exception(error)
            self.ready.exception()  # callers see it when they await; there may be none left
