"""The process that guests in child processes come from. It loads what they share, and then forks a child for every
request that comes over its control socket. A child locks itself down (locks.py), says what locks it, and serves
executions over the one descriptor it has (connection.py).

    python -I -S -c BOOTSTRAP KIND CONTROL_FD PATHS_AS_JSON

Requests on the control socket are a letter and a number: `f` (fork; the child's socket comes with it), answered by the
child's number or a negative errno; `d` (that child is done with: collect it); `w` (the same, and say how it ended).
Until then a dead child stays a zombie, so that its number cannot pass to another process.
"""

import errno
import gc
import json
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from mcpgate_sandbox.connection import Connection

BOOTSTRAP = "import json, sys; sys.path[:] = json.loads(sys.argv[3]); from mcpgate_sandbox.child import main; main()"
"""Not a script: this module is then one and the same for the process and for whatever it imports."""
NUMBER = struct.Struct("<q")
END = struct.Struct("<qq")
"""Wait status, and the most memory that it had, in KiB (on macOS bytes)."""
_STACK = 64 * 1024 * 1024
"""Bytes of stack of what runs code: as much as a Wasm guest needs (component.THREAD_STACK)."""
_WHY = b'["memory_mib", "the interpreter ran out of memory; what it held is lost"]'
_OUT_OF_MEMORY = struct.pack("<cI", b"f", len(_WHY)) + _WHY

Serve = Callable[[Connection], None]


def main() -> None:
    kind, control_fd = sys.argv[1], int(sys.argv[2])
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


def _fork(control: socket.socket, descriptors: list[int], serve: Serve) -> int:
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


def _child(descriptor: int, serve: Serve) -> NoReturn:
    try:
        # A stack of its own: the main thread's would have to grow, which the limit of memory may forbid.
        threading.stack_size(_STACK)
        thread = threading.Thread(target=_serve, args=(serve, Connection(descriptor), descriptor))
        thread.start()
        thread.join()
    finally:
        os._exit(0)


def _serve(serve: Serve, connection: Connection, descriptor: int) -> None:
    try:
        serve(connection)
    except BaseException as error:
        try:
            if isinstance(error, MemoryError):
                raise
            connection.failed("", f"{type(error).__name__}: {error}")
        except MemoryError:
            os.write(descriptor, _OUT_OF_MEMORY)  # made beforehand: there may be no room to make it now


def load(kind: str) -> Serve:
    """What a child of this kind does, with everything loaded that the children share."""
    if kind == "restricted":
        from mcpgate_sandbox.restriction import guest

        return guest.serve
    from mcpgate_sandbox import wasm

    return _wasm_child(wasm.Runtime())


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
