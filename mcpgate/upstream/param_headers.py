"""`x-mcp-header`: arguments that a request of the 2026-07-28 revision repeats in HTTP headers, for proxies to route by.
Which they are, what they say, and whether they say what the body says. Pure."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any

KEY = "x-mcp-header"
PREFIX = "mcp-param-"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,200}")
_TYPES = ("string", "integer", "boolean")
_SINGLE = frozenset(
    ("items", "contains", "unevaluatedItems", "additionalProperties", "propertyNames", "unevaluatedProperties")
) | frozenset(("not", "if", "then", "else", "contentSchema"))
_LISTS = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
_MAPS = frozenset(("patternProperties", "dependentSchemas", "$defs", "definitions"))
_MOST_PLACES = 20_000
"""Places of a schema that are looked at."""
_WRAPPED = re.compile(r"=\?base64\?(.*)\?=")
Path = tuple[str, ...]


class Malformed(Exception):
    """A schema whose annotations mean nothing certain; the message says why."""


def header_paths(schema: Any) -> dict[Path, str]:
    """Path of a property in the arguments → the name of its header, in lower case. Raises Malformed: an annotation
    counts only on strings, integers and booleans that are reached through `properties` alone, and a name only once."""
    found: dict[Path, str] = {}
    names: set[str] = set()
    for path, place in _places(schema):
        if KEY not in place:
            continue
        token = place[KEY]
        if not path:
            raise Malformed(f"{KEY} stands where no argument of a certain name is described")
        where = ".".join(path)[:200]
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise Malformed(f"{KEY} of {where!r} is not a valid header name")
        if place.get("type") not in _TYPES:
            raise Malformed(f"{KEY} of {where!r} needs the type string, integer or boolean")
        if (name := PREFIX + token.lower()) in names:
            raise Malformed(f"{KEY} {token!r} occurs twice")
        names.add(name)
        found[path] = name
    return found


def headers_of(paths: Mapping[Path, str], arguments: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a call."""
    texts = {name: _text(_at(arguments, path)) for path, name in paths.items()}
    return {name: encoded(text) for name, text in texts.items() if text is not None}


def difference(paths: Mapping[Path, str], arguments: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """How the headers of a call contradict its arguments; empty if they do not."""
    for path, name in paths.items():
        value, said = _text(_at(arguments, path)), headers.get(name)
        where = ".".join(path)
        if value is None and said is not None:
            return f"the header {name} is there, but the argument {where} is not"
        if value is not None and said is None:
            return f"the header {name} is missing; it must repeat the argument {where}"
        if said is not None and not _same(_at(arguments, path), value, decoded(said.strip())):
            return f"the header {name} differs from the argument {where}"
    return ""


def encoded(text: str) -> str:
    """A text as the value of a header: as it is, or in base64 where a header could not carry it."""
    if text.isascii() and (text.isprintable() or not text) and text == text.strip() and not _WRAPPED.fullmatch(text):
        return text
    return f"=?base64?{base64.b64encode(text.encode('utf-8', 'replace')).decode()}?="


def decoded(value: str | None) -> str | None:
    """The reverse of `encoded`; None for what no text is encoded as."""
    found = _WRAPPED.fullmatch(value) if value is not None else None
    if found is None:
        return value
    try:
        data = base64.b64decode(found[1], validate=True)
        return data.decode() if base64.b64encode(data).decode() == found[1] else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def _same(value: Any, text: str | None, said: str | None) -> bool:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and said is not None:
        try:
            return float(said) == float(value)
        except (ValueError, OverflowError):
            return said == text
    return said == text


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, (str, int, float)):
        try:
            return str(value)
        except ValueError:  # more digits than Python writes
            return None
    return None


def _at(arguments: Any, path: Path) -> Any:
    for key in path:
        if not isinstance(arguments, Mapping):
            return None
        arguments = arguments.get(key)
    return arguments


def _places(schema: Any) -> Iterator[tuple[Path | None, Mapping[str, Any]]]:
    """Every place of a schema that describes a value, with its path; None where the path is not certain."""
    waiting: list[tuple[Path | None, Any]] = [((), schema)]
    left = _MOST_PLACES
    while waiting and left:
        left -= 1
        path, place = waiting.pop()
        if not isinstance(place, dict):
            continue
        yield path, place
        for key, value in place.items():
            if key == "properties" and isinstance(value, dict):
                waiting += [(None if path is None else (*path, name), inner) for name, inner in value.items()]
            elif key in _SINGLE:
                waiting.append((None, value))
            elif key in _LISTS and isinstance(value, list):
                waiting += [(None, inner) for inner in value]
            elif key in _MAPS and isinstance(value, dict):
                waiting += [(None, inner) for inner in value.values()]
