"""Arguments of the meta-tools as clients and models send them. Pure.

Lenient where the meaning is certain: null and the empty text mean "not given" for what is optional, numbers and lists
may come as text (some clients send everything so), a bare name is a list of one, a `timeout_s` or `limit` of 0 asks
for the default, for callers that must fill in every argument.
"""

import json
from collections.abc import Callable
from typing import Any

from mcpgate.catalog.catalog import nearest
from mcpgate.errors import InvalidRequest

_NOT_GIVEN = object()


def _text(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return value
    raise InvalidRequest(f"{name} must be text, not {_kind(value)}")


def _optional_text(name: str, value: Any) -> Any:
    return _NOT_GIVEN if isinstance(value, str) and not value.strip() else _text(name, value)


def _number(name: str, value: Any) -> Any:
    if isinstance(value, str):
        if not value.strip():
            return _NOT_GIVEN
        try:
            value = float(value)
        except ValueError:
            raise InvalidRequest(f"{name} must be a number, not {value[:40]!r}") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidRequest(f"{name} must be a number, not {_kind(value)}")
    if not abs(value) <= _LARGEST:
        raise InvalidRequest(f"{name} is out of range")
    return value if value else _NOT_GIVEN


def _whole_number(name: str, value: Any) -> Any:
    number = _number(name, value)
    if number is _NOT_GIVEN:
        return number
    if number != int(number):
        raise InvalidRequest(f"{name} must be a whole number, not {number:g}")
    return int(number)


def _names(name: str, value: Any) -> Any:
    if isinstance(value, str):
        try:
            parsed = json.loads(value) if value.lstrip().startswith("[") and len(value) < 100_000 else value
        except (ValueError, RecursionError):
            parsed = value
        value = parsed if isinstance(parsed, list) else [part for part in value.replace(",", " ").split() if part]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidRequest(f'{name} must be a list of strings, e.g. ["files.read_text_file"], not {_kind(value)}')
    return value


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "an object"
    return "null"


_ARGUMENTS: dict[str, dict[str, Callable[[str, Any], Any]]] = {
    "list_tools": {"query": _optional_text, "server": _optional_text, "limit": _whole_number},
    "describe_tools": {"names": _names},
    "read_docs": {"topic": _text},
    "execute_code": {"code": _text, "session": _optional_text, "timeout_s": _number},
}
_REQUIRED = {"describe_tools": "names", "read_docs": "topic", "execute_code": "code"}
_LARGEST = 1e9
"""Of any number; JSON may hold integers that no float can."""


def checked(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a meta-tool that were given, by name. Raises InvalidRequest."""
    known = _ARGUMENTS[name]
    given = {}
    for key, value in arguments.items():
        if key not in known:
            near = nearest(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
            raise InvalidRequest(f"{name} has no argument {key[:200]!r}; {hint}")
        if value is None:
            continue
        taken = known[key](f"{name}: {key}", value)
        if taken is not _NOT_GIVEN:
            given[key] = taken
    required = _REQUIRED.get(name)
    if required and required not in given:
        raise InvalidRequest(f"{name} needs {required!r}")
    return given
