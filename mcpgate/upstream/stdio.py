"""An upstream that is a child process: newline-delimited JSON on its stdin and stdout.

Our own and not the SDK's client: orjson over asyncio pipes costs a fraction of the CPU (benchmarks/code_mode has both)
and reads large messages in linear time.
"""

import asyncio
import logging
import os
import shutil
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from mcpgate.config.environment import child_environment
from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import UpstreamError
from mcpgate.upstream.framing import Inbox, Message, Transport, deliver, encode, log, report_unreadable
from mcpgate.upstream.reaping import reaper

_MIB = 1024 * 1024
_GRACE_S = 2.0
"""How long a child may take to leave after its stdin was closed, and again after SIGTERM."""


@asynccontextmanager
async def open_stdio(name: str, config: UpstreamConfig, inbox: Inbox) -> AsyncIterator[Transport]:
    """Start the child and talk over its pipes; on exit end it and its whole process group.
    Raises UpstreamError when it cannot be started."""
    assert config.command is not None
    environment = child_environment(config)
    command = shutil.which(config.command, path=environment.get("PATH"))
    if command is None:
        raise UpstreamError(f"command {config.command!r} was not found; is it installed, and on PATH?")
    cwd = os.path.expanduser(config.cwd) if config.cwd else None
    if cwd is not None and not os.path.isdir(cwd):
        raise UpstreamError(f"cwd {config.cwd!r} is not a folder")
    try:
        _, protocol = await asyncio.get_running_loop().subprocess_exec(
            lambda: _StdioProtocol(name, inbox, config.max_message_mib * _MIB),
            command,
            *config.args,
            env=environment,
            cwd=cwd,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise UpstreamError(f"{config.command!r} could not be started: {error}") from error
    reaper.watch(protocol.pid)
    try:
        yield protocol
    finally:
        await asyncio.shield(asyncio.ensure_future(protocol.end()))
        reaper.forget(protocol.pid)


class _StdioProtocol(asyncio.SubprocessProtocol):
    """One child: newline-delimited JSON on its stdin and stdout, its stderr into the log."""

    def __init__(self, name: str, inbox: Inbox, limit: int) -> None:
        self._name, self._inbox, self._limit = name, inbox, limit
        self._chunks: list[bytes] = []
        self._size = 0
        self._head = b""
        self._tail = b""
        self._stderr = _Stderr(name)
        self._writable = asyncio.Event()
        self._writable.set()
        self._exited = asyncio.Event()
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport
        self._stdin: Any = transport.get_pipe_transport(0)
        self.pid = transport.get_pid()

    async def send(self, message: Message, headers: Mapping[str, str] | None = None) -> None:
        if self._ended or self._stdin.is_closing():
            raise UpstreamError(self.describe_end())
        self._stdin.write(encode(message) + b"\n")
        if not self._writable.is_set():
            await self._writable.wait()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._stderr.feed(data)
            return
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._append(data[start:end])
            self._finish_line()
            start = end + 1
        if start < len(data):
            self._append(data[start:])

    def _append(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size <= self._limit:
            self._chunks.append(chunk)
            return
        # Too long: only its two ends are kept, where a JSON-RPC id stands.
        if self._chunks:
            self._head, self._chunks = b"".join(self._chunks)[:4096], []
        self._tail = (self._tail + chunk)[-4096:]

    def _finish_line(self) -> None:
        size, chunks, head, tail = self._size, self._chunks, self._head, self._tail
        self._chunks, self._size, self._head, self._tail = [], 0, b"", b""
        if size > self._limit:
            reason = f"an answer of {size / _MIB:,.0f} MiB is over the limit (max_message_mib={self._limit // _MIB})"
            report_unreadable(self._inbox, head, tail, reason)
            return
        line = b"".join(chunks).strip()
        if not line:
            return
        if line[:1] not in (b"{", b"["):
            log.debug("%s: not JSON-RPC on stdout: %s", self._name, line[:200].decode("utf-8", "replace"))
            return
        deliver(line, self._inbox)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._writable.set()
        if fd == 1 and not self._ended:
            # The child closed its stdout or died; give the exit status a moment to arrive.
            asyncio.get_running_loop().call_later(0.2, self._close)

    def process_exited(self) -> None:
        self._exited.set()
        asyncio.get_running_loop().call_soon(self._close)

    def _close(self) -> None:
        if not self._ended:
            self._ended = True
            self._inbox.on_close(self.describe_end())

    def describe_end(self) -> str:
        code = self._transport.get_returncode()
        if code is None:
            said = "closed its output"
        elif code < 0:
            said = f"was killed by {_SIGNALS.get(-code, f'signal {-code}')}"
        else:
            said = f"exited with code {code}"
        last = self._stderr.last()
        return f"the server process {said}" + (f"; its last words: {last}" if last else "")

    async def end(self) -> None:
        """Close stdin, then SIGTERM, then SIGKILL, each after a grace; the whole group in the end."""
        self._ended = True
        self._stdin.close()
        try:
            async with asyncio.timeout(_GRACE_S):
                await self._exited.wait()
        except TimeoutError:
            for deadly in (signal.SIGTERM, signal.SIGKILL):
                _signal_group(self.pid, deadly)
                try:
                    async with asyncio.timeout(_GRACE_S):
                        await self._exited.wait()
                    break
                except TimeoutError:
                    continue
        # What it had started itself (npx → node) goes with it.
        _signal_group(self.pid, signal.SIGKILL)
        self._transport.close()


_SIGNALS = {number.value: number.name for number in signal.Signals}


class _Stderr:
    """A child's stderr, line by line into the log under its name; a flood is counted, not copied."""

    _PER_SECOND = 50

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(f"mcpgate.upstream.{name}")
        self._rest = b""
        self._lines: deque[str] = deque(maxlen=5)
        self._second, self._count, self._dropped = 0, 0, 0

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-2000:]
        for line in lines:
            text = line[:2000].decode("utf-8", "replace").strip()
            if not text:
                continue
            self._lines.append(text)
            now = int(time.monotonic())
            if now != self._second:
                if self._dropped:
                    self._log.warning("… %d more lines of stderr", self._dropped)
                self._second, self._count, self._dropped = now, 0, 0
            self._count += 1
            if self._count <= self._PER_SECOND:
                self._log.info("%s", text)
            else:
                self._dropped += 1

    def last(self) -> str:
        lines = [*self._lines, *([self._rest.decode("utf-8", "replace").strip()] if self._rest.strip() else [])]
        return " | ".join(lines[-3:])[-500:]


def _signal_group(group: int, number: int) -> None:
    try:
        if hasattr(os, "killpg"):
            os.killpg(group, number)
        else:
            os.kill(group, number)
    except (ProcessLookupError, PermissionError, OSError):
        pass
