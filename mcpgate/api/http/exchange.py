"""One HTTP request and its response, over raw ASGI. Knows nothing of what is asked: each face reads and answers in its
own words."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import orjson

from mcpgate.api.http.headers import refusal_headers
from mcpgate.errors import InvalidRequest, McpgateError, TooLarge

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class Disconnected(Exception):
    """The client is gone: nobody is left to answer."""


class Exchange:
    """What came, and the way to answer it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        """`limit`: bytes that a body may have."""
        self.scope, self._receive, self._send, self._limit = scope, receive, send, limit
        self.method: str = scope["method"]
        self.root: str = scope.get("root_path", "")
        """The prefix that a proxy has taken away."""
        self.path: str = scope["path"].removeprefix(self.root).rstrip("/") or "/"
        self.headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        self.address: str | None = (scope.get("client") or (None,))[0]
        self.cors: str | None = None
        """The origin that may read the answer."""
        self.id = secrets.token_hex(8)
        self.started = False
        """Whether the response has begun, so that its status is said."""

    def query(self) -> dict[str, str]:
        """The query parameters. Raises InvalidRequest for one that occurs twice."""
        query = parse_qs(self.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        if twice := next((name for name, values in query.items() if len(values) > 1), None):
            raise InvalidRequest(f"duplicate query parameter {twice[:80]!r}")
        return {name: values[0] for name, values in query.items()}

    async def body(self) -> bytes:
        """Raises TooLarge, Disconnected."""
        chunks, size = [], 0
        while True:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise Disconnected
            size += len(event.get("body", b""))
            if size > self._limit:
                raise TooLarge(f"the body is over {self._limit:,} bytes (server.max_body_mib)", limit=self._limit)
            chunks.append(event.get("body", b""))
            if not event.get("more_body"):
                return b"".join(chunks)

    async def disconnected(self) -> None:
        """Returns when the client is gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def respond(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """A whole response; JSON unless the headers say otherwise."""
        fields = {"content-type": "application/json", **self._extra(), **(headers or {})}
        if not body:
            fields.pop("content-type")
        fields["content-length"] = str(len(body))
        await self._start(status, fields)
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, error: McpgateError, headers: Mapping[str, str] | None = None) -> None:
        """The refusal of routes that no protocol has a form for: the contract's code, message and data as JSON."""
        body = orjson.dumps({"error": {"code": error.code, "message": error.message, **error.data}}, default=str)
        await self.respond(
            error.http_status, body, {**refusal_headers(error.http_status, error.data), **(headers or {})}
        )

    async def start_stream(self, headers: Mapping[str, str] | None = None) -> None:
        """Begin a response of server-sent events."""
        fields = {
            "content-type": "text/event-stream",
            "cache-control": "no-cache, no-transform",
            "x-accel-buffering": "no",
        }
        await self._start(200, {**fields, **self._extra(), **(headers or {})})

    async def event(self, data: bytes, name: str = "message", last: bool = False) -> None:
        """One event; `data` without line breaks."""
        event = b"event: " + name.encode() + b"\r\ndata: " + data + b"\r\n\r\n"
        await self._send({"type": "http.response.body", "body": event, "more_body": not last})

    async def ping(self) -> None:
        await self._send({"type": "http.response.body", "body": b": ping\r\n\r\n", "more_body": True})

    async def end_stream(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, status: int, fields: Mapping[str, str]) -> None:
        self.started = True
        wire = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in fields.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": wire})

    def _extra(self) -> dict[str, str]:
        own = {"x-request-id": self.id}
        if self.cors is None:
            return own
        return {
            **own,
            "access-control-allow-origin": self.cors,
            "access-control-allow-headers": "*, authorization, content-type, mcp-session-id, mcp-protocol-version",
            "access-control-allow-methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
            "access-control-expose-headers": "*, mcp-session-id",
            "vary": "origin",
        }


class Closing:
    """Whether the server stops, for responses that would go on."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, grace_s: float = 0.0) -> None:
        """Returns so long after the server began to stop."""
        await self._event.wait()
        if grace_s:
            await asyncio.sleep(grace_s)
