"""An upstream that is a child process: newline-delimited JSON on its stdin and stdout.

We do not use the SDK's client: orjson over asyncio pipes costs a fraction of the CPU (benchmarks/code_mode has
both) and reads large messages in linear time.
"""

import asyncio
import contextlib
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
from mcpgate.upstream.framing import (
    Broken,
    Inbox,
    Message,
    Pace,
    Transport,
    deliver,
    encode,
    log,
    report_unreadable,
    too_long,
)
from mcpgate.upstream.lastwords import telling
from mcpgate.upstream.reaping import reaper
from mcpgate.upstream.secrets import Secrets
from mcpgate.upstream.untrusted import one_line

_MIB = 1024 * 1024
_ENDS = 4096
"""Bytes kept of each end of an oversized line: the JSON-RPC id is at one of them."""
_GRACE_S = 2.0
_STATUS_WAIT_S = 2.0
"""From the end of a process's output to its exit status, which says why it ended: longer only on a machine that is
overloaded, or where the process goes on without its output."""
"""How long a child may take to exit after its stdin was closed, and again after SIGTERM."""


@asynccontextmanager
async def open_stdio(name: str, config: UpstreamConfig, inbox: Inbox, secrets: Secrets) -> AsyncIterator[Transport]:
    """Start the child and communicate over its pipes. On exit, end it and its process group. Raises UpstreamError
    if it cannot be started."""
    assert config.command is not None
    environment = child_environment(config)
    command = shutil.which(config.command, path=environment.get("PATH"))
    if command is None:
        if os.path.isdir(config.command):
            raise UpstreamError(f"command {config.command!r} is a folder, not a program")
        if os.path.isfile(config.command):
            raise UpstreamError(f"command {config.command!r} exists but is not executable; chmod +x makes it so")
        program, *arguments = config.command.split() or [""]
        if arguments and shutil.which(program, path=environment.get("PATH")):
            raise UpstreamError(
                f"no program is called {f'{program} …'!r}; write `command: {program}` and what follows under `args`"
            )
        raise UpstreamError(f"command {config.command!r} was not found; is it installed, and on PATH?")
    cwd = os.path.expanduser(config.cwd) if config.cwd else None
    if cwd is not None and not os.path.isdir(cwd):
        raise UpstreamError(f"cwd {config.cwd!r} is not a folder")
    try:
        _, protocol = await asyncio.get_running_loop().subprocess_exec(
            lambda: _StdioProtocol(name, inbox, config.max_message_mib * _MIB, _Stderr(name, secrets)),
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
    """One child: newline-delimited JSON on its stdin and stdout; its stderr goes to the log."""

    session: str | None = None
    hangs_up = False

    def __init__(self, name: str, inbox: Inbox, limit: int, stderr: "_Stderr") -> None:
        self._name, self._inbox, self._limit, self._stderr = name, inbox, limit, stderr
        self._line = bytearray()
        self._size = 0
        self._head = self._tail = b""
        self._pace = Pace()
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
        line = encode(message) + b"\n"
        while not self._writable.is_set():
            await self._writable.wait()
        if self._ended or self._stdin.is_closing():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STATUS_WAIT_S):
                    await self._exited.wait()  # how it ended is known in a moment
            raise self.describe_end()
        self._stdin.write(line)

    def offer(self, message: Message) -> None:
        if self._writable.is_set() and not self._ended and not self._stdin.is_closing():
            self._stdin.write(encode(message) + b"\n")

    def give_up(self, request_id: int) -> None:
        pass

    async def settled(self) -> None:
        pass

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._stderr.feed(data)
            return
        start, wait_s = 0, 0.0
        while (end := data.find(b"\n", start)) >= 0:
            self._append(data[start:end])
            size = self._size + 1 if self._size <= self._limit else end - start
            if not self._finish_line():
                wait_s = self._pace.spend(size)
            start = end + 1
        if start < len(data):
            self._append(data[start:])
            if self._size > self._limit:
                wait_s = self._pace.spend(len(data) - start)
        if wait_s > 0:
            self._pause_reading(wait_s)

    def _pause_reading(self, seconds: float) -> None:
        """Stop reading for a while: a child that sends unsolicited messages too fast waits at its pipe."""
        stdout: Any = self._transport.get_pipe_transport(1)
        if stdout is not None and not stdout.is_closing():
            stdout.pause_reading()
            asyncio.get_running_loop().call_later(seconds, stdout.resume_reading)

    def _append(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= self._limit:
            self._line += piece
            return
        if not self._tail:
            self._head, self._line = bytes(self._line[:_ENDS] + piece[:_ENDS])[:_ENDS], bytearray()
        self._tail = (self._tail + piece)[-_ENDS:]

    def _finish_line(self) -> bool:
        """Whether it was asked for."""
        size, line, head, tail = self._size, bytes(self._line).strip(), self._head, self._tail
        self._line, self._size, self._head, self._tail = bytearray(), 0, b"", b""
        if size > self._limit:
            report_unreadable(self._inbox, head, tail, too_long(size, self._limit))
            return False
        if line[:1] not in (b"{", b"[", b"\xef"):
            if line:
                log.debug("%s: not JSON-RPC on stdout: %s", self._name, line[:200].decode("utf-8", "replace"))
            return False
        return deliver(line, self._inbox)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._writable.set()
        if fd == 1 and not self._ended:
            # The child closed its stdout or died. Wait briefly for the exit status.
            asyncio.get_running_loop().call_later(_STATUS_WAIT_S, self._close)

    def process_exited(self) -> None:
        self._exited.set()
        asyncio.get_running_loop().call_soon(self._close)

    def _close(self) -> None:
        if not self._ended:
            self._ended = True
            self._inbox.on_close(self.describe_end())

    def describe_end(self) -> Broken:
        code = self._transport.get_returncode()
        if code is None:
            said = "closed its output"
        elif code < 0:
            said = f"was killed by {_SIGNALS.get(-code, f'signal {-code}')}"
        else:
            said = f"exited with code {code}"
        last = self._stderr.last()
        return Broken(
            f"the server process {said}", f"the server process {said}; its last words: {last}" if last else ""
        )

    async def end(self) -> None:
        """Close stdin, then send SIGTERM, then SIGKILL, each after a grace period; finally end the whole group."""
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
        # This ends its own children too (npx → node).
        _signal_group(self.pid, signal.SIGKILL)
        self._transport.close()


_SIGNALS = {number.value: number.name for number in signal.Signals}


class _Stderr:
    """Logs a child's stderr line by line under its name, without secrets. A flood is counted instead of copied."""

    _PER_SECOND = 50
    _LONGEST = 8000
    """Maximum bytes kept of a line."""
    _SHOWN = 2000

    def __init__(self, name: str, secrets: Secrets) -> None:
        self._log = logging.getLogger(f"mcpgate.upstream.{name}")
        self._secrets = secrets
        self._rest = b""
        self._lines: deque[bytes] = deque(maxlen=40)
        self._second, self._count, self._dropped = 0, 0, 0

    def feed(self, data: bytes) -> None:
        if self._count > self._PER_SECOND and int(time.monotonic()) == self._second:
            # During a flood only the last lines are read.
            recent = data[-self._LONGEST :]
            skipped = data.count(b"\n") - recent.count(b"\n")
            if skipped:
                self._dropped, self._rest = self._dropped + skipped, b""
            data = recent
        first, *others = data.split(b"\n")
        self._rest += first[: max(0, self._LONGEST - len(self._rest))]
        for start in others:
            self._finish_line()
            self._rest = start[: self._LONGEST]

    def _finish_line(self) -> None:
        line, self._rest = self._rest.strip(), b""
        if not line:
            return
        self._lines.append(line)
        now = int(time.monotonic())
        if now != self._second:
            if self._dropped:
                self._log.warning("… %d more lines of stderr", self._dropped)
            self._second, self._count, self._dropped = now, 0, 0
        self._count += 1
        if self._count > self._PER_SECOND:
            self._dropped += 1
        elif self._log.isEnabledFor(logging.INFO):
            self._log.info("%s", self._shown(line, self._SHOWN))

    def _shown(self, line: bytes, limit: int) -> str:
        return one_line(self._secrets.mask(line.decode("utf-8", "replace"), limit), limit)

    def last(self) -> str:
        lines = [self._shown(line, 300) for line in (*self._lines, self._rest.strip()) if line]
        return " | ".join(telling(lines))


def _signal_group(group: int, number: int) -> None:
    try:
        if hasattr(os, "killpg"):
            os.killpg(group, number)
        else:
            os.kill(group, number)
    except (ProcessLookupError, PermissionError, OSError):
        pass
