"""Small changes to a request's body that leave all its other bytes as the client sent them. Pure."""

import functools
import re
from collections.abc import Sequence
from typing import Any

from mcpgate import jsontext

DECIDING = (
    *("model", "stream", "stream_options", "n", "service_tier"),
    *("max_tokens", "max_completion_tokens", "max_output_tokens"),
)
"""Fields by which a request is admitted: a provider must read them as the gateway does."""
BINDING = ("previous_response_id", "conversation")
"""Fields of Responses by which a request is bound to what a provider keeps: so must they be."""
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BARE_STRING = re.compile(rb'"[^"]*"')
_ESCAPED_NAME = re.compile(rb"\\u00(?:[46][1-9a-f]|[57][0-9a]|5f)", re.IGNORECASE)
"""An escaped letter or underscore, which no program needs and which can hide the name of a field."""


def with_field(body: bytes, parsed: dict[str, Any], name: str, value: Any) -> bytes:
    """The body with another value of a field at its top, or with the field added at its beginning. A body that others
    could read differently is rewritten: see is_plain. Raises ValueError for what cannot be written."""
    changed = {**parsed, name: value}
    if not is_plain(body):
        return jsontext.dumps(changed)
    new = jsontext.dumps(value)
    if name not in parsed:
        at = body.index(b"{") + 1
        comma = b"," if parsed else b""
        return body[:at] + jsontext.dumps(name) + b":" + new + comma + body[at:]
    found = _string_field(name).search(body)
    if found is not None and _is_at_top(body, found.start()):
        string = _STRING.match(body, found.end())
        if string is not None:
            return body[: string.start()] + new + body[string.end() :]
    return jsontext.dumps(changed)


def is_plain(body: bytes, deciding: Sequence[str] = DECIDING) -> bool:
    """Whether each deciding field occurs at most once, at whatever depth, and none is spelt with escapes. Of duplicate
    keys some parsers take the first, others the last."""
    for quoted in _quoted(tuple(deciding)):
        if body.count(quoted) > 1:
            return False
    return (b"\\u00" not in body and b"\\U00" not in body) or _ESCAPED_NAME.search(body) is None


def mentions(body: bytes, name: bytes) -> bool:
    """Whether a field of a name can be anywhere in a body, however it is spelt."""
    return name in body or _ESCAPED_NAME.search(body) is not None


def find_lookalike(parsed: dict[str, Any], deciding: Sequence[str] = DECIDING) -> str | None:
    """A field that parsers which ignore case (Go's) take for a deciding one."""
    exact, folded = _spelt(tuple(deciding))
    for name in parsed:
        if name not in exact and name.casefold() in folded:
            return name
    return None


@functools.cache
def _spelt(names: tuple[str, ...]) -> tuple[frozenset[str], frozenset[str]]:
    """As they are, and without case."""
    return frozenset(names), frozenset(name.casefold() for name in names)


@functools.cache
def _quoted(names: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(b'"' + name.encode() + b'"' for name in names)


@functools.cache
def _string_field(name: str) -> re.Pattern[bytes]:
    """The name of a field whose value is a string."""
    return re.compile(rb'"' + name.encode() + rb'"\s*:\s*(?=")')


def _is_at_top(body: bytes, at: int) -> bool:
    """Whether a place in a body is directly within its outermost object. Linear in `at`."""
    # Without escapes first: a regular expression would need half a second for the most that a body may have.
    plain = _BARE_STRING.sub(b"", body[:at].replace(b"\\\\", b"").replace(b'\\"', b""))
    if plain.count(b'"'):
        return False  # within a string
    depth = plain.count(b"{") - plain.count(b"}") + plain.count(b"[") - plain.count(b"]")
    return depth == 1
