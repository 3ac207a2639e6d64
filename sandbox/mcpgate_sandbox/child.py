"""The process that guests in child processes come from. Started as a program, it loads what they share, and then forks
a child for every request that comes over its control socket. A child locks itself down (locks.py), says what locks
it, and serves executions over the one descriptor it has.

    python -I -S child.py KIND CONTROL_FD PATHS_AS_JSON

Requests on the control socket are a letter and a number: `f` (fork; the child's socket comes with it), answered by the
child's number or a negative errno; `d` (that child is done with: collect it); `w` (the same, and say how it ended).
Until then a dead child stays a zombie, so that its number cannot pass to another process.
"""

import errno
import functools
import gc
import json
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

NUMBER = struct.Struct("<q")
END = struct.Struct("<qq")
"""Wait status, and the most memory that it had, in KiB (on macOS bytes)."""
_STACK = 64 * 1024 * 1024
"""Bytes of stack of what runs code: as much as a Wasm guest needs (component.THREAD_STACK)."""
_WHY = b'["memory_mib", "the interpreter ran out of memory; what it held is lost"]'
_OUT_OF_MEMORY = struct.pack("<cI", b"f", len(_WHY)) + _WHY
_MIB = 1024 * 1024


def main() -> None:
    kind, control_fd, paths = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    sys.path[:] = paths
    control = socket.socket(fileno=control_fd)
    try:
        serve = load(kind)
    except BaseException as error:
        control.sendall(b"!" + f"{type(error).__name__}: {error}".encode()[:4000])
        return
    os.environ.clear()
    gc.collect()
    gc.freeze()  # what is allocated by now is shared with every child as long as nobody touches it
    control.sendall(b"+")
    children: set[int] = set()
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, 1 + NUMBER.size, 1)
        if not request:
            break
        if request[:1] == b"f":
            children.add(_fork(control, descriptors, serve))
        else:
            (pid,) = NUMBER.unpack(request[1:])
            status = peak = 0
            if pid in children:
                children.discard(pid)
                _, status, usage = os.wait4(pid, 0)
                peak = usage.ru_maxrss
            if request[:1] == b"w":
                control.sendall(END.pack(status, peak))
    for pid in children:  # the gateway is gone
        if pid > 0:
            os.kill(pid, signal.SIGKILL)


def _fork(control: socket.socket, descriptors: list[int], serve: "Serve") -> int:
    """The child's number, which the gateway is told too; instead of one, what went wrong as a negative errno."""
    try:
        pid = os.fork() if descriptors else -errno.EMFILE
    except OSError as error:
        pid = -(error.errno or errno.EAGAIN)
    if pid == 0:
        _child(descriptors[0], serve)
    for descriptor in descriptors:
        os.close(descriptor)
    control.sendall(NUMBER.pack(pid))
    return pid


def _child(descriptor: int, serve: "Serve") -> NoReturn:
    try:
        # A stack of its own: the main thread's would have to grow, which the limit of memory may forbid.
        threading.stack_size(_STACK)
        thread = threading.Thread(target=_serve, args=(serve, Connection(descriptor), descriptor))
        thread.start()
        thread.join()
    finally:
        os._exit(0)


def _serve(serve: "Serve", connection: "Connection", descriptor: int) -> None:
    try:
        serve(connection)
    except BaseException as error:
        try:
            if isinstance(error, MemoryError):
                raise
            connection.failed("", f"{type(error).__name__}: {error}")
        except MemoryError:
            os.write(descriptor, _OUT_OF_MEMORY)  # made beforehand: there may be no room to make it now


Serve = Callable[["Connection"], None]


def load(kind: str) -> Serve:
    """What a child of this kind does, with everything loaded that the children share."""
    if kind == "restricted":
        from mcpgate_sandbox.restriction import guest

        return guest.serve
    from mcpgate_sandbox import wasm

    return _wasm_child(wasm.Runtime())


class Connection:
    """A guest's side of the border: what it asks of the host goes over a descriptor."""

    def __init__(self, descriptor: int) -> None:
        from mcpgate_sandbox import frames

        self._descriptor, self._frames = descriptor, frames

    def lock_down(self) -> None:
        """Lock this process and tell the host what locks it."""
        from mcpgate_sandbox import locks

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
            code, options = self._frames.split(payload)
            if mib := json.loads(options).get("memory_mib"):
                self._limit_memory(mib)
            yield code, options

    def submit(self, id: int, name: str, arguments: str) -> None:
        self.send(b"s", self._frames.ID.pack(id), *self._frames.pair(name, arguments))

    def poll(self, timeout_ms: int) -> str:
        self.send(b"p", self._frames.MILLISECONDS.pack(timeout_ms))
        return self._answer()

    def call(self, name: str, arguments: str) -> str:
        self.send(b"c", *self._frames.pair(name, arguments))
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
        data = memoryview(self._frames.frame(kind, *parts))
        while data:
            data = data[os.write(self._descriptor, data) :]

    def receive(self) -> tuple[bytes, memoryview] | None:
        head = self._read(self._frames.HEAD.size)
        if head is None:
            return None
        kind, size = self._frames.HEAD.unpack(head)
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
            part = os.read(self._descriptor, min(size, _MIB))
            if not part:
                return None
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def _wasm_child(runtime: Any) -> Serve:
    from mcpgate_sandbox import wasm

    def serve(connection: Connection) -> None:
        instance = wasm.WasmInstance(runtime)
        instance.rehearse()
        connection.lock_down()
        for code, text in connection.executions():
            options = json.loads(text)
            instance.limit_memory(options["memory_mib"])
            try:
                connection.result(instance.enter(code, text, connection))
            except Exception as error:
                reason = wasm.explain(error, options["memory_mib"])
                limit = getattr(reason, "limit", "")
                connection.failed(limit, getattr(reason, "message", "") or getattr(reason, "how", ""))
                return

    return serve


if __name__ == "__main__":
    main()
