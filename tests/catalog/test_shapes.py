import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.catalog.arguments import schema_fault
from mcpgate.catalog.shapes import Shape, merge, shape_of

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcdef"), inner, max_size=4),
    max_leaves=20,
)


def learned(*values: Any) -> Shape | None:
    shape: Shape | None = None
    for value in values:
        shape = merge(shape, shape_of(value))
    return shape


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["text"], {"type": "string"}),
        ([True], {"type": "boolean"}),
        ([1], {"type": "integer"}),
        ([1, 2.5], {"type": "number"}),
        ([None, "x"], {"anyOf": [{"type": "null"}, {"type": "string"}]}),
        ([[]], {"type": "array"}),
        ([[], ["x"]], {"type": "array", "items": {"type": "string"}}),
        ([["x", 1]], {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}),
        (
            [{"id": 1, "name": "x"}, {"id": 2}],
            {
                "type": "object",
                "properties": {"id": {"type": "integer"}, "name": {"type": "string"}},
                "required": ["id"],
            },
        ),
    ],
)
def test_a_shape_is_what_fits_everything_seen(values: list[Any], expected: Shape) -> None:
    assert learned(*values) == expected


def test_a_table_keyed_by_data_keeps_none_of_its_keys() -> None:
    table = {"ada@example.com": {"n": 1}, "2025-01-01": {"n": 2}, "/etc/passwd": {"n": 3}}
    kept = learned(table)
    assert kept == {
        "type": "object",
        "additionalProperties": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    }


def test_a_table_of_many_keys_keeps_none_of_them_however_it_grew() -> None:
    grown = learned({f"k{i}": "x" for i in range(40)}, {f"j{i}": 1 for i in range(40)})
    assert grown == {
        "type": "object",
        "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    }
    assert learned({f"k{i}": "x" for i in range(61)}) == {
        "type": "object",
        "additionalProperties": {"type": "string"},
    }


def test_values_never_stand_in_a_shape() -> None:
    secret = {"name": "hunter2", "rows": [{"token": "hunter2"}], "deep": {"er": ["hunter2", None, 12345]}}
    text = json.dumps(learned(secret, {"name": None}))
    assert "hunter2" not in text and "12345" not in text


def test_a_deep_value_has_a_shallow_shape() -> None:
    value: Any = "x"
    for _ in range(900):
        value = [value]
    assert len(json.dumps(shape_of(value))) < 500


@given(st.lists(_JSON, min_size=1, max_size=5))
def test_the_order_of_results_does_not_change_what_is_required_and_repeating_them_adds_nothing(
    values: list[Any],
) -> None:
    shape = learned(*values)
    assert learned(*values, *values) == merge(shape, shape) == shape
    assert schema_fault(shape) is None
