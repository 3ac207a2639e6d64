"""The shape of what a tool actually returned, as a JSON Schema of types and keys. Keeps no values. Pure, and bounded:
only a part of a large result is examined."""

from collections.abc import Container, Iterator
from itertools import islice
from typing import Any

_MAX_KEYS = 60
_MAX_DEPTH = 8
_SAMPLE = 20
_MAX_PARTS = 2_000
"""Parts of one value that are examined, and of one shape that are kept."""

Shape = dict[str, Any]
Path = str
"""The place of a key: the keys that lead to it, `[]` for the items of a list, `{}` for the values of a table."""


def shape_of(value: Any) -> Shape:
    """The schema of one value."""
    return _shape_of(value, 0, [_MAX_PARTS])


def _shape_of(value: Any, depth: int, left: list[int]) -> Shape:
    left[0] -= 1
    if value is None:
        return {"type": "null"}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer"}
    if isinstance(value, float):
        return {"type": "number"}
    if isinstance(value, str):
        return {"type": "string"}
    if depth >= _MAX_DEPTH or left[0] <= 0:
        return {}
    if isinstance(value, (list, tuple)):
        items: Shape | None = None
        for item in (*value[:_SAMPLE], *value[-1:]):
            items = merge(items, _shape_of(item, depth + 1, left))
        return {"type": "array", "items": items} if items else {"type": "array"}
    if isinstance(value, dict):
        if len(value) > _MAX_KEYS or _looks_like_data(value):
            inner: Shape | None = None
            for item in islice(value.values(), _SAMPLE):
                inner = merge(inner, _shape_of(item, depth + 1, left))
            return {"type": "object", "additionalProperties": inner or {}}
        properties = {str(k): _shape_of(v, depth + 1, left) for k, v in value.items()}
        return {"type": "object", "properties": properties, "required": sorted(properties)}
    return {}


def merge(one: Shape | None, other: Shape | None) -> Shape | None:
    """The shape that fits both. Keys that only one has are not required."""
    if not one or not other or one == other:
        return one or other
    if "anyOf" in one or "anyOf" in other:
        return _union([*one.get("anyOf", [one]), *other.get("anyOf", [other])])
    if one.get("type") != other.get("type"):
        numbers = {one.get("type"), other.get("type")} == {"integer", "number"}
        return {"type": "number"} if numbers else _union([one, other])
    if one["type"] == "array":
        items = merge(one.get("items"), other.get("items"))
        return {"type": "array", "items": items} if items else {"type": "array"}
    if one["type"] == "object":
        return _merge_objects(one, other)
    return one


def _merge_objects(one: Shape, other: Shape) -> Shape:
    keys = list(dict.fromkeys((*one.get("properties", ()), *other.get("properties", ()))))
    if "properties" not in one or "properties" not in other or len(keys) > _MAX_KEYS:
        values: Shape | None = None
        for shape in (one, other):
            for inner in (*shape.get("properties", {}).values(), shape.get("additionalProperties")):
                values = merge(values, inner)
        return {"type": "object", "additionalProperties": values or {}}
    properties = {k: merge(one["properties"].get(k), other["properties"].get(k)) or {} for k in keys}
    return {"type": "object", "properties": properties, "required": sorted({*one["required"]} & {*other["required"]})}


def _union(shapes: list[Shape]) -> Shape:
    kinds: dict[str, Shape] = {}
    for shape in shapes:
        kind = str(shape.get("type"))
        kinds[kind] = (merge(kinds[kind], shape) if kind in kinds else shape) or {}
    return {"anyOf": list(kinds.values())} if len(kinds) > 1 else next(iter(kinds.values()))


def _looks_like_data(value: dict[Any, Any]) -> bool:
    """Whether the keys themselves are values (ids, dates, paths), which must not be kept."""
    odd = sum(1 for k in value if len(str(k)) > 40 or not str(k).replace("-", "_").isidentifier())
    return odd * 2 > len(value)


def within(shape: Shape, most: int = _MAX_PARTS) -> Shape:
    """The shape without its deepest levels if it has grown to more than so many parts."""
    level, depth, parts = [shape], 0, 0
    while level:
        parts += len(level)
        if parts > most:
            return _without_below(shape, max(1, depth - 1))
        level = [inner for part in level for inner in _below(part)]
        depth += 1
    return shape


def keys_of(shape: Shape, path: Path = "") -> Iterator[Path]:
    """The place of each key in a shape."""
    for name, inner, place in _inside(shape, path):
        if name is not None:
            yield place
        yield from keys_of(inner, place)


def without(shape: Shape, hidden: Container[Path], path: Path = "") -> Shape:
    """The shape without the keys in these places."""
    if "anyOf" in shape:
        return {**shape, "anyOf": [without(kind, hidden, path) for kind in shape["anyOf"]]}
    seen = dict(shape)
    for name, inner, place in _inside(shape, path):
        if name is None:
            key = "items" if place.endswith("[]") else "additionalProperties"
            seen[key] = without(inner, hidden, place)
    if "properties" in shape:
        places = {name: _place(path, name) for name in shape["properties"]}
        kept = {n: without(s, hidden, places[n]) for n, s in shape["properties"].items() if places[n] not in hidden}
        seen["properties"], seen["required"] = kept, [name for name in shape["required"] if name in kept]
        if not kept and shape["properties"]:
            del seen["properties"], seen["required"]
    return seen


def _inside(shape: Shape, path: Path) -> Iterator[tuple[str | None, Shape, Path]]:
    """The shapes inside a shape: the key if there is one, the shape, and its place."""
    for kind in shape.get("anyOf", ()):
        yield from _inside(kind, path)
    for name, inner in shape.get("properties", {}).items():
        yield name, inner, _place(path, name)
    if isinstance(items := shape.get("items"), dict):
        yield None, items, f"{path}/[]"
    if isinstance(values := shape.get("additionalProperties"), dict):
        yield None, values, f"{path}/{{}}"


def _place(path: Path, name: str) -> Path:
    return f"{path}/{name.replace('~', '~0').replace('/', '~1')}"


def _below(shape: Shape) -> list[Shape]:
    """The shapes in a shape."""
    found = [inner for kind in shape.get("anyOf", ()) for inner in _below(kind)]
    found += shape.get("properties", {}).values()
    return found + [inner for key in ("items", "additionalProperties") if isinstance(inner := shape.get(key), dict)]


def _without_below(shape: Shape, depth: int) -> Shape:
    if depth <= 0:
        return {}
    cut = dict(shape)
    for key in ("items", "additionalProperties"):
        if isinstance(cut.get(key), dict):
            cut[key] = _without_below(cut[key], depth - 1)
    if "anyOf" in cut:
        cut["anyOf"] = [_without_below(kind, depth) for kind in cut["anyOf"]]
    if "properties" in cut:
        cut["properties"] = {name: _without_below(inner, depth - 1) for name, inner in cut["properties"].items()}
    return cut
