"""One MCP server and the task that keeps it connected: it connects, lists, follows changes and reconnects. Who may call
what, and what tools look like in Python, is decided elsewhere.
"""

import asyncio
import contextlib
import dataclasses
import fnmatch
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from mcpgate import jsontext
from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import UpstreamError
from mcpgate.upstream.connection import Connection, OnProgress, RpcError, ServerFacts
from mcpgate.upstream.stdio import open_stdio

State = Literal["connecting", "ready", "failed", "disabled"]
_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 60.0
_RETRY_EVERY_S = 0.5
"""A call may cut a backoff short, but not try more often than this."""
_DEBOUNCE_S = 0.15
_RELIST_EVERY_S = 1.0
"""A server that changes its tools all the time is listed at most this often."""
log = logging.getLogger("mcpgate.upstream")


@dataclasses.dataclass(frozen=True, slots=True)
class UpstreamView:
    """What is known of one upstream at one moment."""

    name: str
    config: UpstreamConfig
    state: State
    reason: str = ""
    """Why it failed; empty otherwise."""
    facts: ServerFacts | None = None
    tools: tuple[dict[str, Any], ...] = ()
    """As the server sent them, allowed ones only; of the last connection while it is away."""
    connect_s: float | None = None


class Upstream:
    """One MCP server, kept connected by its own task."""

    def __init__(
        self,
        name: str,
        config: UpstreamConfig,
        on_change: Callable[[], None],
        remembered: Sequence[dict[str, Any]] = (),
        go: asyncio.Event | None = None,
    ) -> None:
        self.name, self.config = name, config
        state: State = "failed" if config.unusable else "disabled" if config.disabled else "connecting"
        self.view = UpstreamView(name, config, state, config.unusable, tools=self._allowed(remembered))
        self._on_change = on_change
        self._go = go
        self._slots = asyncio.Semaphore(config.max_concurrency)
        self._connection: Connection | None = None
        self._changed = asyncio.Event()
        self._wake = asyncio.Event()
        self._relist = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sse_only = False
        self._failed_attempts = 0
        self._failed_at = -_RETRY_EVERY_S

    def start(self) -> None:
        if self._task is None and not self.config.disabled and not self.config.unusable:
            self._task = asyncio.create_task(self._run(), name=f"upstream {self.name}")

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        on_progress: OnProgress | None = None,
        meta: Any = None,
        on_sent: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """`tools/call`, its result as the server sent it. Connects first if need be; `on_sent` is called when it is
        about to be sent. Raises UpstreamError."""
        params: dict[str, Any] = {"name": tool, "arguments": arguments}
        if meta:
            params["_meta"] = meta
        return await self.limited_request("tools/call", params, on_sent, on_progress)

    async def limited_request(
        self,
        method: str,
        params: dict[str, Any],
        on_sent: Callable[[], None] | None = None,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """A request that counts against `max_concurrency`; see `call`. Raises UpstreamError."""
        async with self._slots:
            connection = self._live() or await self.connected()
            if on_sent is not None:
                on_sent()
            return await self.request(method, params, on_progress=on_progress, connection=connection)

    async def request(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        on_progress: OnProgress | None = None,
        connection: Connection | None = None,
    ) -> dict[str, Any]:
        """Any request. Raises UpstreamError with this upstream's name in it."""
        connection = connection or self._live() or await self.connected()
        try:
            return await connection.request(method, params, timeout_s=self.config.timeout_s, on_progress=on_progress)
        except RpcError as error:
            if not error.session_lost:
                raise
            # A remote server that was restarted: nothing has happened yet, so a fresh session may ask again.
            connection.on_close("the server no longer knows the session")
            fresh = await self.connected()
            return await fresh.request(method, params, timeout_s=self.config.timeout_s, on_progress=on_progress)
        except UpstreamError as error:
            raise type(error)(f"upstream {self.name!r}: {error.message}") from error

    async def list_all(self, what: str) -> list[dict[str, Any]]:
        connection = self._live() or await self.connected()
        return await connection.list_all(what, self.config.timeout_s)

    async def connected(self) -> Connection:
        """The live connection; waits for one that is being made, and tries at once where a retry is due later.
        Raises UpstreamError with the reason."""
        if self.config.disabled:
            raise UpstreamError(f"upstream {self.name!r} is disabled in the configuration")
        if self.config.unusable:
            raise UpstreamError(f"upstream {self.name!r} is not usable: {self.config.unusable}")
        if self.view.state == "failed" and time.monotonic() - self._failed_at < _RETRY_EVERY_S:
            # A loop of calls must not start a broken server a hundred times a second.
            raise UpstreamError(f"upstream {self.name!r} is not connected: {self.view.reason}")
        failed_before = self._failed_attempts
        self._wake.set()
        try:
            async with asyncio.timeout(self.config.connect_timeout_s):
                while (connection := self._live()) is None:
                    if self._failed_attempts > failed_before or self._task is None:
                        break
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            connection = None
        if connection is None:
            reason = self.view.reason or "it is still starting"
            raise UpstreamError(f"upstream {self.name!r} is not connected: {reason}")
        return connection

    def _live(self) -> Connection | None:
        connection = self._connection
        return connection if connection is not None and not connection.closed.done() else None

    async def _run(self) -> None:
        failures = 0
        if self._go is not None:
            await self._go.wait()
        while True:
            began = time.monotonic()
            self._wake.clear()
            try:
                await self._connect_and_serve(began)
                reason = self.view.reason or "the connection was closed"
            except UpstreamError as error:
                reason = error.message
                self._failed_attempts += 1
                self._failed_at = time.monotonic()
            except Exception as error:
                log.exception("%s: unexpected failure", self.name)
                reason = f"{type(error).__name__}: {error}"
                self._failed_attempts += 1
                self._failed_at = time.monotonic()
            failures = 1 if time.monotonic() - began > _LONGEST_BACKOFF_S else failures + 1
            delay = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** (failures - 1)) * random.uniform(0.8, 1.2)
            log.warning("%s: %s; next try in %.1f s", self.name, reason, delay)
            self._connection = None
            self._set("failed", reason=reason)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            self._set("connecting", reason=reason)

    async def _connect_and_serve(self, began: float) -> None:
        """One life of a connection, entered and left by this task alone. Returns when it is gone."""
        connection = Connection(self.name, self._on_list_changed)
        budget = self.config.connect_timeout_s
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(connection.stop)
            try:
                async with asyncio.timeout(budget):
                    facts = await self._open(connection, stack)
                    tools = await self._list_tools(connection)
            except TimeoutError:
                raise UpstreamError(f"not ready within connect_timeout_s={budget:g}") from None
            self._connection = connection
            self._set("ready", facts=facts, tools=tools, connect_s=time.monotonic() - began, reason="")
            log.info("%s: ready, %d tools, %s", self.name, len(tools), facts.protocol)
            try:
                await self._follow_changes(connection)
            finally:
                self._connection = None

    async def _open(self, connection: Connection, stack: contextlib.AsyncExitStack) -> ServerFacts:
        config = self.config
        if config.command is not None:
            connection.transport = await stack.enter_async_context(open_stdio(self.name, config, connection))
            return await self._handshake(connection)
        from mcpgate.upstream.remote import (
            open_streams,  # imports the SDK: 1.1 s that only remote upstreams should cost
        )

        kind = config.type or ("sse" if self._sse_only else "http")
        try:
            inner = await stack.enter_async_context(contextlib.AsyncExitStack())
            connection.transport = await inner.enter_async_context(open_streams(self.name, config, connection, kind))
            return await self._handshake(connection)
        except UpstreamError as error:
            if config.type is None and kind == "http" and any(f"HTTP {s}" in error.message for s in (404, 405, 400)):
                # The specification's own recipe for finding a server of the old transport.
                await inner.aclose()
                connection.transport = await stack.enter_async_context(
                    open_streams(self.name, config, connection, "sse")
                )
                facts = await self._handshake(connection)
                self._sse_only = True
                return facts
            raise

    async def _handshake(self, connection: Connection) -> ServerFacts:
        handshake = asyncio.ensure_future(connection.handshake(self.config.connect_timeout_s))
        try:
            await asyncio.wait((handshake, connection.closed), return_when=asyncio.FIRST_COMPLETED)
            if not handshake.done():
                raise UpstreamError(connection.closed.result())
            return handshake.result()
        except UpstreamError as error:
            refusal = getattr(connection.transport, "refusal", lambda: "")()
            if refusal and refusal not in error.message:
                raise UpstreamError(f"{error.message} ({refusal})") from error
            raise
        finally:
            handshake.cancel()

    async def _list_tools(self, connection: Connection) -> tuple[dict[str, Any], ...]:
        try:
            listed = await connection.list_all("tools", self.config.connect_timeout_s)
        except RpcError as error:
            if error.rpc_code == -32601:
                return ()  # a server of resources or prompts only
            raise
        return self._allowed(listed)

    def _allowed(self, listed: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
        chosen, seen = [], set()
        for tool in listed:
            name = tool.get("name")
            if not isinstance(name, str) or not name or name in seen:
                log.warning("%s: a tool without a name of its own is left out: %r", self.name, name)
                continue
            seen.add(name)
            allowed = any(fnmatch.fnmatchcase(name, glob) for glob in self.config.tools.allow)
            if allowed and not any(fnmatch.fnmatchcase(name, glob) for glob in self.config.tools.deny):
                chosen.append(self._writable(tool))
        return tuple(chosen)

    def _writable(self, tool: dict[str, Any]) -> dict[str, Any]:
        """The tool, without schemas that no JSON writer takes (nested hundreds deep): one such tool must not keep
        the others from being shown."""
        try:
            jsontext.dumps(tool)
            return tool
        except ValueError as error:
            log.warning("%s: the schemas of %r are left out: %s", self.name, tool["name"], error)
            return {"name": tool["name"], "description": str(tool.get("description") or "")}

    async def _follow_changes(self, connection: Connection) -> None:
        self._relist.clear()
        while True:
            change = asyncio.ensure_future(self._relist.wait())
            try:
                await asyncio.wait((change, connection.closed), return_when=asyncio.FIRST_COMPLETED)
            finally:
                change.cancel()
            if connection.closed.done():
                self._set("failed", reason=connection.closed.result())
                return
            await asyncio.sleep(_DEBOUNCE_S)
            self._relist.clear()
            try:
                tools = await self._list_tools(connection)
            except UpstreamError as error:
                log.warning("%s: its changed tools could not be listed: %s", self.name, error)
                self._relist.set()
                await asyncio.sleep(_RELIST_EVERY_S)
                continue
            if tools != self.view.tools:
                self._set("ready", tools=tools)
            await asyncio.sleep(_RELIST_EVERY_S - _DEBOUNCE_S)

    def _on_list_changed(self, what: str) -> None:
        if what == "tools":
            self._relist.set()

    def _set(self, state: State, **changes: Any) -> None:
        self.view = dataclasses.replace(self.view, state=state, **changes)
        self._changed.set()
        self._on_change()

    def __repr__(self) -> str:
        return f"<Upstream {self.name}: {self.view.state}>"
