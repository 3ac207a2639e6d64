"""Run as a program: makes a kernel that cannot filter system calls, by filtering the call that would install a
filter, and then runs code in the restricted engine. Arguments: `allow` or `refuse`."""

import asyncio
import ctypes
import os
import struct
import sys

from mcpgate_sandbox.engine import Execution
from mcpgate_sandbox.errors import SandboxUnavailable
from mcpgate_sandbox.restricted import RestrictedEngine


async def nothing(*_: object) -> None: ...


async def main() -> None:
    engine = RestrictedEngine(warm=0, allow_unlocked=sys.argv[1] == "allow")
    try:
        outcome = await engine.run(Execution("6 * 7", (), nothing, lambda *_: None))
        print(outcome.result, outcome.error)
    except SandboxUnavailable as error:
        print("refused:", error)
    finally:
        await engine.aclose()


def without_filters() -> None:
    number = {"x86_64": 317, "aarch64": 277}[os.uname().machine]
    steps = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, header, 0, 0) == 0


without_filters()
asyncio.run(main())
