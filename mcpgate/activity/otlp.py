"""Spans in the wire format of OTLP (https://github.com/open-telemetry/opentelemetry-proto, trace/v1/trace.proto).

OpenTelemetry's own encoder makes a message of protobuf for every attribute, which was most of what traces cost; see
docs/guides/observability.md. tests/activity/test_otlp.py compares what the two write.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache

from mcpgate.activity.spans import Attribute, Span

_ERROR = b"\x7a\x02\x18\x02"
"""status: {code: STATUS_CODE_ERROR}"""
_KNOWS_REMOTE, _IS_REMOTE = 0x100, 0x200
"""Of the flags of a span."""
_LONGEST_KEPT = 200
_TIMES = struct.Struct("<BQBQ")
_FLAGS = struct.Struct("<HI")
_DOUBLE = struct.Struct("<d")


def field(number: int, content: bytes) -> bytes:
    """A field that has a length: text, bytes or a message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def encoded(span: Span) -> bytes:
    """A message Span."""
    trace = span.trace
    found = [
        b"\x0a\x10" + bytes.fromhex(trace.id),
        b"\x12\x08" + bytes.fromhex(span.id),
        field(3, trace.state.encode()) if trace.state else b"",
        b"\x22\x08" + bytes.fromhex(span.parent) if span.parent else b"",
        field(5, span.name.encode("utf-8", "replace")),
        b"\x30\x02" if span.is_server else b"\x30\x03",  # kind: SPAN_KIND_SERVER or SPAN_KIND_CLIENT
        _TIMES.pack(0x39, round(span.began * 1e9), 0x41, round(span.ended * 1e9)),
    ]
    for name, value in span.attributes.items():
        is_kept = isinstance(value, str) and len(value) <= _LONGEST_KEPT
        found.append(_kept(name, value) if is_kept else _attribute(name, value))
    found.append(_ERROR if span.error else b"\x7a\x00")
    is_remote = bool(span.parent) and span.parent == trace.parent
    found.append(_FLAGS.pack(0x0185, _KNOWS_REMOTE | (_IS_REMOTE if is_remote else 0)))
    return b"".join(found)


def request(resource: bytes, scope: bytes, spans: Sequence[Span]) -> bytes:
    """A message ExportTraceServiceRequest. `resource` and `scope` are messages, too."""
    inner = [field(1, scope), *(field(2, encoded(span)) for span in spans)]
    return field(1, field(1, resource) + field(2, b"".join(inner)))


def _attribute(name: str, value: Attribute) -> bytes:
    """A field attributes of a Span."""
    if isinstance(value, str):
        content = field(1, value.encode("utf-8", "replace"))
    elif isinstance(value, bool):
        content = b"\x10\x01" if value else b"\x10\x00"
    elif isinstance(value, int):
        content = b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    else:
        content = b"\x21" + _DOUBLE.pack(value)
    return field(9, field(1, name.encode()) + field(2, content))


_kept = lru_cache(4096)(_attribute)
"""Names of models, servers, keys and teams come again and again."""


def _varint(number: int) -> bytes:
    if number < 0x80:
        return _SMALL[number]
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


_SMALL = [bytes((number,)) for number in range(0x80)]
