"""Run as a program: locks itself as a guest's process does, then tries what it must not be able to do, and writes to
its one descriptor what came of each as JSON."""

import ctypes
import errno
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any


def main() -> None:
    descriptor = int(sys.argv[1])
    victim = int(sys.argv[2])
    from mcpgate_sandbox import locks

    libc = ctypes.CDLL(None, use_errno=True)
    spare = os.dup(descriptor)
    page = 4096
    libc.mmap.restype = ctypes.c_void_p
    active = locks.lock_down(descriptor)

    def native(*arguments: Any) -> None:
        if libc.syscall(*arguments) == -1:
            raise OSError(ctypes.get_errno(), "")

    def executable_memory() -> None:
        if libc.mmap(None, page, 7, 0x22, -1, 0) in (None, ctypes.c_void_p(-1).value):
            raise OSError(errno.EPERM, "")

    attempts: dict[str, Callable[[], Any]] = {
        "open a file": lambda: os.open("/etc/hostname", os.O_RDONLY),
        "write a file": lambda: os.open("/tmp/lock_probe", os.O_CREAT | os.O_WRONLY),
        "list a folder": lambda: os.listdir("/"),
        "ask about a file": lambda: os.stat("/etc"),
        "make a socket": lambda: socket.socket(),
        "make a pair of sockets": lambda: socket.socketpair(),
        "fork": lambda: os.fork(),
        "start a program": lambda: os.execv("/bin/true", ["true"]),
        "start a thread": lambda: threading.Thread(target=int).start(),
        "kill another": lambda: os.kill(victim, signal.SIGKILL),
        "kill itself": lambda: os.kill(os.getpid(), 0),
        "limit another": lambda: native(302 if os.uname().machine == "x86_64" else 261, victim, 7, None, None),
        "become root": lambda: os.setresuid(0, 0, 0),
        "write elsewhere": lambda: os.write(spare, b"x"),
        "duplicate a descriptor": lambda: os.dup(descriptor),
        "make a pipe": lambda: os.pipe(),
        "map executable memory": executable_memory,
        "lift the filter": lambda: native(317 if os.uname().machine == "x86_64" else 277, 1, 0, None),
        "change the working folder": lambda: os.chdir("/"),
        "read the environment": lambda: [][len(os.environ) or 1],
    }
    found = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            found[name] = "done"
        except BaseException as error:
            found[name] = type(error).__name__
    os.write(descriptor, json.dumps({"active": active, "found": found}).encode())
    os._exit(0)


main()
