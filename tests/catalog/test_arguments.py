import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcpgate.catalog.arguments import ArgumentFault, bind, check, schema_fault
from tests.catalog.schemas import ANY_JSON, ANY_SCHEMA, captured_tools, taking, tool

READ = tool(taking(("path",), path={"type": "string"}, head={"type": "integer"}, **{"max-size": {"type": "integer"}}))


def fault(subject: Any, *positional: Any, **named: Any) -> str:
    with pytest.raises(ArgumentFault) as caught:
        check(subject, bind(subject, positional, named))
    return str(caught.value)


def test_positional_named_and_original_names_mean_the_same() -> None:
    expected = {"path": "a", "head": 3, "max-size": 5}
    assert bind(READ, ["a", 3, 5], {}) == expected
    assert bind(READ, ["a"], {"head": 3, "max_size": 5}) == expected
    assert bind(READ, [], {"max-size": 5, "head": 3, "path": "a"}) == expected


def test_one_dict_of_all_arguments_is_taken_as_the_arguments() -> None:
    assert bind(READ, [{"path": "a", "max_size": 5}], {}) == {"path": "a", "max-size": 5}
    assert bind(tool(taking()), [{}], {}) == {}


def test_a_dict_that_is_the_first_argument_stays_one() -> None:
    subject = tool(taking(("item",), item={"type": "object"}))
    assert bind(subject, [{"name": "x"}], {}) == {"item": {"name": "x"}}


def test_a_misspelt_argument_names_the_nearest_one() -> None:
    assert fault(READ, pth="a") == "unknown argument 'pth' (did you mean 'path'?); argument 'path' is missing"


def test_missing_arguments_are_named_as_code_writes_them_in_the_tools_order() -> None:
    properties = {name: {"type": "string"} for name in ("user-id", "b", "a")}
    assert fault(tool(taking(("a", "b", "user-id"), **properties))) == (
        "argument 'user_id' is missing; argument 'b' is missing; argument 'a' is missing"
    )


def test_too_many_and_duplicate_arguments_are_refused() -> None:
    assert "takes 3 arguments, 4 were given" in fault(READ, "a", 1, 2, 3)
    assert fault(READ, "a", path="b") == "argument 'path' was given twice"


def test_a_tool_that_accepts_more_arguments_gets_them() -> None:
    subject = tool({**taking(a={"type": "string"}), "additionalProperties": {"type": "integer"}})
    assert bind(subject, [], {"a": "x", "other": 1}) == {"a": "x", "other": 1}


def test_a_required_argument_that_is_not_declared_can_be_given() -> None:
    subject = tool(taking(("a", "hidden"), a={"type": "string"}))
    arguments = bind(subject, ["x"], {"hidden": 1})
    check(subject, arguments)
    assert arguments == {"a": "x", "hidden": 1}


@pytest.mark.parametrize(
    ("schema", "kept"),
    [
        ({"type": "string"}, False),
        ({"enum": ["a", "b"]}, False),
        ({"$ref": "#/$defs/Text"}, False),
        ({"allOf": [{"$ref": "#/$defs/Text"}], "default": "x"}, False),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, False),
        ({"type": "strin"}, False),
        ({"anyOf": 5}, False),
        ({"type": ["string", "null"]}, True),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, True),
        ({"type": "string", "nullable": True}, True),
        ({"enum": ["a", None]}, True),
        ({"$ref": "#/$defs/Perhaps"}, True),
        ({}, True),
    ],
)
def test_none_for_an_optional_argument_is_left_out_unless_null_is_allowed(schema: Any, kept: bool) -> None:
    definitions = {"Text": {"type": "string"}, "Perhaps": {"anyOf": [{"type": "string"}, {"type": "null"}]}}
    subject = tool({**taking(a=schema), "$defs": definitions})
    arguments = bind(subject, [], {"a": None})
    check(subject, arguments)
    assert ("a" in arguments) is kept


def test_none_for_a_required_argument_is_judged_by_the_schema() -> None:
    assert fault(READ, None) == "path: None is not of type 'string'"


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "integer"}, "3", "p: '3' is not of type 'integer'"),
        ({"type": ["integer", "null"]}, "x", "p: 'x' is not of type 'integer' or 'null'"),
        ({"type": "integer", "minimum": 1}, 0, "p: 0 is less than the minimum of 1"),
        ({"enum": ["a", "b"]}, "c", "p: 'c' is not one of ['a', 'b']"),
        ({"type": "array", "items": {"type": "string"}}, ["a", 2], "p[1]: 2 is not of type 'string'"),
        (taking(inner=taking(("x",), x={})), {"inner": {}}, "p.inner: 'x' is a required property"),
        ({"type": "string", "pattern": "^[a-z]+$"}, "A1", "p: 'A1' does not match '^[a-z]+$'"),
        ({"$ref": "#/$defs/Short"}, "long", "p: 'long' is too long"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_reason(schema: Any, value: Any, expected: str) -> None:
    assert fault(tool({**taking(p=schema), "$defs": {"Short": {"maxLength": 2}}}), value) == expected


def test_a_value_that_fits_no_form_says_what_it_could_be() -> None:
    said = fault(tool(taking(p={"anyOf": [{"type": "integer"}, {"type": "boolean"}]})), "x")
    assert said.startswith("p: 'x' fits none of the allowed forms (") and "'integer'" in said and "'boolean'" in said


def test_every_fault_is_said_at_once_but_no_more_than_five() -> None:
    subject = tool(taking(**{f"p{i}": {"type": "integer"} for i in range(9)}))
    assert fault(subject, *("x" for _ in range(3))).count("is not of type") == 3
    assert fault(subject, *("x" for _ in range(9))).count("is not of type") == 5


def test_a_huge_wrong_value_is_not_repeated_whole() -> None:
    assert len(fault(READ, ["x" * 1000] * 100)) < 200


@pytest.mark.parametrize(
    ("dialect", "schema", "wrong"),
    [
        ("http://json-schema.org/draft-04/schema#", {"type": "number", "minimum": 0, "exclusiveMinimum": True}, 0),
        ("http://json-schema.org/draft-07/schema#", {"type": "array", "items": [{"type": "string"}]}, [1]),
        ("https://json-schema.org/draft/2019-09/schema", {"type": "array", "items": [{"type": "string"}]}, [1]),
        ("https://json-schema.org/draft/2020-12/schema", {"type": "array", "prefixItems": [{"type": "string"}]}, [1]),
        (None, {"type": "array", "prefixItems": [{"type": "string"}]}, [1]),
        (None, {"type": "array", "items": [{"type": "string"}]}, [1]),
        (None, {"type": "number", "minimum": 0, "exclusiveMinimum": True}, 0),
    ],
)
def test_schemas_of_every_draft_are_checked_declared_or_not(dialect: str | None, schema: Any, wrong: Any) -> None:
    root = {**taking(("p",), p=schema), **({"$schema": dialect} if dialect else {})}
    assert schema_fault(root) is None
    fault(tool(root), wrong)


def test_openapis_nullable_lets_none_pass_and_nothing_else() -> None:
    subject = tool(taking(("p",), p={"type": "string", "nullable": True, "enum": ["a"]}))
    check(subject, bind(subject, [None], {}))
    assert fault(subject, 1)


def test_a_pattern_in_another_dialect_switches_off_only_itself() -> None:
    subject = tool(taking(("a", "b"), a={"type": "string", "pattern": r"^\p{L}+$"}, b={"type": "integer"}))
    assert schema_fault(subject.input_schema) is None
    check(subject, {"a": "x", "b": 1})
    assert fault(subject, "x", "y") == "b: 'y' is not of type 'integer'"
    assert fault(subject, 1, 2) == "a: 1 is not of type 'string'"


def test_a_reference_to_elsewhere_is_not_fetched_and_other_faults_still_count() -> None:
    subject = tool(taking(b={"type": "integer"}, a={"$ref": "https://elsewhere.test/schema.json"}))
    check(subject, {"a": "anything"})
    assert fault(subject, b="x", a="anything") == "b: 'x' is not of type 'integer'"


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        ({"type": "strin"}, "'strin' is not valid"),
        ({"type": "object", "properties": []}, "[] is not of type 'object'"),
        ({"$schema": ["x"]}, "['x'] is not of type 'string'"),
        ([], "not an object"),
        (None, "not an object"),
    ],
)
def test_a_broken_schema_is_named_and_checks_nothing(schema: Any, wrong: str) -> None:
    assert wrong in (schema_fault(schema) or "")
    check(tool(schema), {"anything": 1})


@pytest.mark.parametrize("schema", [{}, True, False, {"type": "object"}, {"$ref": "#"}, {"title": "x"}])
def test_a_schema_that_says_little_is_not_broken(schema: Any) -> None:
    assert schema_fault(schema) is None
    check(tool(schema), {"anything": 1})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANY_SCHEMA, st.lists(ANY_JSON, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "class_"]), ANY_JSON))
def test_any_schema_binds_and_checks_or_refuses(schema: Any, positional: list[Any], named: dict[str, Any]) -> None:
    subject = tool(schema)
    assert schema_fault(schema) is None or isinstance(schema_fault(schema), str)
    try:
        arguments = bind(subject, positional, named)
        check(subject, arguments)
    except ArgumentFault as refused:
        assert str(refused)
    else:
        assert subject.open_ended or arguments.keys() <= subject.properties.keys() | subject.required


def test_every_captured_tool_has_a_valid_schema_and_refuses_what_it_does_not_accept() -> None:
    for subject in captured_tools():
        started = time.process_time()
        assert schema_fault(subject.input_schema) is None
        arguments = {name: None for name in subject.parameters}
        assert bind(subject, [], arguments).keys() <= subject.properties.keys()
        if not subject.open_ended:
            with pytest.raises(ArgumentFault, match="unknown argument 'no_such_argument'"):
                bind(subject, [], {"no_such_argument": 1})
        assert time.process_time() - started < 5, subject
