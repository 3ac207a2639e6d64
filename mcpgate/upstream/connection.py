"""One live MCP session over one transport: ids and answers, the handshake of either protocol era, progress,
cancellation, paging. Tolerant on purpose: a message is a dict, and what it does not need it does not check.
It does not start, restart or share anything: see pool.py.
"""

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mcpgate import __version__
from mcpgate.errors import UpstreamError, UpstreamTimeout
from mcpgate.upstream.framing import Message, Transport

HANDSHAKE_VERSION = "2025-11-25"
MODERN_VERSION = "2026-07-28"
_META = "io.modelcontextprotocol/"
_CLIENT = {"name": "mcpgate", "version": __version__}
_MAX_PAGES = 1000
_LISTEN_AGAIN_S = 2.0
log = logging.getLogger("mcpgate.upstream")

_SESSION_LOST = ("session terminated", "session not found")
"""What the SDKs' client and servers say of an unknown session."""

OnProgress = Callable[[dict[str, Any]], None]


class RpcError(UpstreamError):
    """The upstream answered a request with a JSON-RPC error."""

    @property
    def session_lost(self) -> bool:
        """Whether it only says that the server no longer knows our session: the request was not looked at."""
        return self.rpc_code in (-32600, -32001) and self.message.lower() in _SESSION_LOST

    def __init__(self, rpc_code: int, message: str, data: Any = None) -> None:
        super().__init__(message, rpc_code=rpc_code, data=data)
        self.rpc_code, self.rpc_data = rpc_code, data


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server said of itself in the handshake."""

    protocol: str
    name: str = ""
    title: str = ""
    version: str = ""
    instructions: str = ""
    capabilities: frozenset[str] = frozenset()


class _Waiting:
    __slots__ = ("future", "on_progress", "timeout", "timeout_s")

    def __init__(
        self, future: "asyncio.Future[dict[str, Any]]", on_progress: OnProgress | None, timeout_s: float
    ) -> None:
        self.future, self.on_progress, self.timeout_s = future, on_progress, timeout_s
        self.timeout: asyncio.Timeout | None = None


class Connection:
    """Requests and answers. Created, used and closed on one event loop; calls may come from any task."""

    def __init__(self, name: str, on_list_changed: Callable[[str], None]) -> None:
        """`on_list_changed` hears 'tools', 'resources' or 'prompts'."""
        self._name, self._on_list_changed = name, on_list_changed
        self._waiting: dict[int, _Waiting] = {}
        self._next_id = 0
        self._modern = False
        self._listen: asyncio.Task[None] | None = None
        self.transport: Transport | None = None
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done, with the reason, when the other side is gone."""

    # --- Inbox

    def on_message(self, message: Message) -> None:
        method = message.get("method")
        if method is None:
            self._on_answer(message)
        elif "id" in message:
            self._reply(message["id"], str(method))
        elif method == "notifications/progress":
            self._on_progress(message.get("params"))
        elif isinstance(method, str) and method.endswith("/list_changed"):
            self._on_list_changed(method.split("/")[1])
        elif method == "notifications/message":
            log.debug("%s says: %s", self._name, str(message.get("params"))[:500])

    def on_unreadable(self, request_id: int | None, reason: str) -> None:
        victims = [request_id] if request_id in self._waiting else list(self._waiting)
        for id in victims:
            if id is not None:
                self._fail(id, UpstreamError(reason))
        if not victims:
            log.warning("%s: %s", self._name, reason)

    def on_close(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)
        for id in list(self._waiting):
            self._fail(id, UpstreamError(reason))

    def _on_answer(self, message: Message) -> None:
        id = message.get("id")
        waiting = self._waiting.pop(id, None) if isinstance(id, int) else None
        if waiting is None or waiting.future.done():
            return
        error = message.get("error")
        if error is None:
            result = message.get("result")
            waiting.future.set_result(result if isinstance(result, dict) else {"value": result})
        elif isinstance(error, dict):
            code = error.get("code")
            text = str(error.get("message") or "the server gave no reason")
            waiting.future.set_exception(RpcError(code if isinstance(code, int) else 0, text, error.get("data")))
        else:
            waiting.future.set_exception(RpcError(0, str(error)))

    def _on_progress(self, params: Any) -> None:
        token = params.get("progressToken") if isinstance(params, dict) else None
        waiting = self._waiting.get(token) if isinstance(token, int) else None
        if waiting is None:
            return
        try:
            if waiting.timeout is not None:
                waiting.timeout.reschedule(asyncio.get_running_loop().time() + waiting.timeout_s)
            if waiting.on_progress is not None:
                waiting.on_progress(params)
        except Exception as error:  # the timeout is just expiring, or the listener failed: the call goes on
            log.debug("%s: progress was not passed on: %r", self._name, error)

    def _fail(self, id: int, error: Exception) -> None:
        waiting = self._waiting.pop(id, None)
        if waiting is not None and not waiting.future.done():
            waiting.future.set_exception(error)

    def _reply(self, id: Any, method: str) -> None:
        # We declare no client capabilities, so a server may ask for nothing but a sign of life.
        answer: Message = {"jsonrpc": "2.0", "id": id}
        if method == "ping":
            answer["result"] = {}
        else:
            answer["error"] = {"code": -32601, "message": f"{method} is not supported by this client"}
        _in_background(self._send_quietly(answer))

    # --- requests

    async def request(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        timeout_s: float,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """Send a request and wait for its result, as the server sent it. Progress starts the timeout anew; a
        cancelled or timed-out request is cancelled at the server. Raises RpcError, UpstreamError,
        UpstreamTimeout."""
        if self.closed.done():
            raise UpstreamError(self.closed.result())
        assert self.transport is not None
        self._next_id += 1
        id = self._next_id
        params = dict(params or {})
        meta = dict(params.get("_meta") or {})
        if on_progress is not None:
            meta["progressToken"] = id
        headers = self._envelope(method, params, meta) if self._modern else None
        if meta:
            params["_meta"] = meta
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        waiting = self._waiting[id] = _Waiting(future, on_progress, timeout_s)
        try:
            async with asyncio.timeout(timeout_s) as waiting.timeout:
                await self.transport.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params}, headers)
                return await future
        except TimeoutError:
            self._cancel(id, "timed out")
            raise UpstreamTimeout(f"no answer within {timeout_s:g} s") from None
        except asyncio.CancelledError:
            self._cancel(id, "cancelled by the caller")
            raise
        finally:
            self._waiting.pop(id, None)
            if future.done() and not future.cancelled():
                future.exception()  # it may have failed after we stopped waiting; that is nobody's news

    def _envelope(self, method: str, params: dict[str, Any], meta: dict[str, Any]) -> dict[str, str]:
        meta[_META + "protocolVersion"] = MODERN_VERSION
        meta[_META + "clientCapabilities"] = {}
        meta[_META + "clientInfo"] = _CLIENT
        headers = {"mcp-protocol-version": MODERN_VERSION, "mcp-method": method}
        name = params.get("uri") if method == "resources/read" else params.get("name")
        if isinstance(name, str) and method in ("tools/call", "prompts/get", "resources/read"):
            headers["mcp-name"] = _header_value(name)
        return headers

    def _cancel(self, id: int, reason: str) -> None:
        params = {"requestId": id, "reason": reason}
        message: Message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
        _in_background(self._send_quietly(message))

    async def _send_quietly(self, message: Message) -> None:
        try:
            if self.transport is not None:
                await self.transport.send(message)
        except UpstreamError:
            pass

    # --- the protocol

    async def handshake(self, timeout_s: float) -> ServerFacts:
        """Agree on a protocol revision. `initialize` goes first: every server seen in the field answers it at
        once, while servers that ignore unknown methods would let a modern probe wait for its timeout; a
        modern-only server refuses it with an error, and is then asked the modern way."""
        self._modern = False
        try:
            result = await self.request(
                "initialize",
                {"protocolVersion": HANDSHAKE_VERSION, "capabilities": {}, "clientInfo": _CLIENT},
                timeout_s=timeout_s,
            )
        except RpcError as refused:
            return await self._discover(timeout_s, refused)
        facts = _facts(result, str(result.get("protocolVersion") or HANDSHAKE_VERSION), result.get("serverInfo"))
        assert self.transport is not None
        await self.transport.send(
            {"jsonrpc": "2.0", "method": "notifications/initialized"}, {"mcp-protocol-version": facts.protocol}
        )
        return facts

    async def _discover(self, timeout_s: float, refused: RpcError) -> ServerFacts:
        self._modern = True
        try:
            result = await self.request("server/discover", timeout_s=timeout_s)
        except RpcError:
            raise UpstreamError(f"the handshake was refused: {refused.message}") from refused
        meta = result.get("_meta")
        info = meta.get(_META + "serverInfo") if isinstance(meta, dict) else None
        self._listen = _in_background(self._listen_for_changes())
        return _facts(result, MODERN_VERSION, info)

    async def _listen_for_changes(self) -> None:
        kinds = {"toolsListChanged": True, "resourcesListChanged": True, "promptsListChanged": True}
        while not self.closed.done():
            try:
                await self.request("subscriptions/listen", {"notifications": kinds}, timeout_s=10**9)
            except RpcError as error:
                log.debug("%s: no change notifications: %s", self._name, error)
                return
            except UpstreamError:
                pass  # the stream broke; the connection may still be there
            await asyncio.sleep(_LISTEN_AGAIN_S)

    async def list_all(self, what: str, timeout_s: float) -> list[dict[str, Any]]:
        """Every item of `tools`, `resources`, `resourceTemplates` or `prompts`, through all pages."""
        method = "resources/templates/list" if what == "resourceTemplates" else f"{what}/list"
        items: list[dict[str, Any]] = []
        cursor: Any = None
        seen: set[str] = set()
        for _ in range(_MAX_PAGES):
            page = await self.request(method, {"cursor": cursor} if cursor is not None else {}, timeout_s=timeout_s)
            found = page.get(what)
            items += [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str) or cursor in seen:
                return items
            seen.add(cursor)
        log.warning("%s: %s has more than %d pages; the rest is left out", self._name, method, _MAX_PAGES)
        return items

    def stop(self) -> None:
        if self._listen is not None:
            self._listen.cancel()
        self.on_close("the gateway closed the connection")


def _facts(result: dict[str, Any], protocol: str, info: Any) -> ServerFacts:
    info = info if isinstance(info, dict) else {}
    capabilities = result.get("capabilities")
    return ServerFacts(
        protocol=protocol,
        name=str(info.get("name") or ""),
        title=str(info.get("title") or ""),
        version=str(info.get("version") or ""),
        instructions=str(result.get("instructions") or ""),
        capabilities=frozenset(capabilities) if isinstance(capabilities, dict) else frozenset(),
    )


def _header_value(text: str) -> str:
    if text.isascii() and text.isprintable() and text == text.strip() and not text.startswith("=?base64?"):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


_background: set[asyncio.Task[None]] = set()


def _in_background(work: Awaitable[None]) -> "asyncio.Task[None]":
    task = asyncio.ensure_future(work)
    _background.add(task)
    task.add_done_callback(_background.discard)
    return task
