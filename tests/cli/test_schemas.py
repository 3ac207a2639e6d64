"""`mcpgate check` tells which schemas of tools are not valid JSON Schema, in bounded time."""

from typing import Any

import pytest

from mcpgate.cli.schemas import invalid_schemas


def tool(schema: Any, key: str = "inputSchema") -> dict[str, Any]:
    return {"name": "t", key: schema}


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "object", "properties": {"x": {"type": "strin"}}}, "properties.x.type"),
        ({"type": "object", "properties": {"x": {"required": True}}}, "properties.x.required"),
        ({"type": "object", "properties": {"x": {"minimum": "1"}}}, "properties.x.minimum"),
        ({"type": "object", "properties": {"x": {"minimum": 1, "exclusiveMinimum": True}}}, "properties.x.exclusiveMinimum"),
        ({"anyOf": []}, "anyOf"),
    ],
)  # fmt: skip
def test_an_invalid_schema_is_named_with_its_tool_and_the_place(schema: Any, place: str) -> None:
    for key in ("inputSchema", "outputSchema"):
        (line,), unchecked = invalid_schemas([tool(schema, key)])
        assert line.startswith(f"t: {key}.{place}: ") and unchecked == 0


def test_valid_schemas_of_every_draft_are_not_named() -> None:
    draft4 = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": True}
    fine = [{}, {"type": "object", "x-own": 1}, draft4, {"$ref": "https://elsewhere.test/schema"}, {"$schema": "odd:x"}]
    assert invalid_schemas([tool(schema) for schema in fine]) == ([], 0)


def test_schemas_that_would_take_too_long_are_counted_and_left_unchecked() -> None:
    moments = iter([0.0, 1.0, 9.0, 9.0])
    bad = {"type": "strin"}
    assert len(invalid_schemas([tool(bad)] * 3, most_s=5, clock=lambda: next(moments))[0]) == 1
    assert invalid_schemas([tool({"enum": ["x" * 300_000]})]) == ([], 1)
    deep: dict[str, Any] = {}
    for _ in range(900):
        deep = {"not": deep}
    assert invalid_schemas([tool(deep)]) == ([], 1)
