"""Streamable HTTP of both protocol eras.

A request is answered with plain JSON unless something has to be told before the answer is there (progress, or
15 s of silence): only then does the response become an event stream.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mcpgate import jsontext
from mcpgate.api.http.access import Access
from mcpgate.api.http.exchange import Closing, Disconnected, Exchange
from mcpgate.api.http.headers import governance_headers
from mcpgate.api.http.routing import Face, Handler, MethodNotAllowed
from mcpgate.api.mcp.face import McpFace
from mcpgate.api.mcp.outbox import Outbox, wire
from mcpgate.api.mcp.protocol import (
    HANDSHAKE_VERSIONS,
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    META,
    METHOD_NOT_FOUND,
    MISSING_CAPABILITY,
    MODERN_VERSIONS,
    PARSE_ERROR,
    UNSUPPORTED_VERSION,
    Message,
    RpcFault,
    decode,
    id_of,
    is_notification,
    is_response,
    malformed,
    protocol_of,
    refusal,
    unsupported,
)
from mcpgate.api.mcp.replay import Event, Replay, Stream
from mcpgate.api.mcp.session import MAX_BATCH, Requests, Session
from mcpgate.api.mcp.sessions import OpenSession, Sessions
from mcpgate.errors import InvalidRequest, McpgateError, NotAllowed, NotFound, TooLarge, Unavailable
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext, Trail
from mcpgate.upstream.connection import NAMED
from mcpgate.upstream.param_headers import decoded
from mcpgate.upstream.untrusted import OURS

_STATUS = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    MISSING_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}
"""HTTP status of a modern answer by its JSON-RPC error code, as the 2026-07-28 transport wants; else 200."""
_PING_S = 15.0
_BEGIN_S = 2.0
"""After which a response of the handshake era becomes a stream that can be resumed."""
_NEEDS_STREAMS = "event streams need HTTP/1.1 (for nginx: proxy_http_version 1.1)"
_NOTHING_YET: tuple[bytes, Message] = (b"", {})
_RIGHTS_S = 1.0
"""How often a standing stream asks whether its caller may still listen."""
_BATCH_BYTES = 16 * 1024 * 1024
"""Of the answers to one batch; those beyond are errors."""
_SHUTDOWN_S = 4.0
"""How long requests under way may go on when the server stops."""


class StreamableHttp(Face):
    """The face at /mcp, and at /mcp/NAME for each bundle."""

    def __init__(self, face: McpFace, access: Access, sessions: Sessions | None, closing: Closing) -> None:
        """`sessions`: None where several processes share the port, so that no request depends on an earlier one."""
        self._face, self._access, self._sessions, self._closing = face, access, sessions, closing
        self._keepers: set[asyncio.Task[None]] = set()

    def handler(self, path: str) -> Mapping[str, Handler] | None:
        if path == "/mcp" or path.startswith("/mcp/"):
            return {"POST": self._post, "GET": self._listen, "DELETE": self._end_session}
        return None

    def refusal(self, error: McpgateError) -> Message:
        return refusal(error).to_wire(None)

    async def _caller(self, http: Exchange) -> Caller:
        return await caller_at(http, self._access, self._face, "/mcp")

    async def _end_session(self, http: Exchange) -> None:
        id, caller = http.headers.get("mcp-session-id", ""), await self._caller(http)
        sessions = self._sessions
        known = sessions is not None and sessions.find(id, caller) is not None and sessions.drop(id)
        await http.respond(200 if known else 404)

    async def _post(self, http: Exchange) -> None:
        context = await self._access.context(http)
        context.caller = self._face.gateway.entering(context.caller, bundle_of(http.path, "/mcp"))
        body = await http.body()
        try:
            message = decode(body)
        except RpcFault as fault:
            await http.respond(400, jsontext.dumps(fault.to_wire(None)))
            return
        version = http.headers.get("mcp-protocol-version")
        params = message.get("params") if isinstance(message, dict) else None
        if version in MODERN_VERSIONS or (protocol_of(params) is not None and message.get("method") != "initialize"):
            await self._post_modern(http, context, message, version)
        else:
            await self._post_legacy(http, context, message)

    async def _post_modern(self, http: Exchange, context: RequestContext, message: Any, version: str | None) -> None:
        """A self-contained request: no session; closing the response cancels it."""
        if is_notification(message):
            await http.respond(202)
            return
        if (fault := malformed(message)) is not None:
            await _respond(http, fault.to_wire(id_of(message)), 400)
            return
        wrong = _modern_fault(message, version, http)
        if wrong is None and message["method"] == "tools/call":
            wrong = self._face.header_fault(context.caller, message["params"], http.headers)
        if wrong is not None:
            await _respond(http, wrong.to_wire(id_of(message)), _STATUS.get(wrong.code, 400))
            return
        requests = Requests(self._face)
        try:
            await self._exchange(http, context, requests, message, modern=True)
        finally:
            requests.close()

    async def _post_legacy(self, http: Exchange, context: RequestContext, message: Any) -> None:
        version = http.headers.get("mcp-protocol-version")
        if version is not None and version not in HANDSHAKE_VERSIONS:
            known = [*HANDSHAKE_VERSIONS, *MODERN_VERSIONS]
            unknown = RpcFault(
                UNSUPPORTED_VERSION, "Unsupported protocol version", {"supported": known, "requested": version}
            )
            await _respond(http, unknown.to_wire(None), 400)
            return
        opened = None
        begins = isinstance(message, dict) and message.get("method") == "initialize"
        # Clients that come back often send initialize with the id of a session that has ended.
        if self._sessions is not None and not begins and (id := http.headers.get("mcp-session-id")):
            opened = self._sessions.find(id, context.caller)
            if opened is None:
                ended = RpcFault(INVALID_REQUEST, "this session has ended or never existed; send initialize again")
                await _respond(http, ended.to_wire(None), 404)
                return
        # Without a session a request still gets its answer; it only cannot be cancelled by another message.
        requests = Requests(self._face) if opened is None else opened.session
        if isinstance(message, list):
            await self._batch(http, context, opened, requests, message)
            return
        if is_notification(message) or is_response(message):
            if opened is not None:
                opened.session.receive(message)
            await http.respond(202)
            return
        if (fault := malformed(message)) is not None:
            await _respond(http, fault.to_wire(id_of(message)), 400)
            return
        headers = {}
        if begins and self._sessions is not None:
            opened = self._sessions.new(context.caller)
            requests, headers["mcp-session-id"] = opened.session, opened.id
        await self._exchange(http, context, requests, message, headers, opened=opened)

    async def _batch(
        self,
        http: Exchange,
        context: RequestContext,
        opened: OpenSession | None,
        requests: Requests,
        messages: list[Any],
    ) -> None:
        if not messages or len(messages) > MAX_BATCH:
            fault = RpcFault(INVALID_REQUEST, f"a batch holds 1 to {MAX_BATCH} messages, not {len(messages)}")
            await _respond(http, fault.to_wire(None), 400)
            return
        answers = _Answers()
        tasks = []
        for message in messages:
            if is_notification(message) or is_response(message):
                if opened is not None:
                    opened.session.receive(message)
            elif isinstance(message, dict) and message.get("method") == "subscriptions/listen":
                fault = RpcFault(INVALID_REQUEST, "a subscription has no end, so it cannot be part of a batch")
                answers.collect(fault.to_wire(id_of(message)))
            else:
                tasks.append(requests.start(message, answers.collect, replace(context, trail=Trail())))
        waiting = [task for task in tasks if task is not None]
        if waiting:
            await asyncio.wait(waiting)
        await http.respond(200, answers.to_wire()) if answers.parts else await http.respond(202)

    async def _exchange(
        self,
        http: Exchange,
        context: RequestContext,
        requests: Requests,
        message: Message,
        headers: Mapping[str, str] | None = None,
        modern: bool = False,
        opened: OpenSession | None = None,
    ) -> None:
        """One request and its answer."""
        outbox = Outbox()
        answer = _Answer(http, context.trail, headers or {}, modern, None if opened is None else opened.replay)

        def send(sent: Message) -> None:
            # A client that takes no stream here may have one open for its session.
            if "method" in sent and "id" in sent and not answer.may_stream and isinstance(requests, Session):
                requests.announce(sent)
            else:
                outbox.put(sent)

        task = requests.start(message, send, context, modern)
        grace_s = 0.0 if message.get("method") == "subscriptions/listen" else _SHUTDOWN_S
        gone, closing = http.gone, self._closing.stopped(grace_s)
        rights = _Rights(self._access, lambda: context.caller)
        silent_since = rights.asked
        try:
            while True:
                item = asyncio.ensure_future(outbox.get())
                waiting: set[asyncio.Future[Any]] = {item, gone, closing}
                if task is not None and not task.done():
                    waiting.add(task)
                pause_s = min(rights.pause_s, answer.begins_in_s)
                await asyncio.wait(waiting, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
                if not await rights.are_good():
                    item.cancel()
                    await self._stop(task)
                    lost = NotAllowed("the key or token of this request is no longer valid", key=context.caller.id)
                    await answer.fail(message.get("id"), lost)
                    return
                if item.done():
                    found = item.result()
                    if found is None:  # the client has left too much unread
                        await self._stop(task)
                        await answer.end_without()
                        return
                    if await answer.write(*found):
                        return
                    silent_since = time.monotonic()
                    continue
                item.cancel()
                if gone.done():
                    if task is not None and modern:
                        task.cancel()  # of the handshake era only notifications/cancelled cancels
                    if task is not None and answer.stream is not None:
                        self._outlive(task, outbox, answer, rights)
                    return
                if closing.done():
                    if task is not None:
                        task.cancel()
                    await answer.fail(message.get("id"), Unavailable("the gateway is shutting down"))
                    return
                if task is None or task.done():
                    while (found := outbox.get_nowait()) is not None:
                        if await answer.write(*found):
                            return
                    await answer.end_without()
                    return
                await answer.begin()
                if time.monotonic() - silent_since >= _PING_S:
                    await answer.ping()
                    silent_since = time.monotonic()
        except Disconnected:
            if task is not None and answer.stream is not None:
                self._outlive(task, outbox, answer, rights)
            raise
        finally:
            closing.cancel()

    def _outlive(self, task: "asyncio.Task[Any]", outbox: Outbox, answer: "_Answer", rights: "_Rights") -> None:
        """Go on with a request whose stream broke, for the client to come back."""
        keeper = asyncio.create_task(self._keep(task, outbox, answer, rights))
        self._keepers.add(keeper)
        keeper.add_done_callback(self._keepers.discard)

    async def _keep(self, task: "asyncio.Task[Any]", outbox: Outbox, answer: "_Answer", rights: "_Rights") -> None:
        stream, item = answer.stream, None
        assert stream is not None
        try:
            while not stream.ended:
                item = asyncio.ensure_future(outbox.get())
                await asyncio.wait({item, task}, timeout=rights.pause_s, return_when=asyncio.FIRST_COMPLETED)
                if not await rights.are_good():
                    await self._stop(task)
                    return
                found = item.result() if item.done() else outbox.get_nowait() if task.done() else _NOTHING_YET
                item.cancel()
                if found is None or (found is not _NOTHING_YET and answer.keep(*found)):
                    return
        finally:
            if item is not None:
                item.cancel()
            stream.end()

    async def _stop(self, task: asyncio.Task[Any] | None) -> None:
        if task is not None:
            task.cancel()
            await asyncio.wait((task,), timeout=_RIGHTS_S)

    async def _listen(self, http: Exchange) -> None:
        """GET of the handshake era: what the server tells of its own accord."""
        if http.headers.get("mcp-protocol-version") in MODERN_VERSIONS:
            raise MethodNotAllowed("this revision has no GET stream; send subscriptions/listen", allow="POST")
        id = http.headers.get("mcp-session-id", "")
        caller = await self._caller(http)
        opened = None if self._sessions is None else self._sessions.find(id, caller)
        if opened is None or self._sessions is None:
            message = "GET needs the mcp-session-id of a live session"
            raise NotFound(message) if id else InvalidRequest(message)
        found = opened.replay.find(http.headers.get("last-event-id", ""))
        if found is not None and found[0] is not opened.replay.standing:
            await self._replay(http, opened, caller, *found)
            return
        missed = [] if found is None else opened.replay.after(*found)
        await stream(http, self._access, self._sessions, opened, caller, self._closing, missed=missed)

    async def _replay(
        self, http: Exchange, opened: OpenSession, caller: Caller, missed: Stream, last_event: int
    ) -> None:
        """The rest of a response whose stream broke."""
        if not http.may_stream:
            raise InvalidRequest(_NEEDS_STREAMS)
        with self._access.standing_stream(caller):
            await http.start_stream()
            gone, stopped = http.gone, self._closing.stopped()
            more = missed.changes.next()
            rights = _Rights(self._access, lambda: opened.session.caller)
            silent_since = rights.asked
            try:
                while not gone.done() and not stopped.done() and await rights.are_good():
                    more = missed.changes.next()
                    ended, events, last_event = missed.ended, opened.replay.after(missed, last_event), missed.last
                    for id, data in events:
                        await http.event(data, id=id)
                        silent_since = time.monotonic()
                    if ended:
                        break
                    waiting = (more, gone, stopped)
                    await asyncio.wait(waiting, timeout=rights.pause_s, return_when=asyncio.FIRST_COMPLETED)
                    more.cancel()
                    if time.monotonic() - silent_since >= _PING_S:
                        await http.ping()
                        silent_since = time.monotonic()
                await http.end_stream()
            finally:
                more.cancel()
                stopped.cancel()


def bundle_of(path: str, root: str) -> str | None:
    """The bundle that a path names; None at the root."""
    return path.removeprefix(root).strip("/") or None


async def caller_at(http: Exchange, access: Access, face: McpFace, root: str) -> Caller:
    """Who is asking, at the address of a bundle or of the whole gateway."""
    return face.gateway.entering(await access.identify(http), bundle_of(http.path, root))


async def stream(
    http: Exchange,
    access: Access,
    sessions: Sessions,
    opened: OpenSession,
    caller: Caller,
    closing: Closing,
    endpoint: str | None = None,
    missed: Sequence[Event] = (),
) -> None:
    """What comes for a session, until one side ends, the caller loses its rights or leaves too much unread; as long as
    it is open the session does not expire. `endpoint`: where the legacy SSE transport takes messages. `missed`: events
    of an earlier stream that the client asks for again."""
    if not http.may_stream:
        raise InvalidRequest(_NEEDS_STREAMS)
    with access.standing_stream(caller):
        await http.start_stream()
        if endpoint is not None:
            await http.event(endpoint.encode(), "endpoint")
        for id, data in missed:
            await http.event(data, id=id)
        gone, stopped = http.gone, closing.stopped()
        rights = _Rights(access, lambda: opened.session.caller)
        silent_since = rights.asked
        try:
            while not gone.done() and not stopped.done():
                item = asyncio.ensure_future(opened.outbox.get())
                await asyncio.wait((item, gone, stopped), timeout=_RIGHTS_S, return_when=asyncio.FIRST_COMPLETED)
                if not await rights.are_good():
                    item.cancel()
                    sessions.drop(opened.id)
                    break
                if item.done():
                    found = item.result()
                    if found is None:
                        sessions.drop(opened.id)
                        break
                    id = b"" if endpoint is not None else opened.replay.standing.add(found[0])
                    await http.event(found[0], id=id)
                    silent_since = time.monotonic()
                    continue
                item.cancel()
                if time.monotonic() - silent_since >= _PING_S:
                    sessions.find(opened.id, caller)
                    await http.ping()
                    silent_since = time.monotonic()
            await http.end_stream()
        finally:
            stopped.cancel()


class _Rights:
    """Whether the caller of an open response may still have it, asked as often as that can have changed."""

    def __init__(self, access: Access, caller: Callable[[], Caller]) -> None:
        """`caller`: as it is by now; a session gets a newer token with a later request."""
        self._access, self._caller = access, caller
        self.asked = time.monotonic()
        self.pause_s = _PING_S if caller().is_local else _RIGHTS_S

    async def are_good(self) -> bool:
        if self._caller().is_local or time.monotonic() - self.asked < _RIGHTS_S:
            return True
        self.asked = time.monotonic()
        return await self._access.still_admitted(self._caller())


class _Answers:
    """The answers to one batch."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._size = 0

    def collect(self, message: Message) -> None:
        if "method" in message:
            return
        if self._size <= _BATCH_BYTES:
            data = wire(message)
            self._size += len(data)
        if self._size > _BATCH_BYTES:
            error = TooLarge(f"the answers to this batch are over {_BATCH_BYTES:,} bytes", limit=_BATCH_BYTES)
            data = jsontext.dumps(refusal(error).to_wire(message.get("id")))
        self.parts.append(data)

    def to_wire(self) -> bytes:
        return b"[" + b",".join(self.parts) + b"]"


class _Answer:
    """The response to one request: plain until something must be said before the answer, then a stream."""

    def __init__(
        self, http: Exchange, trail: Trail, headers: Mapping[str, str], modern: bool, replay: Replay | None
    ) -> None:
        """`replay`: keeps what the stream says, where its client can ask for it again."""
        self._http, self._trail, self._headers, self._modern, self._replay = http, trail, headers, modern, replay
        self._began = time.monotonic()
        self.stream: Stream | None = None
        """What is kept, once there is a stream."""
        accept = http.headers.get("accept", "")
        self.may_stream = http.may_stream and ("text/event-stream" in accept or "*/*" in accept)
        self._streaming = False

    async def write(self, data: bytes, message: Message) -> bool:
        """Whether that was the answer."""
        last = "method" not in message
        if last and not self._streaming:
            status = _STATUS.get(message.get("error", {}).get("code"), 200) if self._modern else 200
            await _respond(self._http, data, status, {**self._headers, **governance_headers(self._trail)})
        elif await self._stream():
            data = self._with_headers(data, message) if last else data
            id = b"" if self.stream is None else self.stream.add(data)
            await self._http.event(data, last=last, id=id)
            if last and self.stream is not None:
                self.stream.end()
        return last

    def keep(self, data: bytes, message: Message) -> bool:
        """The same for a client that is not there: it may come back for it."""
        last = "method" not in message
        if self.stream is not None:
            self.stream.add(self._with_headers(data, message) if last else data)
        return last

    @property
    def begins_in_s(self) -> float:
        """When `begin` is due, in seconds; infinite if it is not."""
        if self._replay is None or self._streaming or not self.may_stream:
            return float("inf")
        return max(0.0, self._began + _BEGIN_S - time.monotonic())

    async def begin(self) -> None:
        """Give a client that waits for long an event's id, with which it can come back if its connection breaks."""
        if self.begins_in_s == 0:
            await self._stream()

    async def ping(self) -> None:
        if await self._stream():
            await self._http.ping()

    async def fail(self, id: Any, error: McpgateError) -> None:
        fault = refusal(error).to_wire(id)
        if self._streaming:
            await self._http.event(jsontext.dumps(fault), last=True)
        else:
            await self._http.refuse(error, fault)

    async def end_without(self) -> None:
        """The request was cancelled by another message: the protocol wants no answer, HTTP wants an end."""
        await self._http.end_stream() if self._streaming else await self._http.respond(202)

    async def _stream(self) -> bool:
        """Whether the response is a stream; makes it one where the client takes it."""
        if self.may_stream and not self._streaming:
            self._streaming = True
            await self._http.start_stream(self._headers)
            if self._replay is not None:
                self.stream = self._replay.open()
                if self._http.headers.get("mcp-protocol-version") == HANDSHAKE_VERSIONS[-1]:
                    await self._http.event(b"", id=self.stream.add(b""))
        return self._streaming

    def _with_headers(self, data: bytes, answer: Message) -> bytes:
        """A streamed answer, with what it learned too late for the response's headers."""
        late = governance_headers(self._trail)
        result = answer.get("result")
        if not late or not isinstance(result, dict):
            return data
        meta = result.get("_meta")
        kept = meta if isinstance(meta, dict) else {}
        return jsontext.dumps({**answer, "result": {**result, "_meta": {**kept, OURS + "headers": late}}})


async def _respond(
    http: Exchange, message: Message | bytes, status: int, headers: Mapping[str, str] | None = None
) -> None:
    """A whole answer; as a stream of one event for a client that takes nothing else."""
    data = message if isinstance(message, bytes) else jsontext.dumps(message)
    accept = http.headers.get("accept", "")
    wants_stream = "text/event-stream" in accept and "application/json" not in accept and "*/*" not in accept
    if status == 200 and wants_stream and http.may_stream:
        await http.start_stream(headers)
        await http.event(data, last=True)
    else:
        await http.respond(status, data, headers)


def _modern_fault(message: Message, version: str | None, http: Exchange) -> RpcFault | None:
    """What the headers of a modern request contradict in its body."""
    named = protocol_of(message.get("params"))
    if named is None:
        return RpcFault(INVALID_PARAMS, f"params._meta must carry {META}protocolVersion and {META}clientCapabilities")
    if version != named:
        return RpcFault(HEADER_MISMATCH, "the mcp-protocol-version header differs from the body's protocol version")
    if _trimmed(http, "mcp-method") != message.get("method"):
        return RpcFault(HEADER_MISMATCH, "the mcp-method header differs from the body's method")
    key = NAMED.get(str(message.get("method")))
    value = message["params"].get(key) if key else None
    if value is not None and decoded(_trimmed(http, "mcp-name")) != value:
        return RpcFault(HEADER_MISMATCH, f"the mcp-name header differs from the body's {key}")
    if version not in MODERN_VERSIONS:
        return unsupported(version)
    return None


def _trimmed(http: Exchange, name: str) -> str | None:
    value = http.headers.get(name)
    return None if value is None else value.strip()
