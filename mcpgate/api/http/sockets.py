"""WebSockets: one message after the other, over raw ASGI. Knows nothing of what is said; see api/llm/socket.py."""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from mcpgate.api.http.exchange import GONE, Disconnected, Receive, Scope, Send

_MOST_WAITING = 8
"""Messages that a client may send ahead."""
RESTARTING, TOO_MANY = 1012, 1008
"""Codes of RFC 6455."""


class Socket:
    """One WebSocket, from the request for it on."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`scope`: of ASGI's type `websocket`."""
        self._receive, self._send = receive, send
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.request_scope = {**scope, "type": "http", "method": "GET", GONE: self.gone}
        """The scope of the HTTP request that asks for the socket."""
        self.started = False
        """Of a stream that could be pinged; the port pings sockets by itself."""
        self._waiting: deque[bytes] = deque()
        self._more = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    async def refuse(self, message: Mapping[str, Any]) -> None:
        """What `send` of ASGI is to an HTTP request: answers the request instead of opening the socket."""
        await self._send({**message, "type": f"websocket.{message['type']}"})

    async def ping(self) -> None:
        """Nothing to do: the port pings."""

    async def accept(self, headers: Mapping[str, str]) -> None:
        await self._receive()  # websocket.connect
        wire = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "websocket.accept", "headers": wire})
        self._reader = asyncio.create_task(self._read())

    async def message(self) -> bytes | None:
        """The next one; None when the client is gone."""
        while not self._waiting:
            if self.gone.done():
                return None
            self._more.clear()
            await self._more.wait()
        return self._waiting.popleft()

    async def raw(self, data: bytes) -> None:
        """Send one message of text. Raises Disconnected."""
        if self.gone.done():
            raise Disconnected
        await self._send({"type": "websocket.send", "text": data.decode("utf-8", "replace")})

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if not self.gone.done():
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    def end(self) -> None:
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self) -> None:
        """Reads on while earlier messages are being answered, or nobody would hear that the client is gone."""
        while (event := await self._receive())["type"] == "websocket.receive":
            text = event.get("text")
            self._waiting.append((event.get("bytes") or b"") if text is None else text.encode("utf-8", "surrogatepass"))
            self._more.set()
            if len(self._waiting) > _MOST_WAITING:
                await self.close(TOO_MANY, "too many messages at once")
                break
        if not self.gone.done():
            self.gone.set_result(None)
        self._more.set()
