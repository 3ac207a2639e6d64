"""What a schema of each draft may contain: which keyword holds a schema, which a number. As tables, so that checking a
schema takes one step per part, whoever wrote it. Draft 3 is not supported; its schemas are not checked."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from mcpgate.catalog.brief import brief

MAX_PARTS = 50_000
"""Maximum number of schemas, keywords and names in one schema that are checked."""

Check = Callable[[Any], str]
"""What is wrong with a keyword's value; empty if nothing is."""
Path = tuple[Any, str] | None
"""The location of a part of a schema: the path of the part that contains it, and its name there."""
TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


class TooLarge(Exception):
    """The schema has more parts than are checked."""


def fault_in(schema: Any, draft: int) -> str | None:
    """What is wrong with a schema in a dialect, or None. Raises TooLarge."""
    table, parts = _TABLES[draft], 0
    waiting: list[tuple[Any, Path]] = [(schema, None)]
    while waiting:
        part, path = waiting.pop()
        parts += 1
        if isinstance(part, bool) and draft > 4:
            continue
        if not isinstance(part, dict):
            return _said(path, f"{brief(part)} is not of type 'object'" + (" or 'boolean'" if draft > 4 else ""))
        inner: list[tuple[Any, Path]] = []
        for keyword, value in part.items():
            kind = table.get(keyword)
            if isinstance(kind, str):
                inner += ((sub, (path, name)) for name, sub in _schemas_in(kind, keyword, value, draft))
            parts += 1 + (len(value) if kind and isinstance(value, (list, dict)) else 0)
            if parts > MAX_PARTS:
                raise TooLarge
            if kind is not None and (wrong := (_HOLDERS[kind] if isinstance(kind, str) else kind)(value)):
                return _said((path, keyword), wrong)
            if draft == 4 and keyword in ("exclusiveMinimum", "exclusiveMaximum") and _plain(keyword) not in part:
                return _said(path, f"{_plain(keyword)!r} is a dependency of {keyword!r}")
        waiting += reversed(inner)
    return None


def subschemas(schema: Any, draft: int) -> Iterator[dict[str, Any]]:
    """The schema and all objects in it, up to MAX_PARTS."""
    table, left = _TABLES[draft], MAX_PARTS
    waiting = [schema]
    while waiting and left > 0:
        part = waiting.pop()
        left -= 1
        if not isinstance(part, dict):
            continue
        yield part
        for keyword, value in part.items():
            kind = table.get(keyword)
            left -= 1
            if isinstance(kind, str):
                waiting += (sub for _, sub in _schemas_in(kind, keyword, value, draft))


def _schemas_in(kind: str, keyword: str, value: Any, draft: int) -> Iterator[tuple[str, Any]]:
    """The schemas in a keyword's value, each after its place."""
    if isinstance(value, (list, dict)) and len(value) > MAX_PARTS:
        raise TooLarge
    if kind == "schema" or (kind == "items" and not isinstance(value, list)):
        if not (draft == 4 and isinstance(value, bool) and keyword.startswith("additional")):
            yield keyword, value
    elif kind in ("schemas", "items") and isinstance(value, list):
        yield from ((f"{keyword}[{at}]", sub) for at, sub in enumerate(value))
    elif kind in ("named", "dependencies") and isinstance(value, dict):
        for name, sub in value.items():
            if kind == "named" or not isinstance(sub, list):
                yield f"{keyword}.{name[:60]}", sub


def _said(path: Path, message: str) -> str:
    names: list[str] = []
    while path is not None and len(names) < 6:
        path, name = path
        names.append(name)
    return f"{'.'.join(reversed(names))}: {message}" if names else message


def _plain(keyword: str) -> str:
    return keyword.removeprefix("exclusive").lower()


# --- checks of keywords' values


def _is(value: Any, kind: str) -> bool:
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, {"string": str, "boolean": bool, "array": list, "object": dict}[kind])


def _of(kind: str) -> Check:
    return lambda value: "" if _is(value, kind) else f"{brief(value)} is not of type {kind!r}"


def _positive(value: Any) -> str:
    if not _is(value, "number"):
        return f"{brief(value)} is not of type 'number'"
    return "" if value > 0 else f"{brief(value)} is not more than 0"


def _count(value: Any) -> str:
    if not _is(value, "number") or (isinstance(value, float) and not value.is_integer()):
        return f"{brief(value)} is not of type 'integer'"
    return "" if value >= 0 else f"{brief(value)} is less than the minimum of 0"


def _count_of_old(value: Any) -> str:
    return f"{brief(value)} is not of type 'integer'" if isinstance(value, float) else _count(value)


def _names(value: Any) -> str:
    if not isinstance(value, list):
        return f"{brief(value)} is not of type 'array'"
    if odd := [name for name in value if not isinstance(name, str)][:1]:
        return f"{brief(odd[0])} is not of type 'string'"
    return "" if len(set(value)) == len(value) else f"{brief(value)} has non-unique elements"


def _some_names(value: Any) -> str:
    return f"{brief(value)} should be non-empty" if value == [] else _names(value)


def _type(value: Any) -> str:
    kinds = value if isinstance(value, list) else [value]
    if not kinds or not all(isinstance(kind, str) and kind in TYPES for kind in kinds[:10]):
        return f"{brief(value)} is not valid: a type is one of {', '.join(TYPES)}, or several of them"
    return f"{brief(value)} has non-unique elements" if len(set(kinds[:10])) != len(kinds) else ""


def _some(value: Any) -> str:
    wrong = _of("array")(value)
    return f"{brief(value)} should be non-empty" if not wrong and not value else wrong


def _items(value: Any) -> str:
    return _some(value) if isinstance(value, list) else ""


def _dependencies(value: Any) -> str:
    """Lists of names, or schemas."""
    return _of("object")(value) or _each_names([names for names in value.values() if isinstance(names, list)])


def _dependencies_of_names(value: Any) -> str:
    return _of("object")(value) or _each_names(list(value.values()))


def _each_names(several: list[Any]) -> str:
    if sum(len(names) for names in several if isinstance(names, list)) > MAX_PARTS:
        raise TooLarge
    return next((wrong for names in several if (wrong := _names(names))), "")


def _vocabulary(value: Any) -> str:
    return _of("object")(value) or next((wrong for used in value.values() if (wrong := _BOOLEAN(used))), "")


def _matching(pattern: str, what: str) -> Check:
    known = re.compile(pattern)

    def check(value: Any) -> str:
        return _STRING(value) or ("" if known.fullmatch(value) else f"{brief(value)} is not {what}")

    return check


_STRING, _BOOLEAN, _NUMBER, _ARRAY = _of("string"), _of("boolean"), _of("number"), _of("array")
_HOLDERS: dict[str, Check] = {
    "schema": lambda value: "",
    "schemas": _some,
    "items": _items,
    "named": _of("object"),
    "dependencies": _dependencies,
}
"""Checks of the values of keywords that hold schemas, in addition to checking those schemas."""

_COUNTS = ("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties")
Table = dict[str, str | Check]

_COMMON: Table = {
    **dict.fromkeys(("title", "description", "pattern", "format", "$schema"), _STRING),
    **dict.fromkeys(("maximum", "minimum"), _NUMBER),
    **dict.fromkeys(("properties", "patternProperties", "definitions"), "named"),
    **dict.fromkeys(("allOf", "anyOf", "oneOf"), "schemas"),
    **dict.fromkeys(("additionalProperties", "not"), "schema"),
    "multipleOf": _positive,
    "uniqueItems": _BOOLEAN,
    "dependencies": "dependencies",
    "type": _type,
}
_4: Table = {
    **_COMMON,
    **dict.fromkeys(_COUNTS, _count_of_old),
    **dict.fromkeys(("exclusiveMaximum", "exclusiveMinimum"), _BOOLEAN),
    "items": "items",
    "additionalItems": "schema",
    "id": _STRING,
    "required": _some_names,
    "enum": _some,
}
_6: Table = {
    **_COMMON,
    **dict.fromkeys(_COUNTS, _count),
    **dict.fromkeys(("exclusiveMaximum", "exclusiveMinimum"), _NUMBER),
    **dict.fromkeys(("additionalItems", "contains", "propertyNames"), "schema"),
    **dict.fromkeys(("$id", "$ref"), _STRING),
    "items": "items",
    "required": _names,
    "enum": _ARRAY,
    "examples": _ARRAY,
}
_7: Table = {
    **_6,
    **dict.fromkeys(("if", "then", "else"), "schema"),
    **dict.fromkeys(("$comment", "contentMediaType", "contentEncoding"), _STRING),
    "readOnly": _BOOLEAN,
}
_2019: Table = {
    **_7,
    **dict.fromkeys(("maxContains", "minContains"), _count),
    **dict.fromkeys(("unevaluatedItems", "unevaluatedProperties", "contentSchema"), "schema"),
    **dict.fromkeys(("writeOnly", "deprecated", "$recursiveAnchor"), _BOOLEAN),
    **dict.fromkeys(("$defs", "dependentSchemas"), "named"),
    "$recursiveRef": _STRING,
    "$id": _matching(r"[^#]*#?", "an address without a fragment"),
    "$anchor": _matching(r"[A-Za-z][-A-Za-z0-9.:_]*", "a name"),
    "$vocabulary": _vocabulary,
    "dependentRequired": _dependencies_of_names,
}
_2020: Table = {
    **{keyword: kind for keyword, kind in _2019.items() if keyword != "additionalItems"},
    **dict.fromkeys(
        ("$anchor", "$dynamicAnchor", "$recursiveAnchor"), _matching(r"[A-Za-z_][-A-Za-z0-9._]*", "a name")
    ),
    "$dynamicRef": _STRING,
    "items": "schema",
    "prefixItems": "schemas",
}
_TABLES: dict[int, Table] = {4: _4, 6: _6, 7: _7, 2019: _2019, 2020: _2020}
