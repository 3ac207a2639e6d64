"""One HTTP request and its response, over raw ASGI. Knows nothing of what is asked: each face reads and answers in its
own words."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import orjson

from mcpgate import jsontext
from mcpgate.api.http.headers import read_headers, refusal_headers
from mcpgate.api.http.memory import Memory
from mcpgate.errors import InvalidRequest, McpgateError, RateLimited, TooLarge, Unavailable
from mcpgate.governance.records import random_hex
from mcpgate.upstream.inflate import Inflate, Undecodable, UnknownEncoding, encodings, inflate_of

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
_LONG = 128 * 1024
"""Bytes; longer answers are counted and written in pieces."""
DISCARD_BYTES = 1024 * 1024
"""So much of a body that nobody wants is read before the connection ends."""
_FEW = 20_000
"""Values of a body that may be guessed."""
_BREATHE_EVERY, _LARGE_PIECE = 100, 16 * 1024
"""Pieces of a body that is decompressed, and bytes of one, after which other tasks get the loop."""
_ROOM_S = 5.0
"""How long a long answer waits for others to be read."""
_ROOM_STEP_S = 0.05
GONE = "mcpgate.gone"
"""Key of a scope's future that is done when the client is gone. The port sets it; other servers do not."""


class Disconnected(Exception):
    """The client is gone: nobody is left to answer."""


class UnsupportedEncoding(McpgateError):
    """A body that is compressed in a way that is not decoded here."""

    code, http_status = "invalid_request", 415


class Exchange:
    """What came, and the way to answer it."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, limit: int, memory: Memory, base_path: str = ""
    ) -> None:
        """`limit`: bytes that a body may have. `memory`: what long bodies and answers are counted in. `base_path`: the
        prefix that the gateway is served under; a proxy may have taken it away."""
        self.scope, self._receive, self._send, self.limit, self._memory = scope, receive, send, limit, memory
        self.method: str = scope["method"]
        self.root = base_path
        path: str = scope["path"]
        if base_path and (path == base_path or path.startswith(base_path + "/")):
            path = path[len(base_path) :]
        self.path: str = path.rstrip("/") or "/"
        self.headers, self.doubled = read_headers(scope["headers"])
        self.address: str | None = (scope.get("client") or (None,))[0]
        """Of the client; behind trusted proxies, what they say: see access.py."""
        self.passed_on = False
        """Whether a proxy sent it for a client that may be anywhere: see access.py."""
        self.scheme: str = scope.get("scheme", "http")
        self.challenge: Callable[[McpgateError], Mapping[str, str]] = lambda error: {}
        """The headers of a refusal that say how to sign in."""
        self.cors: str | None = None
        """The origin that may read the answer."""
        self.holder: str | None = None
        """Whom long bodies and answers are counted for, once who asks is known: the id of its key, or without one the
        address."""
        self.holds_all = False
        """Whether the holder may hold all there is, as whoever owns the machine."""
        self.id = random_hex(16)
        self.started = False
        """Whether the response has begun, so that its status is said."""
        self.filler = b": ping\r\n\r\n"
        """What fills pauses of a stream: an event-stream comment, unless its clients cannot read one."""
        self.last = False
        """Whether the connection ends with this response."""
        self._body_read = False
        self._held = 0
        """Bytes counted in memory."""
        self._gone: asyncio.Future[None] | None = None

    @property
    def may_stream(self) -> bool:
        """Whether a response may be longer than is known at its beginning."""
        return bool(self.scope.get("http_version") != "1.0")

    def query(self) -> dict[str, str]:
        """The query parameters. Raises InvalidRequest for one that occurs twice."""
        query = parse_qs(self.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        if twice := next((name for name, values in query.items() if len(values) > 1), None):
            raise InvalidRequest(f"duplicate query parameter {twice[:80]!r}")
        return {name: values[0] for name, values in query.items()}

    async def body(self) -> bytes:
        """The whole body, decompressed. To be asked for when it is known who asks; what is refused is not read. Raises
        TooLarge, UnsupportedEncoding, InvalidRequest, RateLimited, Unavailable, Disconnected."""
        inflate = self._inflate()
        body = await self._received()
        if inflate is not None:
            body = await self._inflated(body, inflate)
        if self._held:
            values = jsontext.count_values(body, jsontext.MAX_REQUEST_VALUES, rough=_FEW)
            self._hold(len(body) + values * jsontext.VALUE_BYTES)
        return body

    def _inflate(self) -> Inflate | None:
        encoding = self.headers.get("content-encoding", "").strip().lower()
        try:
            return None if encoding in ("", "identity") else inflate_of(encoding)
        except UnknownEncoding:
            accepted = ", ".join(encodings())
            raise UnsupportedEncoding(
                f"content-encoding {encoding[:80]!r} is not supported; send the body uncompressed, or as {accepted}"
            ) from None

    async def _received(self) -> bytes:
        """The body as it was sent. What comes in more than one part is counted."""
        declared = self._declared_length()
        self._check_size(declared)
        if declared > _LONG:
            self._check_memory(declared)
        event = await self._next_part()
        first: bytes = event.get("body", b"")
        self._check_size(len(first))
        if not event.get("more_body"):
            self._body_read = True
            return first
        chunks, size = [first], len(first)
        self._check_memory(size)
        self._take(size)
        while event.get("more_body"):
            event = await self._next_part()
            chunk: bytes = event.get("body", b"")
            size += len(chunk)
            self._check_size(size)
            self._check_memory(len(chunk))
            self._take(len(chunk))
            chunks.append(chunk)
        self._body_read = True
        return b"".join(chunks)

    async def _inflated(self, body: bytes, inflate: Inflate) -> bytes:
        """Nobody knows its size before: it is counted as it grows."""
        pieces, size = [], 0
        try:
            for piece in inflate.feed(body):
                size += len(piece)
                self._check_size(size)
                if size > _LONG:
                    self._check_memory(len(piece))
                    self._take(len(piece))
                pieces.append(piece)
                if len(pieces) % _BREATHE_EVERY == 0 or len(piece) > _LARGE_PIECE:
                    await asyncio.sleep(0)
        except Undecodable as error:
            raise InvalidRequest(f"the body cannot be decompressed: {error}") from None
        return b"".join(pieces)

    def keep(self, size: int) -> None:
        """Count a part of an upload that is held. Raises RateLimited, Unavailable."""
        self._check_memory(size)
        self._take(size)

    def upload_length(self) -> int:
        """Bytes of a body that `parts` brings. Raises TooLarge, UnsupportedEncoding, InvalidRequest."""
        if self._inflate() is not None:
            raise UnsupportedEncoding("uploads are passed on while they come; send this one uncompressed")
        if "content-length" not in self.headers:
            raise InvalidRequest("an upload needs a content-length")
        self._check_size(length := self._declared_length())
        return length

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """The body while it comes, for whom it is enough to see a part at a time. Raises Disconnected, TooLarge."""
        size = 0
        while not self._body_read:
            event = await self._next_part()
            part: bytes = event.get("body", b"")
            size += len(part)
            self._check_size(size)
            self._body_read = not event.get("more_body")
            yield part

    def end(self) -> None:
        """The request is over, however it ended."""
        self.release()
        if isinstance(self._gone, asyncio.Task):
            self._gone.cancel()

    def release(self) -> None:
        """The body, or the answer, is no longer kept."""
        if self._held:
            self._memory.give(self.holder or "", self._held)
            self._held = 0

    async def _next_part(self) -> Mapping[str, Any]:
        event = await self._receive()
        if event["type"] == "http.disconnect":
            raise Disconnected
        return event

    def _declared_length(self) -> int:
        text = self.headers.get("content-length", "0")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else self.limit + 1

    def _leaves_much(self) -> bool:
        """Whether a body will not be read that is long, or that waits to be asked for."""
        return not self._body_read and (self._declared_length() > DISCARD_BYTES or "expect" in self.headers)

    def _check_size(self, size: int) -> None:
        if size > self.limit:
            raise TooLarge(f"the body is over {self.limit:,} bytes (server.max_body_mib)", limit=self.limit)

    def _check_memory(self, size: int) -> None:
        memory = self._memory
        match memory.lacks(self.holder or "", size, self.holds_all):
            case "each":
                raise RateLimited(
                    f"the bodies of this key's requests that are being read or answered hold {memory.each:,} bytes, a "
                    "quarter of server.max_body_mib_in_all; wait until some are answered",
                    **{"scope": f"key {self.holder}", "limit": memory.each, "window": None, "retry_after_s": 1},
                )
            case "total":
                raise Unavailable(
                    f"the bodies of requests that are being read or answered hold {memory.total:,} bytes "
                    "(server.max_body_mib_in_all); try again shortly",
                    limit=memory.total,
                    retry_after_s=1,
                )

    def _hold(self, size: int) -> None:
        """Count a whole body with what it will be when it is decoded. Raises RateLimited, Unavailable."""
        self.release()
        self._check_memory(size)
        self._take(size)

    def _take(self, size: int) -> None:
        self._memory.take(self.holder or "", size)
        self._held += size

    @property
    def gone(self) -> asyncio.Future[None]:
        """Done when the client is gone. Shared: not to be cancelled. To be asked for when the body has been read."""
        if self._gone is None:
            self._gone = self.scope.get(GONE) or asyncio.ensure_future(self._disconnected())
        return self._gone

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def respond(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """A whole response; JSON unless the headers say otherwise."""
        fields = {"content-type": "application/json", **self._extra(), **(headers or {})}
        if not body:
            fields.pop("content-type")
        fields["content-length"] = str(len(body))
        if len(body) <= _LONG:
            await self._start(status, fields)
            await self._send({"type": "http.response.body", "body": body})
            return
        await self._hold_answer(len(body))
        await self._start(status, fields)
        try:
            async with asyncio.timeout(None) as patience:
                with self._memory.writing(patience):
                    await self._write(body, last=True, patience=patience)
        except TimeoutError:
            raise Disconnected from None

    async def refuse(self, error: McpgateError, body: Mapping[str, Any]) -> None:
        """A refusal: the contract's status and headers around a body that has the form of the face."""
        headers = {**refusal_headers(error.http_status, error.data), **self.challenge(error)}
        await self.respond(error.http_status, orjson.dumps(body, default=str), headers)

    async def start_stream(self, headers: Mapping[str, str] | None = None) -> None:
        """Begin a response of server-sent events."""
        fields = {
            "content-type": "text/event-stream",
            "cache-control": "no-cache, no-transform",
            "x-accel-buffering": "no",
        }
        await self._start(200, {**fields, **self._extra(), **(headers or {})})

    async def event(self, data: bytes, name: str = "message", last: bool = False, id: bytes = b"") -> None:
        """One event; `data` without line breaks. One without data only tells its id."""
        named = b"event: " + name.encode() + b"\r\n" if data else b""
        numbered = b"id: " + id + b"\r\n" if id else b""
        await self._write(named + numbered + b"data: " + data + b"\r\n\r\n", last)

    async def raw(self, data: bytes) -> None:
        """A part of a stream, as it is."""
        await self._write(data, last=False)

    async def piece(self, data: bytes) -> None:
        """A part of a download, which is counted while it is written if it is long. Raises Unavailable."""
        if len(data) > _LONG:
            await self._hold_answer(len(data))
        await self._write(data, last=False)
        self.release()

    async def ping(self) -> None:
        await self._send({"type": "http.response.body", "body": self.filler, "more_body": True})

    async def end_stream(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, data: bytes, last: bool, patience: asyncio.Timeout | None = None) -> None:
        """In pieces, so that what a slow client has not read is bounded beyond what is counted. `patience` begins anew
        with each of them."""
        for at in range(0, len(data) - _LONG, _LONG):
            await self._send({"type": "http.response.body", "body": data[at : at + _LONG], "more_body": True})
            if patience is not None and not patience.expired():
                patience.reschedule(None)
        rest = data[(len(data) - 1) // _LONG * _LONG :] if len(data) > _LONG else data
        await self._send({"type": "http.response.body", "body": rest, "more_body": not last})

    async def _hold_answer(self, size: int) -> None:
        """Count a long answer, when enough others have been read. Raises Unavailable when they are not."""
        self.release()
        waited_s = 0.0
        while self._memory.lacks(self.holder or "", size, self.holds_all):
            if waited_s >= _ROOM_S:
                raise Unavailable("answers that are not being read hold all memory there is for them", retry_after_s=5)
            self._memory.press()
            await asyncio.sleep(_ROOM_STEP_S)
            waited_s += _ROOM_STEP_S
        self._take(size)

    async def _start(self, status: int, fields: Mapping[str, str]) -> None:
        self.started = True
        if self.last or self._leaves_much():
            fields = {**fields, "connection": "close"}
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


def plain_refusal(error: McpgateError) -> dict[str, Any]:
    """The contract's code, message and data, where no protocol has a form for them."""
    return {"error": {"code": error.code, "message": error.message, **error.data}}


class Closing:
    """Whether the server stops, for responses that would go on."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._waiting: dict[asyncio.Future[None], float] = {}

    def set(self) -> None:
        if self._since is None:
            self._since = time.monotonic()
            for future, grace_s in self._waiting.items():
                self._end_later(future, grace_s)

    def stopped(self, grace_s: float = 0.0) -> asyncio.Future[None]:
        """Done so long after the server began to stop; to be cancelled by who no longer waits."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = grace_s
        future.add_done_callback(self._waiting.pop)
        if self._since is not None:
            self._end_later(future, grace_s)
        return future

    def _end_later(self, future: asyncio.Future[None], grace_s: float) -> None:
        def end() -> None:
            if not future.done():
                future.set_result(None)

        began = self._since or 0.0
        future.get_loop().call_later(max(0.0, began + grace_s - time.monotonic()), end)
