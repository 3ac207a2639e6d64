"""The guest's end of the pipe between a child process and its host: what the guest asks of the host goes out as frames,
and what the host wants comes in. It runs no code itself: see child, wasm and restriction/guest.

Imports nothing but the standard library and what imports no more itself, for every child loads it.
"""

import functools
import json
import os
from collections.abc import Iterator

from mcpgate_sandbox import frames, locks

_READ_BYTES = 1024 * 1024


class Connection:
    """A guest's side of the border: what it asks of the host goes over a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def lock_down(self) -> None:
        """Lock this process and tell the host what locks it."""
        has = locks.address_space()
        self._limit_memory = functools.partial(locks.limit_memory, has)
        active = locks.lock_down(self._descriptor)
        self.send(b"w", json.dumps([*active, "memory bounded (rlimit)"] if has else active).encode())

    def executions(self) -> Iterator[tuple[str, str]]:
        """The executions to run, each (code, options), until the host hangs up."""
        while (message := self.receive()) is not None:
            kind, payload = message
            if kind != b"x":
                return
            code, options = frames.split(payload)
            if mib := json.loads(options).get("memory_mib"):
                self._limit_memory(mib)
            yield code, options

    def submit(self, id: int, name: str, arguments: str) -> None:
        self.send(b"s", frames.ID.pack(id), *frames.pair(name, arguments))

    def poll(self, timeout_ms: int) -> str:
        self.send(b"p", frames.MILLISECONDS.pack(timeout_ms))
        return self._answer()

    def call(self, name: str, arguments: str) -> str:
        self.send(b"c", *frames.pair(name, arguments))
        return self._answer()

    def emit(self, fd: int, text: str) -> None:
        self.send(b"e", bytes([1 if fd == 1 else 2]), text.encode("utf-8", "replace"))

    def result(self, text: str) -> None:
        self.send(b"r", text.encode("utf-8", "replace"))

    def failed(self, limit: str, why: str) -> None:
        """`limit`: the name of the one that was reached, or nothing for a failure of the sandbox."""
        self.send(b"f", json.dumps([limit, why[:1000]]).encode())

    def tick(self) -> None:
        """The host watches the clocks of a child from outside."""

    def send(self, kind: bytes, *parts: bytes) -> None:
        data = memoryview(frames.frame(kind, *parts))
        while data:
            data = data[os.write(self._descriptor, data) :]

    def receive(self) -> tuple[bytes, memoryview] | None:
        head = self._read(frames.HEAD.size)
        if head is None:
            return None
        kind, size = frames.HEAD.unpack(head)
        payload = self._read(size)
        return None if payload is None else (kind, memoryview(payload))

    def _answer(self) -> str:
        message = self.receive()
        if message is None:
            os._exit(0)  # the host hung up: there is nobody to work for
        return str(message[1], "utf-8", "replace")

    def _read(self, size: int) -> bytes | None:
        parts = []
        while size:
            part = os.read(self._descriptor, min(size, _READ_BYTES))
            if not part:
                return None
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
