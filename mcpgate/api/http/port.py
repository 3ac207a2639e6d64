"""The HTTP port: uvicorn, with bounds on everything that somebody without a key can make it hold or wait for.

uvicorn's own protocols bound neither the head of a request nor the time it takes, count connections only to answer 503,
and never close one whose client does not read. The classes here add that and nothing else; what they use of uvicorn's
and httptools' inner life is listed in tests/api/http/test_port.py.
"""

import asyncio
import errno
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import orjson
import uvicorn

from mcpgate.addresses import Network, is_in
from mcpgate.api.http.exchange import DISCARD_BYTES, GONE
from mcpgate.api.http.places import FULL, RETRY_S, Place, Places, Spare, origin_of
from mcpgate.config.settings import ServerConfig

if TYPE_CHECKING:
    import socket

Application = Callable[[Any, Any, Any], Awaitable[None]]
log = logging.getLogger("mcpgate.http")

_ACCEPTED_AT_ONCE = 16
"""Connections that asyncio takes before the first of them is seen here; so many descriptors are kept free for them."""
_KEPT_DESCRIPTORS = 128
"""Files and sockets for stores, upstreams and their children."""
_FREE_DESCRIPTORS = 32
"""How many of those are free whatever is connected: for a child or a file that is opened now."""
_MOST_CONNECTIONS = 4096
_RESERVE = 16
_ENOUGH_DESCRIPTORS = 65_536
_LISTEN_QUEUE = 2048
"""Connections that the kernel keeps until they are taken."""
_SAID_EVERY_S = 60.0
_FRAMING_HEADERS = (b"content-length", b"transfer-encoding")
_FRAMING = 16 * 1024
"""Bytes that chunk headers, extensions and trailers of one body may have, besides eight times its own bytes."""


@dataclass(frozen=True, slots=True)
class PortLimits:
    """What one port may hold, and how long it waits. Seconds and bytes."""

    max_connections: int = 1024
    max_connections_per_address: int = 256
    reserve: int = _RESERVE
    """Connections beyond those, on which only health checks are answered."""
    descriptors: int = _ENOUGH_DESCRIPTORS
    """With so many files open, whatever they are, a connection is taken only in place of another."""
    head_bytes: int = 64 * 1024
    """Request line and headers."""
    url_bytes: int = 16 * 1024
    headers: int = 256
    pipelined: int = 8
    """Requests that wait on a connection until those before them are answered."""
    head_s: float = 10.0
    """For a whole head, from its first byte or from the start of the connection."""
    keep_alive_s: float = 60.0
    """How long a connection stays open between requests."""
    body_s: float = 30.0
    """A body may stand still so long, and brings `body_bytes` in such a time."""
    body_bytes: int = 64 * 1024
    write_s: float = 60.0
    """How long a client may leave unread what was written to it."""
    unread_s: float = 3.0
    """The same where its connection is wanted for another."""
    linger_s: float = 5.0
    """How long a connection is kept after a refusal that came before the end of the request, so that it arrives."""
    discard_bytes: int = DISCARD_BYTES
    """Of the rest of such a request, so much is read and thrown away."""

    @property
    def tick_s(self) -> float:
        """How often connections are looked at."""
        waits = (self.head_s, self.keep_alive_s, self.body_s, self.write_s, self.unread_s, self.linger_s)
        return max(0.02, min(1.0, min(waits) / 4))


class Port:
    """One listening socket and its connections."""

    def __init__(
        self,
        app: Application,
        limits: PortLimits,
        trusted_proxies: Callable[[], Sequence[Network]] = lambda: (),
        when_full: Application | None = None,
        http: str = "auto",
        takes_socket: Callable[[str], bool] = lambda path: False,
        message_bytes: int = 1024 * 1024,
    ) -> None:
        """`when_full`: the application of the connections beyond the last, which answers health checks and refuses
        everything else. `http`: auto, httptools or h11, the library that parses requests. `takes_socket`: whether a
        WebSocket may be opened at a path; httptools is needed for that. `message_bytes`: of its messages."""
        self.limits, self._trusted_proxies, self.takes_socket = limits, trusted_proxies, takes_socket
        self.when_full = when_full or app
        self.places = Places(limits.max_connections, limits.max_connections_per_address, limits.reserve)
        self.open: set[_Connection] = set()
        config = uvicorn.Config(
            app,
            http=partial(_protocol_class(http), self),  # type: ignore[arg-type]
            log_config=None,
            access_log=False,
            lifespan="off",
            ws=_open_socket,  # type: ignore[arg-type]
            ws_max_size=message_bytes,
            ws_per_message_deflate=False,
            proxy_headers=False,  # see access.py
            server_header=False,
            backlog=_ACCEPTED_AT_ONCE,
            timeout_keep_alive=max(1, round(limits.keep_alive_s)),
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=limits.head_bytes,
        )
        self._server = _Server(config)
        self._said: dict[str, float] = {}

    def stop(self) -> None:
        """Take no more connections, finish what is under way, return from `serve`. From any thread or signal
        handler."""
        self._server.should_exit = True

    async def serve(self, listener: "socket.socket") -> None:
        """Until `stop`."""
        loop = asyncio.get_running_loop()
        before = loop.get_exception_handler()
        loop.set_exception_handler(partial(self._on_loop_error, before))
        watcher = asyncio.create_task(self._watch(listener))
        try:
            await self._server.serve(sockets=[listener])
        finally:
            watcher.cancel()
            loop.set_exception_handler(before)

    def is_trusted(self, address: str | None) -> bool:
        return is_in(address, self._trusted_proxies())

    def say(self, what: str, text: str, *arguments: Any) -> None:
        """Log a warning about a kind of trouble that strangers can cause as often as they like: once a minute."""
        now = time.monotonic()
        if now - self._said.get(what, -_SAID_EVERY_S) >= _SAID_EVERY_S:
            self._said[what] = now
            log.warning(text, *arguments)

    async def _watch(self, listener: "socket.socket") -> None:
        while not self._server.started:
            await asyncio.sleep(0.005)
        # asyncio listens with the number of connections that it takes at once; the queue may be longer.
        listener.listen(_LISTEN_QUEUE)
        while True:
            await asyncio.sleep(self.limits.tick_s)
            now = time.monotonic()
            for connection in list(self.open):
                connection.check(now)

    def _on_loop_error(self, before: Any, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            # asyncio stops accepting for a second and tries again. (Python 3.11 tells of it once for each connection
            # that it would have taken.)
            self.places.shed()
            self.say("accept", "cannot take connections: %s; trying again every second", error.strerror)
        elif before is not None:
            before(loop, context)
        else:
            loop.default_exception_handler(context)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are our caller's: uvicorn raises them again at the end, before anything else is put away."""
        yield


def limits_of(config: ServerConfig, descriptors: int) -> PortLimits:
    """`descriptors`: files and sockets that this process may have open. Without a setting, connections get what stores,
    upstreams and accepting leave of them."""
    total = config.max_connections or max(
        16, min(_MOST_CONNECTIONS, descriptors - _KEPT_DESCRIPTORS - _ACCEPTED_AT_ONCE - _RESERVE)
    )
    each = config.max_connections_per_address or max(16, total // 4)
    most_open = max(descriptors // 2, descriptors - _ACCEPTED_AT_ONCE - _RESERVE - _FREE_DESCRIPTORS)
    return PortLimits(total, min(each, total), keep_alive_s=config.keep_alive_s, descriptors=most_open)


def raise_descriptor_limit() -> int:
    """Ask for as many open files as this process may have; how many it has now."""
    try:
        import resource
    except ImportError:  # not a Unix
        return 512
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (ValueError, OSError):
            pass
    return _ENOUGH_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


class _Refused(Exception):
    """Raised inside the parser."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class _Left(Exception):
    """Raised inside the parser: nothing more is read."""


class _Connection(asyncio.Protocol):
    """What is bounded whatever library parses the requests. Before a class of uvicorn's in the order of bases, whose
    attributes these are."""

    transport: asyncio.Transport
    flow: Any
    cycle: Any
    client: tuple[str, int] | None
    app: Any

    def __init__(self, port: Port, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._port, self._limits = port, port.limits
        self.origin, self.exempt = "", False
        self._cycles: deque[Any] = deque()
        """Requests that are not answered yet, the one under way first."""
        self._since = 0.0
        """When the connection began to wait for a request."""
        self._head_since = 0.0
        """When the head began that is being read; 0 while there is none."""
        self._stuck_since = 0.0
        """Since when something that was written has not been read; 0 while there is nothing."""
        self._leaving_since = 0.0
        """Since when what arrives is thrown away; 0 while it is read."""
        self._thrown = 0
        """Bytes that were thrown away."""
        self._body = _Progress()
        self._is_reserved = False
        """Whether its place is for health checks only."""
        self._is_socket = False
        """Whether it has become a WebSocket, whose protocol gets the callbacks from then on."""

    # --- uvicorn's and asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._since = self._head_since = time.monotonic()
        address = self.client[0] if self.client else None
        self.origin, self.exempt = origin_of(address), self._port.is_trusted(address)
        self._port.open.add(self)
        # The kernel gives the lowest number that is free.
        number = self.transport.get_extra_info("socket").fileno()
        match self._port.places.enter(self, scarce=number >= self._limits.descriptors):
            case Place.RESERVED:
                self.app, self._is_reserved = self._port.when_full, True
            case Place.NONE:
                self._port.say("full", "refusing connections: all %d connections are in use", len(self._port.places))
                self.transport.write(_refusal(503, FULL))
                self.transport.close()  # at once, for a place to say it slowly is what there is none of

    def leave_place(self) -> None:
        self._port.open.discard(self)
        self._port.places.leave(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.leave_place()
        # uvicorn tells only the newest request that its client is gone.
        self._give_up()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        self._stuck_since = 0.0
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    # --- ours

    @property
    def spare(self) -> Spare | None:
        if self._is_socket:
            return None
        if self._stuck_since and time.monotonic() - self._stuck_since > self._limits.unread_s:
            return 0, self._stuck_since
        if self._cycles:
            return None
        return 0 if self._head_since else 1, self._since

    def evict(self) -> None:
        self.transport.abort()

    def check(self, now: float) -> None:
        """Close the connection if it has been waited for too long."""
        limits = self._limits
        if self.transport.get_write_buffer_size():
            if not self._stuck_since:
                self._stuck_since = now
            elif now - self._stuck_since > (limits.linger_s if self.transport.is_closing() else limits.write_s):
                self.transport.abort()
                return
        else:
            self._stuck_since = 0.0
        if self._is_socket:
            return
        if self._leaving_since:
            if now - self._leaving_since > limits.linger_s:
                self.transport.abort()
        elif self.transport.is_closing():
            pass
        elif self._body_expected():
            if self.cycle.response_complete:
                # A refusal that did not wait for the body.
                if now - self._since > limits.linger_s:
                    self.transport.abort()
            elif self.flow.read_paused:
                self._body.restart(now)
            elif self._body.too_slow(now, limits):
                self._refuse(408, "the body of the request has stalled")
        elif self._head_since:
            if now - self._head_since <= limits.head_s:
                pass
            elif self._head_since == self._since:  # nothing has come since it was opened
                self.transport.close()
            else:
                self._refuse(408, "the head of the request took too long")
        elif not self._cycles and now - self._since > limits.keep_alive_s:
            self.transport.close()

    def _body_expected(self) -> bool:
        return self.cycle is not None and bool(self.cycle.more_body)

    def _begin(self) -> None:
        """A head is complete and its request under way."""
        self._head_since = 0.0
        self.cycle.scope[GONE] = asyncio.get_running_loop().create_future()
        self._cycles.append(self.cycle)
        self._body.start(time.monotonic())
        self._thrown = 0

    def _refuse(self, status: int, message: str) -> None:
        """Answer what is no request that any application could answer, and close."""
        if self._leaving_since or self.transport.is_closing():
            return
        # An answer belongs to the oldest request; where that one is being answered, there is no place for another.
        if len(self._cycles) > 1 or (self._cycles and self._cycles[0].response_started):
            self.transport.abort()
            return
        self._give_up()
        self.transport.write(_refusal(status, message))
        self._leave()

    def _give_up(self) -> None:
        """Tell the requests that are not answered that nobody waits for their answers."""
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()
            if not (gone := cycle.scope[GONE]).done():
                gone.set_result(None)
        self._cycles.clear()

    def _close(self) -> None:
        """After a response that is the last one."""
        if self._body_expected() and len(self._cycles) == 1:
            self._leave()
        else:
            self.transport.close()

    def _leave(self) -> None:
        """Say that there is no more, and throw away what comes for a moment: closing with something unread would take
        the answer back."""
        self._leaving_since = time.monotonic()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _throw_away(self, size: int) -> None:
        """Count the rest of a request that has its answer. Who sends more than a little has to stop."""
        self._thrown += size
        if self._thrown > self._limits.discard_bytes:
            if not self._leaving_since:
                self._leave()
            self.flow.pause_reading()


def _open_socket(config: uvicorn.Config, **uvicorns: Any) -> asyncio.Protocol:
    """uvicorn's protocol of WebSockets; the place of the connection stays with whoever asked for the socket."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    class SocketConnection(WebSocketsSansIOProtocol):
        holder: _Connection

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self.holder.leave_place()

        def shutdown(self) -> None:
            """The application ends it, when what is being answered is said."""

    return SocketConnection(config, **uvicorns)


class _Shared:
    """The transport of one response; closing it is the connection's business."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write, self.is_closing, self.close = transport.write, transport.is_closing, close


class _Progress:
    """How fast a body arrives."""

    __slots__ = ("_at_mark", "_mark", "_moved", "_seen", "framing", "received")

    def __init__(self) -> None:
        self.start(0.0)

    def start(self, now: float) -> None:
        self.received = 0
        """Bytes of the body."""
        self.framing = 0
        """Bytes around it: chunk headers, extensions, trailers."""
        self._seen = self._at_mark = 0
        self._moved = self._mark = now

    def restart(self, now: float) -> None:
        """The body was not asked for in the meantime."""
        self._moved = self._mark = now
        self._at_mark = self.received

    def too_slow(self, now: float, limits: PortLimits) -> bool:
        if self.received != self._seen:
            self._seen, self._moved = self.received, now
        if now - self._moved > limits.body_s:
            return True
        if now - self._mark <= limits.body_s:
            return False
        slow = self.received - self._at_mark < limits.body_bytes
        self._mark, self._at_mark = now, self.received
        return slow


def _refusal(status: int, message: str) -> bytes:
    """A whole response."""
    code = {429: "rate_limited", 503: "unavailable"}.get(status, "invalid_request")
    body = orjson.dumps({"error": {"code": code, "message": message}})
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
        *([f"retry-after: {RETRY_S}"] if status == 503 else []),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _protocol_class(http: str) -> type[_Connection]:
    if http != "h11":
        try:
            return _httptools_class()
        except ImportError:
            if http == "httptools":
                raise
    return _h11_class()


def _httptools_class() -> type[_Connection]:
    import httptools
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    from mcpgate.api.http.cycle import Cycle

    class HttpToolsConnection(_Connection, HttpToolsProtocol):
        """httptools gives a header when it is whole, so bytes are counted before they are parsed."""

        def __init__(self, port: Port, **uvicorns: Any) -> None:
            super().__init__(port, **uvicorns)
            self._in_head = False
            self._in_body = False
            self._begun = 0
            """Heads that have begun."""
            self._room = self._limits.head_bytes
            """Bytes that the head being read may still have."""
            self._framing = b""
            """Headers that say how long the body is of a request that offers an upgrade."""

        def data_received(self, data: bytes) -> None:
            self._unset_keepalive_if_required()
            if self._leaving_since:
                self._throw_away(len(data))
                return
            if not self._in_body and len(data) > self._room:
                begun, room = self._begun, self._room
                if not self._feed(data[:room]):
                    return
                if self._in_head and self._begun - begun <= 1:
                    self._refuse(431, f"the head of the request is over {self._limits.head_bytes:,} bytes")
                    return
                data = data[room:]
            in_body, begun, received = self._in_body, self._begun, self._body.received
            if not self._feed(data):
                return
            if self._in_head and not in_body and self._begun - begun <= 1:
                self._room -= len(data)
            elif in_body and self._in_body:
                self._body.framing += len(data) - (self._body.received - received)
                if self._body.framing > _FRAMING + 8 * self._body.received:
                    self._refuse(400, "chunk headers and trailers are longer than the body")

        def _feed(self, data: bytes) -> bool:
            """Whether the connection goes on."""
            while True:
                try:
                    self.parser.feed_data(data)
                    return True
                except httptools.HttpParserUpgrade as upgrade:
                    if self._should_upgrade():
                        self.handle_websocket_upgrade()
                        return False
                    # Nothing else is upgraded to here. Clients that offer it go on in HTTP/1.1, with the body of that
                    # request first.
                    callbacks = _Resumed(self) if self._framing else self
                    self.parser = httptools.HttpRequestParser(callbacks)
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
                    if self._framing:
                        framing, self._framing = self._framing, b""
                        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")
                    data = data[upgrade.args[0] :]
                    if not data:
                        return True
                except httptools.HttpParserError as error:
                    cause = error.__context__
                    if isinstance(cause, _Refused):
                        self._refuse(cause.status, cause.message)
                    elif not isinstance(cause, _Left):
                        self._refuse(400, "this is not a valid HTTP request")
                    return False

        def on_message_begin(self) -> None:
            self._in_head, self._room = True, self._limits.head_bytes
            self._begun += 1
            self._head_since = time.monotonic()
            super().on_message_begin()

        def _should_upgrade(self) -> bool:
            path = self.url.partition(b"?")[0].decode("latin-1")
            wants = self.parser.get_method() == b"GET" and not self._cycles and super()._should_upgrade()
            return wants and not self._is_reserved and self._port.takes_socket(path)

        def handle_websocket_upgrade(self) -> None:
            self._is_socket, self._head_since = True, 0.0
            super().handle_websocket_upgrade()
            self.transport.get_protocol().holder = self  # type: ignore[attr-defined]

        def on_headers_complete(self) -> None:
            limits = self._limits
            self._in_head = False
            if len(self.url) > limits.url_bytes:
                raise _Refused(414, f"the URL is over {limits.url_bytes:,} bytes")
            if len(self.headers) > limits.headers:
                raise _Refused(431, f"there are more than {limits.headers} headers")
            if len(self._cycles) > limits.pipelined:
                raise _Refused(429, f"more than {limits.pipelined} requests wait on this connection")
            wants_upgrade = self.parser.should_upgrade()
            self._describe()
            if wants_upgrade and self._should_upgrade():
                return
            self._take()
            if wants_upgrade:
                self._framing = b"".join(b"%s: %s\r\n" % pair for pair in self.headers if pair[0] in _FRAMING_HEADERS)
            if self.pipeline:
                self.flow.resume_reading()  # or nobody would hear that the client is gone
            self._in_body = True
            self.headers = []  # trailers come here too, and are nobody's
            self._begin()

        def _describe(self) -> None:
            """Complete the scope of the request."""
            url, scope = httptools.parse_url(self.url), self.scope
            path = url.path.decode("ascii")
            scope["method"] = self.parser.get_method().decode("ascii")
            scope["http_version"] = self.parser.get_http_version()
            scope["path"] = unquote(path) if "%" in path else path
            scope["raw_path"] = url.path
            scope["query_string"] = url.query or b""

        def _take(self) -> None:
            """Begin the request, or let it wait for those before it."""
            before = self.cycle
            self.cycle = Cycle(
                self._close,
                scope=self.scope,
                transport=self.transport,
                flow=self.flow,
                logger=self.logger,
                access_logger=self.access_logger,
                access_log=False,
                default_headers=self.server_state.default_headers,
                message_event=asyncio.Event(),
                expect_100_continue=self.expect_100_continue,
                keep_alive=self.parser.should_keep_alive() and self.scope["http_version"] != "1.0",
                on_response=self.on_response_complete,
            )
            if before is None or before.response_complete:
                self._start_asgi_task(self.cycle, self.app)
            else:
                self.flow.pause_reading()
                self.pipeline.appendleft((self.cycle, self.app))

        def on_response_complete(self) -> None:
            # Not uvicorn's, which sets a timer after each: `check` closes what rests for too long.
            if self._cycles:
                self._cycles.popleft()
            if not self.transport.is_closing():
                self.flow.resume_reading()
                if self.pipeline:
                    self._start_asgi_task(*self.pipeline.pop())
            if not self._cycles:
                self._since = time.monotonic()

        def on_body(self, body: bytes) -> None:
            self._body.received += len(body)
            if self.cycle.response_complete:
                self._throw_away(len(body))
                if self._leaving_since:
                    raise _Left
            super().on_body(body)

        def on_message_complete(self) -> None:
            if self._framing:
                return  # httptools takes a request that offers an upgrade for one without a body
            self._in_body = False
            self._room = self._limits.head_bytes
            if self.cycle is None:
                return  # a WebSocket is about to be opened
            # uvicorn leaves it as it is where the answer came first.
            self.cycle.more_body = False
            super().on_message_complete()
            self.flow.resume_reading()  # paused if the last of the body was long; nobody would hear of a hang-up

    class _Resumed:
        """Passes on what a parser finds from the body of its first request on."""

        def __init__(self, connection: HttpToolsConnection) -> None:
            self._connection, self._first = connection, True

        def on_message_begin(self) -> None:
            if not self._first:
                self._connection.on_message_begin()

        def on_url(self, url: bytes) -> None:
            if not self._first:
                self._connection.on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            if not self._first:
                self._connection.on_header(name, value)

        def on_headers_complete(self) -> None:
            if not self._first:
                self._connection.on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._connection.on_body(body)

        def on_message_complete(self) -> None:
            self._first = False
            self._connection.on_message_complete()

    return HttpToolsConnection


def _h11_class() -> type[_Connection]:
    """For interpreters that httptools is not built for. h11 bounds heads, chunk headers and trailers by itself, and
    reads no request before the one ahead is answered."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class H11Connection(_Connection, H11Protocol):
        def data_received(self, data: bytes) -> None:
            if self._leaving_since:
                self._throw_away(len(data))
                return
            before = self.cycle
            if before is not None and before.response_complete and before.more_body:
                self._throw_away(len(data))
            if not self._head_since and not self._cycles and not self._body_expected():
                self._head_since = time.monotonic()
            self._body.received += len(data)
            super().data_received(data)
            if self.cycle is not before:
                self._begin()
            if self._cycles and not self._body_expected() and self.conn.their_state is not h11.PAUSED:
                self.flow.resume_reading()  # as above

        def on_response_complete(self) -> None:
            before = self.cycle
            if self._cycles:
                self._cycles.popleft()
            super().on_response_complete()  # may go on with the next request, whose bytes are here already
            if not self._cycles:
                self._since = time.monotonic()
            if self.cycle is not before:
                self._begin()

        def _begin(self) -> None:
            super()._begin()
            self.cycle.transport = _Shared(self.transport, self._close)

    return H11Connection
