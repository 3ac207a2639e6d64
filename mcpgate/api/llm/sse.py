"""Server-sent events, as all formats write them."""

from typing import Any

from mcpgate import jsontext


def event(data: Any, name: str = "") -> bytes:
    """One whole event, with its blank line."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + jsontext.dumps(data) + b"\n\n"


DONE = b"data: [DONE]\n\n"
