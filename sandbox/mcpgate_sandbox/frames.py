"""Frames between a host and a guest in a child process: one letter, the length, the bytes. Both sides use this file;
imports nothing but the standard library.

    guest → host                                     host → guest
    w  ready: what locks it, as JSON                 x  run: the code, and options as JSON
    s  submit: id, name, arguments                   a  answer of p and c
    p  poll: milliseconds
    c  call: name, arguments
    e  emit: stream, text
    r  result: JSON of the outcome
    f  failed: name of a limit or nothing, and why the guest cannot go on, as JSON
"""

import struct

HEAD = struct.Struct("<cI")
ID = struct.Struct("<I")
MILLISECONDS = struct.Struct("<q")
MOST_BYTES = 2**32 - 1
"""What a length can say."""


def frame(kind: bytes, *parts: bytes) -> bytes:
    """Raises OverflowError for what no length can say."""
    size = sum(map(len, parts))
    if size > MOST_BYTES:
        raise OverflowError(f"{size:,} bytes do not fit into a frame")
    return b"".join((HEAD.pack(kind, size), *parts))


def pair(first: str, second: str) -> tuple[bytes, bytes, bytes]:
    """Two texts as the parts of a frame."""
    head = first.encode("utf-8", "replace")
    return ID.pack(len(head)), head, second.encode("utf-8", "replace")


def split(payload: memoryview) -> tuple[str, str]:
    """The two texts of `pair`. Raises ValueError, struct.error for what is none."""
    (size,) = ID.unpack_from(payload)
    at = ID.size + size
    if at > len(payload):
        raise ValueError("a text is shorter than it says")
    return str(payload[ID.size : at], "utf-8", "replace"), str(payload[at:], "utf-8", "replace")
