"""Small changes to a request's body that leave all its other bytes as the client sent them. Pure."""

import re
from typing import Any

import orjson

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def with_field(body: bytes, parsed: dict[str, Any], name: str, value: Any) -> bytes:
    """The body with another value of a field at its top, or with the field added at its beginning."""
    new = orjson.dumps(value)
    if name not in parsed:
        at = body.index(b"{") + 1
        comma = b"," if parsed else b""
        return body[:at] + orjson.dumps(name) + b":" + new + comma + body[at:]
    if isinstance(parsed[name], str):
        pattern = re.compile(rb'"' + re.escape(name.encode()) + rb'"\s*:\s*("(?:[^"\\]|\\.)*")')
        found = [match for match in pattern.finditer(body) if _is_at_top(body, match.start())]
        # A field that stands there twice, or is spelt with escapes, is rare enough to write everything anew.
        if len(found) == 1 and body.count(b'"' + name.encode() + b'"') == sum(1 for _ in pattern.finditer(body)):
            return body[: found[0].start(1)] + new + body[found[0].end(1) :]
    return orjson.dumps({**parsed, name: value})


def _is_at_top(body: bytes, at: int) -> bool:
    """Whether a place in a body is directly within its outermost object."""
    plain = _STRING.sub(b"", body[:at])
    if plain.count(b'"'):
        return False  # within a string
    depth = plain.count(b"{") - plain.count(b"}") + plain.count(b"[") - plain.count(b"]")
    return depth == 1
