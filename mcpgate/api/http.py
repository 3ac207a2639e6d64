"""The HTTP face: streamable HTTP of both protocol eras, the legacy SSE transport, health. Raw ASGI, because a
framework costs more than the gateway does; uvicorn runs it.

A request is answered with plain JSON unless something has to be told before the answer is there (progress, or
15 s of silence): only then does the response become an event stream.
"""

import asyncio
import base64
import binascii
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from mcpgate import jsontext
from mcpgate.api.admin import AdminApi
from mcpgate.api.headers import governance_headers, metadata_of, refusal_headers, secret_of, user_of
from mcpgate.api.mcp import (
    HANDSHAKE_VERSIONS,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    META,
    METHOD_NOT_FOUND,
    MODERN_VERSIONS,
    PARSE_ERROR,
    UNSUPPORTED_VERSION,
    McpFace,
    Message,
    RpcFault,
    Session,
    protocol_of,
    unsupported,
)
from mcpgate.codemode.gateway import Gateway
from mcpgate.config.settings import is_loopback, needs_key
from mcpgate.errors import InvalidRequest, McpgateError, Unavailable
from mcpgate.governance.callers import Caller
from mcpgate.governance.gate import Admission
from mcpgate.governance.store import StoreAway
from mcpgate.telemetry.metrics import CONTENT_TYPE

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

_HEADER_MISMATCH = -32020
_STATUS = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    _HEADER_MISMATCH: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}
"""HTTP status of a modern answer by its JSON-RPC error code, as the 2026-07-28 transport wants; else 200."""
_PING_S = 15.0
_MAX_SESSIONS = 10_000
_MAX_SESSIONS_EACH = 1000
"""Of one key."""
_MAX_BATCH = 1000
_MAX_UNREAD = 1000
"""Notifications that wait for a client that does not read; further ones are dropped, answers never."""
_SHUTDOWN_S = 4.0
"""How long requests under way may go on when the server stops."""
_SESSION_IDLE_S = 1800.0
_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
log = logging.getLogger("mcpgate.http")


class HttpFace:
    """The ASGI application."""

    def __init__(self, gateway: Gateway, host: str = "127.0.0.1", sessions: bool = True) -> None:
        """`host`: the address listened on, which is a name that clients may use. `sessions`: False where several
        processes share the port, so that no request depends on an earlier one."""
        self._gateway, self._host, self._with_sessions = gateway, host, sessions
        self._admin = AdminApi(gateway.gate)
        self._face = McpFace(gateway)
        self._sessions = _Sessions(self._face)
        self._limit = gateway.config.server.max_body_mib * 1024 * 1024
        self.closing = asyncio.Event()
        """Set when the server stops: ends every open stream."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = _Exchange(scope, receive, send, self._limit)
        try:
            await self._route(exchange)
        except _Refused as refused:
            await exchange.respond(refused.status, refused.body, refused.headers)
        except McpgateError as error:
            body = orjson.dumps({"error": {"code": error.code, "message": error.message, **error.data}})
            await exchange.respond(error.http_status, body, refusal_headers(error.http_status, error.data))
        except ConnectionError:
            pass

    async def _route(self, http: "_Exchange") -> None:
        self._check_origin(http)
        path = http.path.rstrip("/") or "/"
        match path, http.method:
            case _, "OPTIONS":
                await http.respond(204, b"", {"access-control-max-age": "600"})
            case "/mcp", "POST":
                await self._post(http)
            case "/mcp", "GET":
                await self._standing_stream(http)
            case "/mcp", "DELETE":
                id = http.headers.get("mcp-session-id", "")
                known = self._sessions.find(id, await self._identify(http)) is not None
                await http.respond(200 if known and self._sessions.drop(id) else 404, b"")
            case "/sse", "GET":
                await self._sse(http)
            case "/messages", "POST":
                await self._sse_message(http)
            case "/api/openapi.json", "GET":
                await http.respond(200, self._admin.openapi())
            case _ if path.startswith("/api/"):
                await self._administer(http, path)
            case "/healthz", "GET":
                await http.respond(200, b'{"status":"ok"}')
            case "/readyz", "GET":
                await self._ready(http)
            case "/metrics", "GET":
                if self._needs_key and not is_loopback(self._host):
                    await self._identify(http)
                await http.respond(200, self._gateway.metrics.shown(), {"content-type": CONTENT_TYPE})
            case (("/mcp" | "/sse" | "/messages" | "/healthz" | "/readyz" | "/metrics"), _):
                raise _Refused(405, "invalid_request", f"{http.method} is not allowed on {path}")
            case _:
                raise _Refused(404, "not_found", f"no route {path}; MCP is served at /mcp (streamable HTTP) and /sse")

    @property
    def _needs_key(self) -> bool:
        return needs_key(self._gateway.config, self._host)

    def _check_origin(self, http: "_Exchange") -> None:
        """Only hosts and origins we know: a web page must not reach a gateway on its reader's machine by
        rebinding a name (and no gateway should be reached by a name it does not have)."""
        server = self._gateway.config.server
        host = http.headers.get("host", "")
        name = _hostname(f"//{host}")
        allowed = {h.lower() for h in server.allowed_hosts}
        # Who needs a key cannot be made to send it by a web page.
        anywhere = self._needs_key or (server.trust_network and self._host in ("0.0.0.0", "::"))
        if not (
            anywhere
            or _is_local(name)
            or name == self._host.lower()
            or name in allowed
            or host.lower() in allowed
            or "*" in allowed
        ):
            raise _Refused(421, "invalid_request", f"host {host!r} is not served here; add it to server.allowed_hosts")
        origin = http.headers.get("origin")
        if origin is None:
            return
        origin_name = _hostname(origin)
        if not (_is_local(origin_name) or origin in server.allowed_origins or "*" in server.allowed_origins):
            raise _Refused(403, "not_allowed", f"origin {origin!r} is not allowed; add it to server.allowed_origins")
        http.cors = origin

    async def _identify(self, http: "_Exchange") -> Caller:
        """Who is asking. Raises what the gate does, InvalidRequest for headers that cannot be read."""
        caller = await self._gateway.gate.identify(
            secret_of(http.headers),
            key_required=self._needs_key,
            address=http.address,
            metadata=metadata_of(http.headers),
            user=user_of(http.headers),
        )
        if caller.is_local and not is_loopback(self._host):
            # A trusted network may call every tool; what is declared stays with who holds an admin key.
            caller = replace(caller, grants=replace(caller.grants, admin=False))
        return replace(caller, noted=http.noted)

    async def _administer(self, http: "_Exchange", path: str) -> None:
        caller = await self._identify(http)
        query = parse_qs(http.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        if twice := next((name for name, values in query.items() if len(values) > 1), None):
            raise InvalidRequest(f"query parameter {twice[:80]!r} stands twice")
        body = await http.json(or_nothing=True) if http.method in ("POST", "PUT", "PATCH") else None
        try:
            reply = await self._admin.answer(caller, http.method, path, {n: v[0] for n, v in query.items()}, body)
        except StoreAway as error:
            raise Unavailable("the store is away; try again soon") from error
        await http.respond(reply.status, reply.body, {"content-type": reply.content_type, "cache-control": "no-store"})

    # --- streamable HTTP

    async def _post(self, http: "_Exchange") -> None:
        caller = await self._identify(http)
        message = await http.json()
        version = http.headers.get("mcp-protocol-version")
        params = message.get("params") if isinstance(message, dict) else None
        if version in MODERN_VERSIONS or (protocol_of(params) is not None and message.get("method") != "initialize"):
            await self._post_modern(http, caller, message, version)
        else:
            await self._post_legacy(http, caller, message)

    async def _post_modern(self, http: "_Exchange", caller: Caller, message: Any, version: str | None) -> None:
        """A self-contained request: no session; closing the response cancels it."""
        if not isinstance(message, dict) or "method" not in message:
            await http.rpc(
                RpcFault(INVALID_REQUEST, "the body must be one JSON-RPC request or notification").to_wire(None), 400
            )
            return
        if "id" not in message:
            await http.respond(202, b"")
            return
        if fault := _modern_fault(message, version, http):
            id = message["id"]
            await http.rpc(fault.to_wire(id if isinstance(id, (str, int)) else None), _STATUS.get(fault.code, 400))
            return
        session = Session(self._face, lambda _: None, caller)
        try:
            await self._exchange(http, caller, session, message, modern=True)
        finally:
            session.close()

    async def _post_legacy(self, http: "_Exchange", caller: Caller, message: Any) -> None:
        version = http.headers.get("mcp-protocol-version")
        if version is not None and version not in HANDSHAKE_VERSIONS:
            known = [*HANDSHAKE_VERSIONS, *MODERN_VERSIONS]
            fault = RpcFault(
                UNSUPPORTED_VERSION, "Unsupported protocol version", {"supported": known, "requested": version}
            )
            await http.rpc(fault.to_wire(None), 400)
            return
        id = http.headers.get("mcp-session-id") if self._with_sessions else None
        session = self._sessions.find(id, caller) if id else None
        if id and session is None:
            fault = RpcFault(INVALID_REQUEST, "this session has ended or never was; send initialize again")
            await http.rpc(fault.to_wire(None), 404)
            return
        if isinstance(message, list):
            await self._legacy_batch(http, caller, session or Session(self._face, lambda _: None, caller), message)
            return
        if not isinstance(message, dict):
            await http.rpc(RpcFault(INVALID_REQUEST, "the body must be a JSON-RPC message").to_wire(None), 400)
            return
        if "id" not in message or "method" not in message:
            if session is not None:
                session.receive(message)
            await http.respond(202, b"")
            return
        headers = {}
        if message.get("method") == "initialize" and self._with_sessions:
            new_id, session = self._sessions.new(caller)
            headers["mcp-session-id"] = new_id
        # Without a session a request still gets its answer; it only cannot be cancelled by another message.
        await self._exchange(http, caller, session or Session(self._face, lambda _: None, caller), message, headers)

    async def _legacy_batch(self, http: "_Exchange", caller: Caller, session: Session, messages: list[Any]) -> None:
        answers: list[Message] = []
        tasks = []
        if not messages or len(messages) > _MAX_BATCH:
            fault = RpcFault(INVALID_REQUEST, f"a batch holds 1 to {_MAX_BATCH} messages, not {len(messages)}")
            await http.rpc(fault.to_wire(None), 400)
            return
        for message in messages:
            if isinstance(message, dict) and "id" not in message and "method" in message:
                session.receive(message)
            else:
                tasks.append(session.start(message, lambda m: answers.append(m) if "method" not in m else None, caller))
        waiting = [task for task in tasks if task is not None]
        if waiting:
            await asyncio.wait(waiting)
        await http.respond(200, jsontext.dumps(answers)) if answers else await http.respond(202, b"")

    async def _exchange(
        self,
        http: "_Exchange",
        caller: Caller,
        session: Session,
        message: Message,
        headers: Mapping[str, str] | None = None,
        modern: bool = False,
    ) -> None:
        """One request and its answer, as JSON or, from the first notification on, as an event stream."""
        outbox: asyncio.Queue[Message] = asyncio.Queue()
        task = session.start(message, outbox.put_nowait, caller)
        gone = asyncio.ensure_future(http.disconnected())
        closing = asyncio.ensure_future(self._end_of_grace(message.get("method") == "subscriptions/listen"))
        accept = http.headers.get("accept", "")
        streams = "text/event-stream" in accept or "*/*" in accept
        streaming = False

        async def write(sent: Message) -> bool:
            """Whether that was the answer."""
            nonlocal streaming
            last = "method" not in sent
            if last and not streaming:
                status = _STATUS.get(sent.get("error", {}).get("code"), 200) if modern else 200
                await http.rpc(sent, status, {**(headers or {}), **governance_headers(http.noted, sent)})
                return True
            if streams:
                if not streaming:
                    streaming = True
                    await http.start_stream(headers)
                await http.event(_with_headers(sent, http.noted) if last else sent, last)
            return last

        try:
            while True:
                item = asyncio.ensure_future(outbox.get())
                waiting = {item, gone, closing, *([task] if task is not None and not task.done() else [])}
                await asyncio.wait(waiting, timeout=_PING_S, return_when=asyncio.FIRST_COMPLETED)
                if item.done():
                    if await write(item.result()):
                        return
                    continue
                item.cancel()
                if gone.done():
                    if task is not None and modern:
                        task.cancel()  # of the handshake era only notifications/cancelled cancels
                    return
                if closing.done():
                    if task is not None:
                        task.cancel()
                    data = {"code": "unavailable"}
                    fault = RpcFault(INTERNAL_ERROR, "the gateway is shutting down", data).to_wire(message.get("id"))
                    await http.event(fault, last=True) if streaming else await http.rpc(fault, 503)
                    return
                if task is None or task.done():
                    while not outbox.empty():
                        if await write(outbox.get_nowait()):
                            return
                    # Cancelled by another message: the protocol wants no answer, HTTP wants an end.
                    await http.end_stream() if streaming else await http.respond(202, b"")
                    return
                if streams:
                    if not streaming:
                        streaming = True
                        await http.start_stream(headers)
                    await http.ping()
        finally:
            gone.cancel()
            closing.cancel()

    async def _end_of_grace(self, at_once: bool) -> None:
        await self.closing.wait()
        if not at_once:
            await asyncio.sleep(_SHUTDOWN_S)

    async def _standing_stream(self, http: "_Exchange") -> None:
        """GET /mcp of the handshake era: what the server tells of its own accord."""
        if http.headers.get("mcp-protocol-version") in MODERN_VERSIONS:
            raise _Refused(405, "invalid_request", "this revision has no GET stream; send subscriptions/listen")
        id = http.headers.get("mcp-session-id", "")
        caller = await self._identify(http)
        if self._sessions.find(id, caller) is None:
            raise _Refused(404 if id else 400, "not_found", "GET needs the mcp-session-id of a live session")
        await self._stream(http, caller, id)

    async def _stream(self, http: "_Exchange", caller: Caller, id: str) -> None:
        """What comes for a session, until one side ends; as long as it is open the session does not expire."""
        outbox = self._sessions.outbox(id)
        await http.start_stream()
        gone = asyncio.ensure_future(http.disconnected())
        closing = asyncio.ensure_future(self.closing.wait())
        try:
            while not gone.done() and not closing.done():
                item = asyncio.ensure_future(outbox.get())
                await asyncio.wait((item, gone, closing), timeout=_PING_S, return_when=asyncio.FIRST_COMPLETED)
                if item.done():
                    await http.event(item.result())
                else:
                    item.cancel()
                    await self._identify(http)  # a key that was revoked meanwhile hears no more
                    self._sessions.find(id, caller)
                    await http.ping()
            await http.end_stream()
        except McpgateError:
            await http.end_stream()
        finally:
            gone.cancel()
            closing.cancel()

    # --- the legacy SSE transport

    async def _sse(self, http: "_Exchange") -> None:
        if not self._with_sessions:
            raise _Refused(404, "not_found", "several workers share this port; the SSE transport needs --workers 1")
        caller = await self._identify(http)
        id, session = self._sessions.new(caller)
        outbox = self._sessions.outbox(id)
        session.send = lambda message: _offer(outbox, message)
        root = http.scope.get("root_path", "")
        try:
            outbox.put_nowait({"endpoint": f"{root}/messages?session_id={id}"})
            await self._stream(http, caller, id)
        finally:
            self._sessions.drop(id)

    async def _sse_message(self, http: "_Exchange") -> None:
        id = parse_qs(http.scope.get("query_string", b"").decode()).get("session_id", [""])[0]
        caller = await self._identify(http)
        session = self._sessions.find(id, caller)
        if session is None:
            raise _Refused(404, "not_found", "no such session; open GET /sse first")
        session.caller = caller
        session.receive(await http.json())
        await http.respond(202, b"Accepted", {"content-type": "text/plain"})

    async def _ready(self, http: "_Exchange") -> None:
        views = self._gateway.pool.views()
        starting = any(view.state == "connecting" and not view.reason for view in views)
        answer: dict[str, Any] = {"ready": not starting}
        if not self._needs_key:  # else whoever asks is nobody we know
            answer["upstreams"] = {view.name: view.state for view in views}
        await http.respond(503 if starting else 200, orjson.dumps(answer))


class _Sessions:
    """Sessions of the handshake era: bounded in number, ended when idle, each its caller's own."""

    def __init__(self, face: McpFace) -> None:
        self._face = face
        self._table: OrderedDict[str, tuple[Session, asyncio.Queue[Message], float]] = OrderedDict()

    def new(self, caller: Caller) -> tuple[str, Session]:
        self._expire()
        own = [id for id, (session, _, _) in self._table.items() if session.caller.id == caller.id]
        if len(own) >= _MAX_SESSIONS_EACH and not caller.is_local:
            self.drop(own[0])  # the longest unused of its own, before anybody else's
        id = secrets.token_urlsafe(24)
        outbox: asyncio.Queue[Message] = asyncio.Queue()
        session = Session(self._face, lambda _: None, caller, announce=lambda m: _offer(outbox, m))
        self._table[id] = (session, outbox, time.monotonic())
        return id, session

    def find(self, id: str, caller: Caller) -> Session | None:
        """A session of this caller's; another's is none, for its id is no secret that opens anything."""
        entry = self._table.get(id)
        if entry is None or entry[0].caller.owner != caller.owner:
            return None
        self._table[id] = (entry[0], entry[1], time.monotonic())
        self._table.move_to_end(id)
        return entry[0]

    def outbox(self, id: str) -> "asyncio.Queue[Message]":
        return self._table[id][1]

    def drop(self, id: str) -> bool:
        entry = self._table.pop(id, None)
        if entry is not None:
            entry[0].close()
        return entry is not None

    def _expire(self) -> None:
        horizon = time.monotonic() - _SESSION_IDLE_S
        for id, (session, _, used) in list(self._table.items()):
            if used > horizon and len(self._table) < _MAX_SESSIONS:
                break
            if not session.tasks:
                self.drop(id)


def _with_headers(answer: Message, noted: list[Admission]) -> Message:
    """A streamed answer, with what it learnt too late for the response's headers."""
    late = governance_headers(noted, answer)
    result = answer.get("result")
    if not late or not isinstance(result, dict):
        return answer
    meta = result.get("_meta")
    kept = meta if isinstance(meta, dict) else {}
    return {**answer, "result": {**result, "_meta": {**kept, "mcpgate/headers": late}}}


def _offer(outbox: "asyncio.Queue[Message]", message: Message) -> None:
    """Queue a message for a client that may not be reading."""
    if "method" not in message or outbox.qsize() < _MAX_UNREAD:
        outbox.put_nowait(message)


def _modern_fault(message: Message, version: str | None, http: "_Exchange") -> RpcFault | None:
    """What the headers of a modern request contradict in its body."""
    named = protocol_of(message.get("params"))
    if named is None:
        return RpcFault(INVALID_PARAMS, f"params._meta must carry {META}protocolVersion and {META}clientCapabilities")
    if version != named:
        return RpcFault(_HEADER_MISMATCH, "the mcp-protocol-version header differs from the body's protocol version")
    if http.headers.get("mcp-method") != message.get("method"):
        return RpcFault(_HEADER_MISMATCH, "the mcp-method header differs from the body's method")
    key = _NAMED.get(str(message.get("method")))
    value = message["params"].get(key) if key else None
    if value is not None and _decoded(http.headers.get("mcp-name")) != value:
        return RpcFault(_HEADER_MISMATCH, f"the mcp-name header differs from the body's {key}")
    if version not in MODERN_VERSIONS:
        return unsupported(version)
    return None


def _decoded(value: str | None) -> str | None:
    if value is not None and value.startswith("=?base64?") and value.endswith("?="):
        try:
            return base64.b64decode(value[9:-2], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
    return value


def _hostname(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""


def _is_local(name: str) -> bool:
    return is_loopback(name) or name.endswith(".localhost")


class _Refused(Exception):
    """An HTTP refusal, in the contract's words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = orjson.dumps({"error": {"code": code, "message": message}})
        self.headers = {"allow": "GET, POST, DELETE"} if status == 405 else {}


class _Exchange:
    """One HTTP request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        self.scope, self._receive, self._send, self._limit = scope, receive, send, limit
        self.method: str = scope["method"]
        self.path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        self.headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        self.cors: str | None = None
        self.address: str | None = (scope.get("client") or (None,))[0]
        self.noted: list[Admission] = []
        self._id = secrets.token_hex(8)

    async def json(self, or_nothing: bool = False) -> Any:
        """The body, decoded; with `or_nothing`, None for an empty one. Raises _Refused."""
        chunks, size = [], 0
        while True:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise ConnectionError
            size += len(event.get("body", b""))
            if size > self._limit:
                raise _Refused(413, "too_large", f"the body is over {self._limit:,} bytes (server.max_body_mib)")
            chunks.append(event.get("body", b""))
            if not event.get("more_body"):
                break
        if or_nothing and not any(chunks):
            return None
        try:
            return jsontext.loads(b"".join(chunks))
        except ValueError as error:
            if or_nothing:
                raise InvalidRequest(f"the body is no JSON: {error}") from None
            fault = _Refused(400, "invalid_request", "")
            fault.body = jsontext.dumps(RpcFault(PARSE_ERROR, f"Parse error: {error}").to_wire(None))
            raise fault from None

    async def disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def respond(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        fields = {"content-type": "application/json", **self._extra(), **(headers or {})}
        if not body:
            fields.pop("content-type")
        fields["content-length"] = str(len(body))
        await self._start(status, fields)
        await self._send({"type": "http.response.body", "body": body})

    async def rpc(self, message: Message, status: int, headers: Mapping[str, str] | None = None) -> None:
        accept = self.headers.get("accept", "")
        if status == 200 and "text/event-stream" in accept and "application/json" not in accept and "*/*" not in accept:
            await self.start_stream(headers)
            await self.event(message, last=True)
            return
        await self.respond(status, jsontext.dumps(message), headers)

    async def start_stream(self, headers: Mapping[str, str] | None = None) -> None:
        fields = {
            "content-type": "text/event-stream",
            "cache-control": "no-cache, no-transform",
            "x-accel-buffering": "no",
        }
        await self._start(200, {**fields, **self._extra(), **(headers or {})})

    async def event(self, message: Message, last: bool = False) -> None:
        if "endpoint" in message and "jsonrpc" not in message:
            data = f"event: endpoint\r\ndata: {message['endpoint']}\r\n\r\n".encode()
        else:
            data = b"event: message\r\ndata: " + jsontext.dumps(message) + b"\r\n\r\n"
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    async def ping(self) -> None:
        await self._send({"type": "http.response.body", "body": b": ping\r\n\r\n", "more_body": True})

    async def end_stream(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, status: int, fields: Mapping[str, str]) -> None:
        wire = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in fields.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": wire})

    def _extra(self) -> dict[str, str]:
        own = {"x-request-id": self._id}
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
