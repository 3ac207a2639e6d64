"""A port in the test's own loop, with an application of the test's, and raw sockets to speak to it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from mcpgate.api.http.port import Port, PortLimits


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the length of the body, when it is whole."""
    size = 0
    while (event := await receive())["type"] == "http.request":
        size += len(event["body"])
        if not event["more_body"]:
            break
    await answer(send, f"{scope['method']} {scope['path']} {size}".encode())


async def answer(send: Any, body: bytes, status: int = 200) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Client:
    """One raw connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self) -> bytes:
        """Everything until the other side closes."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def response(self) -> tuple[int, bytes]:
        """One response with a content-length."""
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            return int(head.split()[1]), await self.reader.readexactly(length)

    async def get(self, path: str = "/", host: str = "x") -> tuple[int, bytes]:
        await self.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        return await self.response()


class Opened:
    def __init__(self, port: Port, number: int) -> None:
        self.port, self.number = port, number
        self._clients: list[Client] = []

    async def connect(self, source: str = "127.0.0.1", receive_buffer: int | None = None) -> Client:
        connection = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.setblocking(False)
        connection.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.number))
        reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 16)
        client = Client(reader, writer)
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            client.writer.transport.abort()


@asynccontextmanager
async def serving(
    app: Callable[[Any, Any, Any], Awaitable[None]] = echo,
    http: str = "httptools",
    trusted: Any = lambda: (),
    when_full: Callable[[Any, Any, Any], Awaitable[None]] | None = None,
    **limits: Any,
) -> AsyncIterator[Opened]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = Port(app, PortLimits(**limits), trusted, when_full, http)
    serve = asyncio.create_task(port.serve(listener))
    opened = Opened(port, listener.getsockname()[1])
    try:
        yield opened
    finally:
        await opened.close()
        port.stop()
        await serve
