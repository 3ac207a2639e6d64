"""One MCP client on stdin and stdout. Everything else that would print goes to stderr."""

import asyncio
import logging
import os
import queue
import select
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from mcpgate.api.mcp.face import McpFace
from mcpgate.api.mcp.outbox import wire
from mcpgate.api.mcp.protocol import INVALID_REQUEST, RpcFault, decode
from mcpgate.api.mcp.session import Session
from mcpgate.gateway import Gateway
from mcpgate.governance.callers import Caller

_DRAIN_S = 10.0
"""How long requests under way may go on after stdin was closed."""
_UNREAD = 64 * 1024 * 1024
"""Bytes that wait for a client that does not read."""
log = logging.getLogger("mcpgate.mcp")


async def serve(gateway: Gateway, stop: asyncio.Event, identify: Callable[[], Awaitable[Caller]] | None = None) -> None:
    """Serve until stdin is closed or `stop` is set. `identify`: who the client is, asked before each request."""
    output = os.dup(1)
    os.dup2(2, 1)  # a stray print must not get between two messages
    unread = asyncio.Event()
    writer = Writer(output, unread.set)
    session = Session(McpFace(gateway), writer.send, identify=identify)
    lines = _Lines(session, gateway.config.server.max_body_mib * 1024 * 1024)
    reader = threading.Thread(target=lines.read, args=(asyncio.get_running_loop(),), daemon=True)
    reader.start()
    ended = asyncio.ensure_future(lines.ended.wait())
    stopped = asyncio.ensure_future(stop.wait())
    full = asyncio.ensure_future(unread.wait())
    try:
        await asyncio.wait((ended, stopped, full), return_when=asyncio.FIRST_COMPLETED)
        if unread.is_set():
            log.error("the client leaves over %d MiB unread; ending", _UNREAD >> 20)
        await session.finish(0 if stop.is_set() or unread.is_set() else _DRAIN_S)
    finally:
        ended.cancel()
        stopped.cancel()
        full.cancel()
        session.close()
        writer.close()


class _Lines:
    """Reads stdin in a thread of its own (it may be a pipe, a file or a terminal) and hands whole messages to
    the loop; one that is too long is skipped and answered with an error."""

    def __init__(self, session: Session, limit: int) -> None:
        self._session, self._limit = session, limit
        self.ended = asyncio.Event()

    def read(self, loop: asyncio.AbstractEventLoop) -> None:
        chunks: list[bytes] = []
        size = 0
        try:
            while data := os.read(0, 1 << 16):
                *whole, rest = data.split(b"\n")
                for piece in whole:
                    if size + len(piece) > self._limit:
                        loop.call_soon_threadsafe(self._too_long, size + len(piece))
                    else:
                        chunks.append(piece)
                        loop.call_soon_threadsafe(self._on_line, b"".join(chunks))
                    chunks, size = [], 0
                size += len(rest)
                if size <= self._limit:
                    chunks.append(rest)
                else:
                    chunks = []
            if chunks and size <= self._limit:
                loop.call_soon_threadsafe(self._on_line, b"".join(chunks))
            loop.call_soon_threadsafe(self.ended.set)
        except (OSError, RuntimeError):  # stdin is gone, or the loop is
            try:
                loop.call_soon_threadsafe(self.ended.set)
            except RuntimeError:
                pass

    def _on_line(self, line: bytes) -> None:
        line = line.strip()
        if not line:
            return
        try:
            message = decode(line)
        except RpcFault as fault:
            self._session.send(fault.to_wire(None))
            return
        self._session.receive(message)

    def _too_long(self, size: int) -> None:
        fault = RpcFault(INVALID_REQUEST, f"a message of {size:,} bytes is over server.max_body_mib")
        self._session.send(fault.to_wire(None))


class Writer:
    """Writes messages in order. A short one goes straight out while the pipe has room; else a thread writes,
    so that a client that reads slowly never stops the loop."""

    def __init__(self, descriptor: int, on_full: Callable[[], None], limit: int = _UNREAD) -> None:
        """`on_full`: called when more than `limit` bytes wait; then nothing more is written. Progress is no longer
        written when an eighth of them do."""
        self._descriptor, self._on_full, self._limit = descriptor, on_full, limit
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._behind = 0
        """Bytes that the thread has not written yet; while there are any, order goes before speed."""
        self._full = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def send(self, message: dict[str, Any]) -> None:
        data = wire(message) + b"\n"
        with self._lock:
            # A pipe that select() calls writable takes PIPE_BUF bytes without blocking.
            if self._behind == 0 and len(data) <= select.PIPE_BUF and select.select((), (self._descriptor,), (), 0)[1]:
                try:
                    os.write(self._descriptor, data)
                except OSError:
                    pass  # the client is gone; stdin will say so too
                return
            if self._full or (self._behind > self._limit // 8 and message.get("method") == "notifications/progress"):
                return
            if self._behind and self._behind + len(data) > self._limit:
                self._full = True
                self._on_full()
                return
            self._behind += len(data)
        self._queue.put(data)

    def _write(self) -> None:
        while (data := self._queue.get()) is not None:
            left = memoryview(data)
            try:
                while left:
                    left = left[os.write(self._descriptor, left) :]
            except OSError:
                return
            with self._lock:
                self._behind -= len(data)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(2)
