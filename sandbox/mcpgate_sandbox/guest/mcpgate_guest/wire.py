"""How values cross between guest and host. The first character of an answer tells what follows:

    "   text, as it is
    +   JSON
    *   JSON in which {mark: {...}} stands for an image, a blob or a stored value
    -   JSON of an error: {"kind", "message", "server", "tool", "data"}

Imports nothing from the host's side; the host has its own half in host.py.
"""

import base64
import dataclasses
import datetime
import decimal
import enum
import fractions
import json
import pathlib
import uuid
from typing import Any

import wit_world

from mcpgate_guest.errors import error_from

_strict = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_lenient = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_std_default = json.JSONEncoder.default


NO_MARK = "$handle"
mark = NO_MARK
"""The key that stands for a handle; the host gives each execution another one, which no upstream knows."""


class Handle:
    """Something kept on the host: an image, audio, a blob or a long value. `repr` shows what it is;
    `.bytes()` and `.text()` load it; returning it (or a list of handles) from the code attaches it to
    the answer as MCP content."""

    __slots__ = ("id", "kind", "mime_type", "size", "uri")

    def __init__(self, id: str, kind: str, mime_type: str, size: int, uri: str | None = None) -> None:
        self.id, self.kind, self.mime_type, self.size, self.uri = id, kind, mime_type, size, uri

    def __repr__(self) -> str:
        where = f" {self.uri}" if self.uri else ""
        return f"<{self.kind} {self.id}: {self.mime_type}, {self.size:,} bytes{where}>"

    def bytes(self) -> bytes:
        return base64.b64decode(call("@bytes", [[self.id], {}]))

    def text(self) -> str:
        return self.bytes().decode("utf-8", "replace")


def _as_handle(node: dict[str, Any]) -> Any:
    if len(node) == 1 and isinstance(inner := node.get(mark), dict):
        return Handle(**inner)
    return node


def decode(answer: str) -> Any:
    """The value of an answer; raises ToolError for an error."""
    tag, body = answer[:1], answer[1:]
    if tag == '"':
        return body
    if tag == "+":
        return json.loads(body)
    if tag == "*":
        return json.loads(body, object_hook=_as_handle)
    raise error_from(json.loads(body))


def simplify(value: Any) -> Any:
    """What JSON has no word for, as the nearest thing it has; TypeError for the rest."""
    resolve = getattr(type(value), "_mcpgate_value", None)
    if resolve is not None:
        return resolve(value)
    if isinstance(value, Handle):
        return {mark: {"id": value.id}}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        try:
            return sorted(value)
        except TypeError:
            return list(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, decimal.Decimal):
        if value == value.to_integral_value():
            return int(value)
        nearest = float(value)
        return nearest if decimal.Decimal(repr(nearest)) == value else str(value)
    if isinstance(value, (uuid.UUID, pathlib.PurePath, fractions.Fraction, datetime.timedelta)):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("bytes cannot go into JSON; use base64.b64encode(…).decode() or .decode()")
    if hasattr(value, "_asdict"):
        return value._asdict()
    if hasattr(value, "keys") and hasattr(value, "__getitem__"):
        return {key: value[key] for key in value.keys()}
    if hasattr(value, "__iter__") and not isinstance(value, type):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot go into JSON")


_strict.default = _lenient.default = simplify  # type: ignore[method-assign]


def encode(value: Any) -> str:
    """JSON of arguments. Raises TypeError where a value has no JSON form, ValueError for NaN."""
    return clean(_strict.encode(value))


def encode_result(value: Any) -> str:
    """JSON of a result: NaN is allowed, for the host names it, and what has no JSON form is written as its repr."""
    try:
        return clean(_lenient.encode(value))
    except (TypeError, ValueError, RecursionError):
        return clean(_lenient.encode(_describe(value, 0)))


def clean(text: str) -> str:
    """Text that can be written as UTF-8: lone surrogates cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _describe(value: Any, depth: int) -> Any:
    if depth > 50:
        return "…"
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, dict):
        return {k if isinstance(k, str) else repr(k): _describe(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_describe(v, depth + 1) for v in value]
    try:
        return _describe(simplify(value), depth + 1)
    except Exception:
        return repr(value)


def call(name: str, arguments: Any) -> Any:
    """Call the host and wait for the answer."""
    return decode(wit_world.call(name, encode(arguments)))


def _patient_default(self: json.JSONEncoder, value: Any) -> Any:
    # Lets the model's own json.dumps() take a tool's pending answer, which is not yet a plain value.
    resolve = getattr(type(value), "_mcpgate_value", None)
    return resolve(value) if resolve is not None else _std_default(self, value)


json.JSONEncoder.default = _patient_default  # type: ignore[method-assign]
