"""Arguments repeated in headers: what the SDK makes of the same schemas and arguments is the measure."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import decode_header_value, find_invalid_x_mcp_header, mcp_param_headers, x_mcp_header_map

from mcpgate.upstream.param_headers import Malformed, decoded, difference, encoded, header_paths, headers_of

TOKENS = st.sampled_from(["Region", "region", "X-1", "", "a b", "Mode", 7])
LEAVES = st.fixed_dictionaries(
    {"type": st.sampled_from(["string", "integer", "boolean", "number", "object", ["string"]])},
    optional={"x-mcp-header": TOKENS},
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.fixed_dictionaries(
        {"type": st.just("object")},
        optional={
            "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            "items": inner,
            "anyOf": st.lists(inner, max_size=2),
            "$defs": st.dictionaries(st.sampled_from("de"), inner, max_size=1),
        },
    ),
    max_leaves=8,
)
SCALARS = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=8)
ARGUMENTS = st.dictionaries(
    st.sampled_from("abc"), SCALARS | st.dictionaries(st.sampled_from("abc"), SCALARS, max_size=3), max_size=3
)


@given(SCHEMAS, ARGUMENTS)
def test_headers_are_those_that_the_sdk_sends(schema: dict[str, Any], arguments: dict[str, Any]) -> None:
    try:
        paths = header_paths(schema)
    except Malformed:
        assert find_invalid_x_mcp_header(schema) is not None
        return
    assert find_invalid_x_mcp_header(schema) is None
    headers = headers_of(paths, arguments)
    theirs = mcp_param_headers(x_mcp_header_map(schema), arguments)
    assert headers == {name.lower(): value for name, value in theirs.items()}
    assert difference(paths, arguments, headers) == ""


@given(st.text(max_size=40))
def test_every_text_survives_a_header(text: str) -> None:
    value = encoded(text)
    assert value.isascii() and not set(value) & set("\r\n\0")
    assert decoded(value) == text == decode_header_value(value)


PATHS = header_paths(
    {
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "size": {"type": "integer", "x-mcp-header": "Size"},
        },
    }
)


@pytest.mark.parametrize(
    "arguments, headers, said",
    [
        ({"region": "eu"}, {}, "the header mcp-param-region is missing"),
        ({}, {"mcp-param-region": "eu"}, "the argument region is not"),
        ({"region": "eu"}, {"mcp-param-region": "us"}, "differs from the argument region"),
        ({"region": "é"}, {"mcp-param-region": "=?base64?w6l=?="}, "differs"),
        ({"size": 7}, {"mcp-param-size": "8"}, "differs"),
    ],
)
def test_a_header_that_contradicts_the_arguments_is_named(
    arguments: dict[str, Any], headers: dict[str, str], said: str
) -> None:
    assert said in difference(PATHS, arguments, headers)


def test_a_number_may_be_written_in_any_way() -> None:
    assert difference(PATHS, {"size": 7}, {"mcp-param-size": "7.0"}) == ""


def test_a_huge_schema_is_looked_at_in_bounded_steps() -> None:
    wide = {str(number): {"type": "string", "x-mcp-header": f"H{number}"} for number in range(200_000)}
    assert 0 < len(header_paths({"properties": wide})) < 20_000
