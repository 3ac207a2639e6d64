"""A real HTTP server that speaks MCP as each test tells it to, byte by byte: nothing corrects what it sends."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("one", "two", "slow")]


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    message: dict[str, Any]

    @property
    def rpc(self) -> str:
        """What it asks for, as JSON-RPC or as HTTP."""
        return str(self.message.get("method", self.method))

    @property
    def tool(self) -> str:
        return str(self.message.get("params", {}).get("name", "")) if self.rpc == "tools/call" else ""

    @property
    def session(self) -> str | None:
        return self.headers.get("mcp-session-id")


class Reply:
    """Writes the response to one request."""

    def __init__(self, writer: asyncio.StreamWriter, request: Request, sent: list[int]) -> None:
        self._writer, self.request, self._sent = writer, request, sent

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
        self._sent[0] += len(data)

    async def start(self, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        """Headers of a body in chunks."""
        await self._head(status, {"content-type": kind, "transfer-encoding": "chunked"}, headers)

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def event(self, message: Any, id: str = "") -> None:
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        await self.chunk((f"id: {id}\n".encode() if id else b"") + b"data: " + data + b"\n\n")

    async def end(self) -> None:
        await self.chunk(b"")

    async def whole(self, body: bytes, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        await self._head(status, {"content-type": kind, "content-length": str(len(body))}, headers)
        await self.raw(body)

    async def json(self, message: Any, status: int = 200, **headers: str) -> None:
        await self.whole(json.dumps(message).encode(), status, **headers)

    async def result(self, result: Any, **headers: str) -> None:
        await self.json({"jsonrpc": "2.0", "id": self.request.message.get("id"), "result": result}, **headers)

    async def text(self, text: str) -> None:
        await self.result({"content": [{"type": "text", "text": text}]})

    async def error(self, code: int, message: str, status: int = 200, id: Any = None, data: Any = None) -> None:
        error = {"code": code, "message": message, **({} if data is None else {"data": data})}
        await self.json({"jsonrpc": "2.0", "id": id, "error": error}, status)

    def drop(self) -> None:
        """Break the connection off, as a crash does."""
        self._writer.transport.abort()

    async def _head(self, status: int, fields: dict[str, str], more: dict[str, str]) -> None:
        named = {**fields, **{name.replace("_", "-"): value for name, value in more.items()}}
        lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        await self.raw(f"HTTP/1.1 {status} As Told\r\n{lines}\r\n".encode())


Answer = Callable[["HttpServer", Reply], Awaitable[bool]]


@dataclass
class HttpServer:
    """`answer` is asked first; where it says False, the server behaves as servers do."""

    answer: Answer
    sessions: bool = True
    url: str = ""
    seen: list[Request] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    """Its live sessions; clearing it is what a restart does."""
    begun: int = 0
    sent: list[int] = field(default_factory=lambda: [0])
    """Bytes that went out, in its only item."""
    tools: list[dict[str, Any]] = field(default_factory=lambda: list(TOOLS))

    def count(self, rpc: str) -> int:
        return sum(request.rpc == rpc for request in self.seen)

    def entry(self, **more: Any) -> dict[str, Any]:
        return {"url": f"{self.url}/mcp", "type": "http", "timeout_s": 10, "connect_timeout_s": 10, **more}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode("latin-1").split("\r\n")
                method, path, _ = first.split(" ", 2)
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = Request(method, path, headers, json.loads(body) if body else {})
                self.seen.append(request)
                reply = Reply(writer, request, self.sent)
                if not await self.answer(self, reply):
                    await self._behave(request, reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _behave(self, request: Request, reply: Reply) -> None:
        if request.rpc == "initialize":
            self.begun += 1
            session = f"session-{self.begun}"
            self.known.add(session)
            result = {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "told", "version": "1"},
            }
            await reply.result(result, **({"mcp_session_id": session} if self.sessions else {}))
        elif self.sessions and request.session not in self.known:
            await reply.whole(b"", 404)
        elif request.method != "POST":
            await reply.whole(b"", 405)
        elif "id" not in request.message:
            await reply.whole(b"", 202)
        elif request.rpc == "tools/list":
            await reply.result({"tools": self.tools})
        elif request.rpc == "tools/call":
            await reply.text(f"{request.tool} in {request.session}")
        else:
            await reply.result({})


async def as_usual(server: HttpServer, reply: Reply) -> bool:
    return False


@asynccontextmanager
async def http_server(answer: Answer = as_usual, **how: Any) -> AsyncIterator[HttpServer]:
    server = HttpServer(answer, **how)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(server.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 20)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
