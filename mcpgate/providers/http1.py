"""HTTP/1.1 to one address, over connections that are kept open: asyncio and httptools with nothing between, because the
client is most of what a proxied completion costs (docs/benchmarks/llm-overhead.md). Heads, what is read ahead and every
wait are bounded."""

import asyncio
import select
import ssl
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import cast
from urllib.parse import urlsplit

import httptools

from mcpgate.addresses import parse_address
from mcpgate.errors import UpstreamTimeout
from mcpgate.llm.provider import Unreachable, Upload

_MOST_IDLE = 100
_IDLE_S = 30.0
"""How long a connection is kept without a request. Providers close theirs after a minute or more."""
_LONGEST_HEAD = 64 * 1024
_READ_AHEAD = 64 * 1024
"""Bytes of a body that are taken before they are asked for, and that are read at once. Each slow client costs that
several times."""
_TICK_S = 0.1
"""How often waits are compared with their limits. One timer for all is cheaper than one for each read."""
_SMALL = 64 * 1024
"""Bodies up to this size are written together with the head."""


class Response:
    """An answer that has begun."""

    def __init__(self, connection: "_Connection", limit_s: float) -> None:
        self._connection = connection
        self.status = 0
        self.headers: Mapping[str, str] = {}
        """By names in lower case; several of one name are joined."""
        self.limit_s = limit_s
        """How long it is waited for: the head, then each part of the body."""
        self.deadline = time.monotonic() + limit_s
        self.is_over = False
        self._pairs: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        """What has come of it and was not asked for yet: not a list of pieces, which may be of two bytes each."""
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def begun(self, silence_s: float) -> None:
        """Returns when the head is there. `silence_s`: how long the body may pause. Raises Unreachable,
        UpstreamTimeout."""
        while not self.status and self._error is None:
            await self._wait()
        if not self.status and self._error is not None:
            raise self._error
        self.limit_s = silence_s
        self.deadline = time.monotonic() + silence_s

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes, all that is there in one piece. Raises Unreachable, UpstreamTimeout."""
        while True:
            if self.body:
                whole = bytes(self.body)
                self.body.clear()
                self._connection.go_on()
                self.deadline = time.monotonic() + self.limit_s
                yield whole
            elif self._error is not None:
                raise self._error
            elif self.is_over:
                return
            else:
                await self._wait()

    async def aclose(self) -> None:
        """Done with it. The connection is lost unless the whole answer has come."""
        self.drop()

    def drop(self) -> None:
        """The same. A connection that has brought the whole answer may bring another's by now."""
        if not self.is_over:
            self._connection.abort()

    def is_late(self, now: float) -> bool:
        """Whether it has been waited for too long. While something of it is unread, nobody waits."""
        return not self.body and now > self.deadline

    # --- from the connection

    def on_head(self, status: int) -> None:
        """Raises _HeadTooLong."""
        if sum([len(name) + len(value) for name, value in self._pairs]) > _LONGEST_HEAD:
            raise _HeadTooLong
        pairs = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in self._pairs]
        headers = dict(pairs)
        if len(headers) < len(pairs):
            values: dict[str, list[str]] = {}
            for name, value in pairs:
                values.setdefault(name, []).append(value)
            headers = {name: ", ".join(all) for name, all in values.items()}
        self._pairs.clear()
        self.status, self.headers = status, headers

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # what comes later is a trailer
            self._pairs.append((name, value))

    def on_interim(self) -> None:
        """A head such as 103, before the one that counts."""
        self._pairs.clear()

    def on_end(self) -> None:
        self.is_over = True

    def fail(self, error: Exception) -> None:
        if not self.is_over and self._error is None:
            self._error = error

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class _HeadTooLong(Exception):
    """Raised inside the parser."""


class _Connection(asyncio.Protocol):
    """One connection and the answer that it is about to bring."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self.response: Response | None = None
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._head_bytes = 0
        self._is_paused = False
        self._may_go_on = False
        """Whether the server keeps it open after the answer."""
        self._has_more = False
        """Whether something came after the answer that nobody has asked for."""
        self._has_ended = False
        """Whether the server has closed it in good order."""
        self._is_unsent = False
        """Whether a part of the request is still to be sent, so that no other may follow."""
        self._has_news: Callable[[], bool] = lambda: False
        """Whether something has come that the event loop has not seen yet."""
        self._room: asyncio.Future[None] | None = None
        """Done when there is room to write; None while there is."""

    @property
    def is_usable(self) -> bool:
        """Whether nothing has come since its last answer, such as the news that it was closed."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and not self._has_news()

    def ask(self, head: bytes, body: bytes, limit_s: float) -> Response:
        """Raises Unreachable."""
        if self._transport is None or self._transport.is_closing():
            raise Unreachable(f"{self._pool.name} closed the connection at once")
        response = self.response = Response(self, limit_s)
        self._head_bytes = 0
        if len(body) <= _SMALL:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        return response

    async def feed(self, upload: Upload) -> None:
        """Send a body while it comes, until the answer begins. Raises what its pieces do."""
        response = self.response
        self._is_unsent = True
        async for piece in upload.whole():
            if self._transport is None or response is None or response is not self.response or response.status:
                return
            self._transport.write(piece)
            response.deadline = time.monotonic() + response.limit_s
            if self._room is not None:
                await self._room
        self._is_unsent = False

    def pause_writing(self) -> None:
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    def go_on(self) -> None:
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def fail(self, error: Exception) -> None:
        """The answer will not come, or no more of it."""
        if self.response is not None:
            self.response.fail(error)
        self.abort()

    # --- asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._has_news = _news_of(transport)
        if hasattr(transport, "max_size"):  # so asyncio's transports without TLS call what they read at once
            transport.max_size = _READ_AHEAD
        self._pool.open.add(self)

    def eof_received(self) -> None:
        self._has_ended = True

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.resume_writing()
        self._pool.forget(self)
        if (response := self.response) is not None:
            self.response = None
            if self._has_ended and response.status and not _has_length(response):
                response.on_end()
            else:
                when = "broke off" if response.status else "did not come: the connection was closed"
                response.fail(Unreachable(f"the answer of {self._pool.name} {when}" + (f" ({error})" if error else "")))
            response.wake()

    def data_received(self, data: bytes) -> None:
        response = self.response
        if response is None:  # nobody asked
            self.abort()
            return
        name, before = self._pool.name, len(response.body)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fail(Unreachable(f"{name} wants another protocol than HTTP/1.1"))
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _HeadTooLong):
                self.fail(Unreachable(f"the head of the answer of {name} is over {_LONGEST_HEAD:,} bytes"))
            else:
                self.fail(Unreachable(f"{name} answers with what is not HTTP/1.1: {error}"[:300]))
        else:
            self._head_bytes += len(data)
            if not response.status and self._head_bytes > _LONGEST_HEAD:
                self.fail(Unreachable(f"the head of the answer of {name} is over {_LONGEST_HEAD:,} bytes"))
        if len(response.body) > before:  # of a head alone, however slowly it comes, nothing is put off
            response.deadline = time.monotonic() + response.limit_s
        if response.is_over:
            self._finish()
        elif len(response.body) >= _READ_AHEAD and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        response.wake()

    # --- httptools' callbacks

    def on_message_begin(self) -> None:
        if self.response is not None and self.response.is_over:
            self._has_more = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.response is not None:
            self.response.on_header(name, value)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.response is None or self.response.is_over:
            return
        if 100 <= status < 200:
            self.response.on_interim()
        else:
            self.response.on_head(status)

    def on_body(self, piece: bytes) -> None:
        if (response := self.response) is not None and not response.is_over:
            response.body += piece

    def on_message_complete(self) -> None:
        if self.response is not None and self.response.status:
            self.response.on_end()
            self._may_go_on = self._parser.should_keep_alive()

    def _finish(self) -> None:
        """The answer is whole. The connection can take another request unless something is left that nobody wants to
        send or to read."""
        self.response = None
        self.go_on()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._may_go_on and not self._has_more and not self._is_unsent and not transport.get_write_buffer_size():
            self._pool.keep(self)
        else:
            transport.abort()


class Pool:
    """Connections to the host of one address."""

    def __init__(self, name: str, address: str, connect_timeout_s: float, tls: ssl.SSLContext | None) -> None:
        """`name`: of whom is reached, for messages. `address`: a URL. `tls`: for https."""
        self.name = name
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        self._is_literal = parse_address(self._host) is not None
        self._tls = tls if parts.scheme == "https" else None
        self._path, self._authority = parts.path, parts.netloc.rpartition("@")[2]
        self._connect_timeout_s = connect_timeout_s
        self.open: set[_Connection] = set()
        self._idle: deque[_Connection] = deque()
        """The one that was used last at the end."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | Upload, limit_s: float, silence_s: float
    ) -> Response:
        """`path`: what follows the address. `limit_s`: until the answer begins; connecting is not counted, nor is the
        time that the parts of an upload take. `silence_s`: how long its body may pause. Raises Unreachable,
        UpstreamTimeout; ValueError for a header that cannot be sent; and what the parts of an upload do."""
        lines = [f"{method} {self._path}{path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in {"host": self._authority, **headers}.items()]
        lines.append(f"content-length: {len(body) if isinstance(body, bytes) else body.length}\r\n\r\n")
        text = "\r\n".join(lines)
        if text.count("\n") != len(lines) + 1 or text.count("\r") != len(lines) + 1:
            raise ValueError("a header holds a line break")
        head = text.encode("latin-1")
        connection = self._kept() or await self._connected()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        response = connection.ask(head, body if isinstance(body, bytes) else b"", limit_s)
        try:
            if isinstance(body, Upload):
                await connection.feed(body)
            await response.begun(silence_s)
        except BaseException:
            response.drop()
            raise
        return response

    async def aclose(self) -> None:
        """Returns when every connection is closed."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self.open:
            for connection in tuple(self.open):
                connection.abort()
            await asyncio.sleep(0)

    # --- from connections

    def keep(self, connection: _Connection) -> None:
        """It can take another request."""
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        if len(self._idle) > _MOST_IDLE:
            self._idle.popleft().abort()

    def forget(self, connection: _Connection) -> None:
        """It is lost."""
        self.open.discard(connection)
        if connection.response is None and connection in self._idle:
            self._idle.remove(connection)

    # --- inner

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
            connection.abort()
        return None

    async def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    # Not for an address: racing costs two tasks, and a race that is cancelled just when it is won
                    # leaves its socket to the garbage collection.
                    happy_eyeballs_delay=None if self._is_literal else 0.25,
                )
        except TimeoutError as error:
            raise Unreachable(f"{self.name} cannot be reached: connecting took too long") from error
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be in the DNS
            raise Unreachable(f"{self.name} cannot be reached: {str(error)[:300]}") from error
        if self._is_closed:
            connection.abort()
            raise Unreachable(f"{self.name} is no longer configured")
        return connection

    def _tick(self) -> None:
        now = time.monotonic()
        self._timer = None
        for connection in tuple(self.open):
            response = connection.response
            if response is not None and response.is_late(now):
                what = "fell silent for" if response.status else "did not answer within"
                connection.fail(UpstreamTimeout(f"{self.name} {what} {response.limit_s:g} s"))
        while self._idle and now - self._idle[0].idle_since > _IDLE_S:
            self._idle.popleft().abort()
        if self.open:
            self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._tick)


def _has_length(response: Response) -> bool:
    """Whether an answer says where it ends. Others end with their connection."""
    return "content-length" in response.headers or "chunked" in response.headers.get("transfer-encoding", "").lower()


def _news_of(transport: asyncio.BaseTransport) -> Callable[[], bool]:
    """Asks whether something has come to a transport."""
    socket = transport.get_extra_info("socket")
    if sys.platform == "win32":
        return lambda: bool(select.select([socket], [], [], 0)[0])
    poll = select.poll()  # select() takes no descriptors over 1023
    poll.register(socket.fileno(), select.POLLIN)
    return lambda: bool(poll.poll(0))
