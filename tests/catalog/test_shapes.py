import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.catalog.arguments import schema_fault
from mcpgate.catalog.shapes import Shape, keys_of, merge, shape_of, within, without
from tests.catalog.work import work_of

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


def test_a_shape_never_contains_values() -> None:
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


def _tree(width: int, depth: int, leaf: Any) -> Any:
    return leaf if depth == 0 else [_tree(width, depth - 1, leaf) for _ in range(width)]


LARGE: dict[str, Callable[[], Any]] = {
    "keys": lambda: {f"key_{i}": i for i in range(500_000)},
    "rows": lambda: [{f"key_{i}": j for i in range(50)} for j in range(20_000)],
    "tree": lambda: _tree(18, 4, {"a": 1}),
    "objects in objects": lambda: {
        f"a{i}": {f"b{j}": {f"c{k}": k for k in range(50)} for j in range(50)} for i in range(50)
    },
    "long keys": lambda: {"k" * 1_000_000 + str(i): 1 for i in range(10)},
}
"""Made when a test asks: together they would take a gigabyte for the whole run."""


@pytest.mark.parametrize("name", LARGE)
def test_only_a_part_of_a_large_result_is_examined(name: str) -> None:
    found: list[Shape] = []
    value = LARGE[name]()
    assert work_of(lambda: found.append(shape_of(value))) < 200_000
    assert len(json.dumps(found[0])) < 200_000


def test_a_shape_that_grows_with_every_result_loses_its_depth() -> None:
    shape: Shape | None = None
    for number in range(30):
        value = {f"a{(number * 7 + i) % 50}": {f"b{j}": {f"c{number}": 1} for j in range(40)} for i in range(40)}
        shape = within(merge(shape, shape_of(value)) or {})
        assert len(list(keys_of(shape))) <= 2_000


@given(_JSON)
def test_a_shape_without_its_keys_is_still_a_schema_and_names_none_of_them(value: Any) -> None:
    shape = shape_of(value)
    hidden = set(keys_of(shape))
    assert without(shape, ()) == shape
    assert list(keys_of(without(shape, hidden))) == [] and schema_fault(without(shape, hidden)) is None
