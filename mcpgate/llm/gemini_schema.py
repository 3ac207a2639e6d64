"""Google's dialect of schemas, an OpenAPI 3.0 one, as JSON Schema. Pure."""

from typing import Any

from mcpgate.llm.fields import Fields

_SAME = frozenset("title description format pattern required enum default minimum maximum additionalProperties".split())
_COUNTS = frozenset("minItems maxItems minLength maxLength minProperties maxProperties".split())
"""Google's JSON writes 64-bit numbers as strings."""
_NAMES = {"ref": "$ref", "$ref": "$ref"}
_LEFT_OUT = frozenset(("propertyOrdering", "property_ordering", "example"))
"""How it is shown, and what it could be."""
_SNAKE = {
    "any_of": "anyOf",
    "additional_properties": "additionalProperties",
    **{"min_items": "minItems", "max_items": "maxItems", "min_length": "minLength", "max_length": "maxLength"},
    **{"min_properties": "minProperties", "max_properties": "maxProperties"},
}
_DEEPEST = 64


def to_json_schema(schema: Fields, depth: int = _DEEPEST) -> dict[str, Any]:
    """Raises InvalidRequest, Untranslatable."""
    if not depth:
        schema.wrong("", f"is nested more than {_DEEPEST} levels deep")
    found: dict[str, Any] = {}
    for given, value in schema.value.items():
        name = _SNAKE.get(given, given)
        if value is None or name in _LEFT_OUT or name == "nullable":
            continue
        if name == "type":
            if (type := schema.text("type").lower()) != "type_unspecified":
                found["type"] = type
        elif name in _SAME:
            found[name] = value
        elif name in _COUNTS:
            found[name] = _count(schema, given)
        elif name in _NAMES:
            found[_NAMES[name]] = schema.text(given)
        elif name == "items":
            found[name] = to_json_schema(schema.need_object(given), depth - 1)
        elif name == "anyOf":
            found[name] = [to_json_schema(one, depth - 1) for one in schema.each(given)]
        elif name in ("properties", "defs", "$defs"):
            inner = schema.need_object(given)
            told = {one: to_json_schema(inner.need_object(one), depth - 1) for one in inner.value}
            found["$defs" if name == "defs" else name] = told
        else:
            schema.untranslatable(str(given)[:100])
    return _nullable(found) if schema.flag("nullable") else found


def _count(schema: Fields, name: str) -> int | None:
    value = schema.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    return schema.whole(name)


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if "type" in schema and "enum" not in schema:
        return schema | {"type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}
