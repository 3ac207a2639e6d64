"""HTTP/1.1 to one address, over connections that are kept open: asyncio and httptools with nothing between, because the
client is most of what a proxied completion costs (docs/benchmarks/llm-overhead.md). Heads, what is read ahead and every
wait are bounded."""

import asyncio
import select
import ssl
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from typing import cast
from urllib.parse import urlsplit

import httptools

from mcpgate.errors import UpstreamTimeout
from mcpgate.llm.provider import Unreachable, Upload

_MOST_IDLE = 100
_IDLE_S = 30.0
"""How long a connection is kept without a request. Providers close theirs after a minute or more."""
_LONGEST_HEAD = 64 * 1024
_READ_AHEAD = 256 * 1024
"""Bytes of a body that are taken before they are asked for."""
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
        self._pieces: deque[bytes] = deque()
        self._size = 0
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
            if self._size:
                whole = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
                self._pieces.clear()
                self._size = 0
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
        if not self.is_over:
            self._connection.abort()

    # --- from the connection

    def on_head(self, status: int) -> None:
        headers: dict[str, str] = {}
        for raw_name, raw_value in self._pairs:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self._pairs.clear()
        self.status, self.headers = status, headers

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # what comes later is a trailer
            self._pairs.append((name, value))

    def on_interim(self) -> None:
        """A head such as 103, before the one that counts."""
        self._pairs.clear()

    def on_body(self, piece: bytes) -> bool:
        """Whether more may come."""
        self._pieces.append(piece)
        self._size += len(piece)
        self.deadline = time.monotonic() + self.limit_s
        return self._size < _READ_AHEAD

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
        self._is_unsent = False
        """Whether a part of the request is still to be sent, so that no other may follow."""
        self._room: asyncio.Future[None] | None = None
        """Done when there is room to write; None while there is."""

    @property
    def is_usable(self) -> bool:
        """Whether nothing has come since its last answer, such as the news that it was closed."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def ask(self, head: bytes, body: bytes, limit_s: float) -> Response:
        assert self._transport is not None and self.response is None
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
        """The answer will not come."""
        if self.response is not None:
            self.response.fail(error)
            self.response.wake()
        self.abort()

    # --- asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._pool.open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.resume_writing()
        self._pool.forget(self)
        if (response := self.response) is not None:
            self.response = None
            if response.status and "content-length" not in response.headers and not _is_chunked(response):
                response.on_end()  # it ends with its connection
            else:
                when = "broke off" if response.status else "did not come: the connection was closed"
                response.fail(Unreachable(f"the answer of {self._pool.name} {when}" + (f" ({error})" if error else "")))
            response.wake()

    def data_received(self, data: bytes) -> None:
        response = self.response
        if response is None:  # nobody asked
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fail(Unreachable(f"{self._pool.name} wants another protocol than HTTP/1.1"))
            return
        except httptools.HttpParserError as error:
            self.fail(Unreachable(f"{self._pool.name} answers with what is not HTTP/1.1: {error}"[:300]))
            return
        if not response.status:
            self._head_bytes += len(data)
            if self._head_bytes > _LONGEST_HEAD:
                self.fail(Unreachable(f"the head of the answer of {self._pool.name} is over {_LONGEST_HEAD:,} bytes"))
            return
        response.wake()

    # --- httptools' callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.response is not None:
            self.response.on_header(name, value)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.response is None:
            return
        if 100 <= status < 200:
            self.response.on_interim()
        else:
            self.response.on_head(status)

    def on_body(self, piece: bytes) -> None:
        if self.response is not None and not self.response.on_body(piece) and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        response = self.response
        if response is None or not response.status:
            return
        response.on_end()
        self.response = None
        self.go_on()
        transport = self._transport
        if transport is None:
            return
        if self._parser.should_keep_alive() and not self._is_unsent and not transport.get_write_buffer_size():
            self._pool.keep(self)
        else:
            transport.abort()  # nothing is left that anybody wants to send or to read


class Pool:
    """Connections to the host of one address."""

    def __init__(self, name: str, address: str, connect_timeout_s: float, tls: ssl.SSLContext | None) -> None:
        """`name`: of whom is reached, for messages. `address`: a URL. `tls`: for https."""
        self.name = name
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = tls if parts.scheme == "https" else None
        self._path, self._authority = parts.path, parts.netloc.rpartition("@")[2]
        self._connect_timeout_s = connect_timeout_s
        self.open: set[_Connection] = set()
        self._idle: deque[_Connection] = deque()
        """The one that was used last at the end."""
        self._timer: asyncio.TimerHandle | None = None

    async def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | Upload, limit_s: float, silence_s: float
    ) -> Response:
        """`path`: what follows the address. `limit_s`: until the answer begins; connecting is not counted, nor is the
        time that the parts of an upload take. `silence_s`: how long its body may pause. Raises Unreachable,
        UpstreamTimeout, ValueError for a line break in a header, and what the parts of an upload do."""
        lines = [f"{method} {self._path}{path} HTTP/1.1", f"host: {self._authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines.append(f"content-length: {len(body) if isinstance(body, bytes) else body.length}\r\n\r\n")
        text = "\r\n".join(lines)
        if text.count("\n") != len(lines) + 1 or text.count("\r") != len(lines) + 1:
            raise ValueError("a header holds a line break")
        connection = self._kept() or await self._connected()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        response = connection.ask(text.encode("latin-1"), body if isinstance(body, bytes) else b"", limit_s)
        try:
            if isinstance(body, Upload):
                await connection.feed(body)
            await response.begun(silence_s)
        except BaseException:
            connection.abort()
            raise
        return response

    async def aclose(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for connection in tuple(self.open):
            connection.abort()

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
                    happy_eyeballs_delay=0.25,
                )
        except TimeoutError as error:
            raise Unreachable(f"{self.name} cannot be reached: connecting took too long") from error
        except OSError as error:
            raise Unreachable(f"{self.name} cannot be reached: {str(error)[:300]}") from error
        return connection

    def _tick(self) -> None:
        now = time.monotonic()
        self._timer = None
        for connection in tuple(self.open):
            response = connection.response
            if response is not None and now > response.deadline:
                what = "fell silent for" if response.status else "did not answer within"
                connection.fail(UpstreamTimeout(f"{self.name} {what} {response.limit_s:g} s"))
        while self._idle and now - self._idle[0].idle_since > _IDLE_S:
            self._idle.popleft().abort()
        if self.open:
            self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._tick)


def _is_chunked(response: Response) -> bool:
    return "chunked" in response.headers.get("transfer-encoding", "").lower()
