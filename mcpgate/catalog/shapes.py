"""The shape of what a tool really returned, as a JSON Schema of types and keys. Keeps no values. Pure."""

from typing import Any

_MAX_KEYS = 60
_MAX_DEPTH = 8
_SAMPLE = 20

Shape = dict[str, Any]


def shape_of(value: Any, depth: int = 0) -> Shape:
    """The schema of one value."""
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
    if depth >= _MAX_DEPTH:
        return {}
    if isinstance(value, (list, tuple)):
        items: Shape | None = None
        for item in (*value[:_SAMPLE], *value[-1:]):
            items = merge(items, shape_of(item, depth + 1))
        return {"type": "array", "items": items} if items else {"type": "array"}
    if isinstance(value, dict):
        if len(value) > _MAX_KEYS or _looks_like_data(value):
            inner: Shape | None = None
            for item in list(value.values())[:_SAMPLE]:
                inner = merge(inner, shape_of(item, depth + 1))
            return {"type": "object", "additionalProperties": inner or {}}
        properties = {str(k): shape_of(v, depth + 1) for k, v in value.items()}
        return {"type": "object", "properties": properties, "required": sorted(properties)}
    return {}


def merge(one: Shape | None, other: Shape | None) -> Shape | None:
    """What fits both. Keys that only some results have stop being required."""
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
    """Whether the keys are themselves values (ids, dates, paths), which must not be kept."""
    odd = sum(1 for k in value if not str(k).replace("-", "_").isidentifier() or len(str(k)) > 40)
    return odd * 2 > len(value)
