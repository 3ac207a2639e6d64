"""JSON Schema → Python stubs. Whole stubs are compared if their appearance matters to the model that reads them."""

import ast
import builtins
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from mcpgate.catalog.docs import tool_page
from mcpgate.catalog.stubs import call_shape, shared_sentences, stub, summary
from mcpgate.catalog.tools import Tool
from mcpgate.telemetry.text import visible
from tests.catalog.schemas import ANY_JSON, ANY_SCHEMA, captured_tools, taking, tool
from tests.catalog.work import work_of

_KNOWN = frozenset({"Any", "Literal", "Never", "NotRequired", "TypedDict", *dir(builtins)})


def check_stub(subject: Tool, observed: Any = None) -> str:
    """The stub, checked: it is Python, every name in it is defined, and the call shape is one line."""
    text = stub(subject, observed)
    tree = ast.parse(text)
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    defined |= {
        t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)
    }
    assert not defined & _KNOWN
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    assert used <= defined | _KNOWN | {"inf", "nan"}
    assert isinstance(tree.body[-1], ast.FunctionDef) and tree.body[-1].name == subject.ident
    assert len(call_shape(subject, observed).splitlines()) == 1
    return text


def type_of(schema: Any, definitions: Any = None) -> str:
    """The type of a parameter with this schema."""
    root = taking(("p",), p=schema)
    tree = ast.parse(check_stub(tool({**root, "$defs": definitions} if definitions else root)))
    function = tree.body[-1]
    assert isinstance(function, ast.FunctionDef) and function.args.args[0].annotation is not None
    return ast.unparse(function.args.args[0].annotation)


def test_a_whole_stub_reads_like_python_with_nested_types_limits_and_defaults() -> None:
    address = taking(("street",), street={"type": "string"}, zip={"type": "string", "pattern": "^[0-9]{5}$"})
    schema = taking(
        ("name",),
        name={"type": "string", "description": "Full name", "minLength": 1, "maxLength": 80},
        age={"type": "integer", "minimum": 0, "maximum": 150, "default": 18},
        role={"enum": ["admin", "user"], "default": "user"},
        address=address,
        mail={"type": "string", "format": "email"},
    )
    assert check_stub(tool(schema, "create_user", "Create a user.", {"type": "string"})) == (
        "class CreateUserAddress(TypedDict):\n"
        "    street: str\n"
        "    zip: NotRequired[str]  # pattern ^[0-9]{5}$\n"
        "# srv.create_user\n"
        "def create_user(\n"
        "    name: str,  # Full name; ≥ 1 chars; ≤ 80 chars\n"
        "    age: int = 18,  # ≥ 0; ≤ 150\n"
        "    role: Literal['admin', 'user'] = 'user',\n"
        "    address: CreateUserAddress = ...,\n"
        "    mail: str = ...,  # email\n"
        ") -> str:\n"
        '    """Create a user."""'
    )


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, "str"),
        ({"type": "integer"}, "int"),
        ({"type": "number"}, "float"),
        ({"type": "boolean"}, "bool"),
        ({"type": "null"}, "None"),
        ({"type": "object"}, "dict"),
        ({"type": "array"}, "list"),
        ({}, "Any"),
        (True, "Any"),
        (False, "Never"),
        ({"description": "untyped"}, "Any"),
        ({"type": ["string", "null"]}, "str | None"),
        ({"type": ["null", "string", "integer"]}, "str | int | None"),
        ({"type": "string", "nullable": True}, "str | None"),
        ({"type": "array", "items": {"type": "string"}}, "list[str]"),
        ({"items": {"type": "array", "items": {"type": "number"}}}, "list[list[float]]"),
        (
            {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False},
            "tuple[str, int]",
        ),
        (
            {"type": "array", "items": [{"type": "string"}, {"type": "integer"}], "additionalItems": False},
            "tuple[str, int]",
        ),
        ({"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, "list[str | int]"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "dict[str, int]"),
        ({"type": "object", "patternProperties": {"^x": {"type": "integer"}}}, "dict[str, int]"),
        ({"enum": ["a", "b"]}, "Literal['a', 'b']"),
        ({"enum": [1, True, 0, False]}, "Literal[1, True, 0, False]"),
        ({"enum": ["a", None]}, "Literal['a'] | None"),
        ({"enum": [1.5, 2.5]}, "float"),
        ({"const": "only"}, "Literal['only']"),
        ({"const": None}, "None"),
        ({"const": {"a": 1}}, "dict"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "str | None"),
        ({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}, "str | list[str]"),
        ({"anyOf": [{"enum": ["a|b"]}, {"const": "c]"}, {"type": "integer"}]}, "Literal['a|b', 'c]'] | int"),
        ({"anyOf": [{"enum": ["\\"]}, {"enum": ["b"]}, {"type": "null"}]}, "Literal['\\\\', 'b'] | None"),
        ({"anyOf": [{"type": "string"}, {}]}, "Any"),
        ({"allOf": [{"type": "string"}, {"minLength": 3}]}, "str"),
        ({"allOf": [{"description": "nothing else"}]}, "Any"),
    ],
)
def test_every_kind_of_schema_has_its_python_type(schema: Any, expected: str) -> None:
    assert type_of(schema) == expected


def test_all_of_merges_its_parts_through_refs_and_inherited_all_ofs() -> None:
    definitions = {
        "Base": taking(("id",), id={"type": "integer"}),
        "Named": {"allOf": [{"$ref": "#/$defs/Base"}, taking(name={"type": "string"})]},
    }
    parts = {"allOf": [{"$ref": "#/$defs/Named"}, taking(("note",), note={"type": "string"})]}
    text = check_stub(tool({**taking(item=parts), "$defs": definitions}))
    assert "class ToolItem(TypedDict):\n    id: int\n    name: NotRequired[str]\n    note: str\n" in text


def test_an_object_with_variants_has_its_own_keys_in_each() -> None:
    variants = [taking(("a",), a={"type": "integer"}), taking(b={"type": "string"})]
    text = check_stub(tool(taking(item={**taking(("kind",), kind={"type": "string"}), "oneOf": variants})))
    assert "class ToolItem(TypedDict):\n    kind: str\n    a: int\n" in text
    assert "class ToolItem2(TypedDict):\n    kind: str\n    b: NotRequired[str]\n" in text
    assert "item: ToolItem | ToolItem2" in text


def test_one_of_these_must_be_present_is_one_class() -> None:
    item = {**taking(a={"type": "string"}, b={"type": "string"}), "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}
    assert type_of(item) == "ToolP"


@pytest.mark.parametrize(
    ("ref", "more"),
    [
        ("#/$defs/Node", {"$defs": {"Node": taking(v={"type": "string"})}}),
        ("#/definitions/Node", {"definitions": {"Node": taking(v={"type": "string"})}}),
        ("#node", {"$defs": {"Node": {**taking(v={"type": "string"}), "$anchor": "node"}}}),
        ("#node", {"definitions": {"Node": {**taking(v={"type": "string"}), "$id": "#node"}}}),
        ("https://x.test/node", {"$defs": {"Node": {**taking(v={"type": "string"}), "$id": "https://x.test/node"}}}),
        ("https://x.test/s#/$defs/Node", {"$id": "https://x.test/s", "$defs": {"Node": taking(v={"type": "string"})}}),
        ("#/$defs/a~1b%20c", {"$defs": {"a/b c": taking(v={"type": "string"})}}),
        ("#/properties/other", {}),
    ],
)
def test_every_way_to_point_at_a_definition_is_followed(ref: str, more: dict[str, Any]) -> None:
    text = check_stub(tool({**taking(node={"$ref": ref}, other=taking(v={"type": "string"})), **more}))
    assert "(TypedDict):\n    v: NotRequired[str]\n" in text
    assert "faults" not in text


def test_recursive_types_name_themselves() -> None:
    node = taking(("value",), value={"type": "string"}, children={"type": "array", "items": {"$ref": "#/$defs/Node"}})
    text = check_stub(tool({**taking(root={"$ref": "#/$defs/Node"}), "$defs": {"Node": node}}))
    assert "class ToolNode(TypedDict):\n    value: str\n    children: NotRequired[list[ToolNode]]\n" in text


def test_types_that_recurse_into_each_other_name_each_other() -> None:
    definitions = {"A": taking(b={"$ref": "#/$defs/B"}), "B": taking(a={"$ref": "#/$defs/A"})}
    text = check_stub(tool({**taking(a={"$ref": "#/$defs/A"}), "$defs": definitions}))
    assert "b: NotRequired[ToolB]" in text and "a: NotRequired[ToolA]" in text


def test_a_recursive_type_without_keys_stops_at_itself() -> None:
    tree = {"type": "object", "additionalProperties": {"$ref": "#/$defs/Tree"}}
    value = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#/$defs/Value"}}]}
    assert type_of({"$ref": "#/$defs/Tree"}, {"Tree": tree}) == "dict[str, dict]"
    assert type_of({"$ref": "#/$defs/Value"}, {"Value": value}) == "str | list[Any]"


def test_definitions_whose_names_clash_stay_separate() -> None:
    definitions = {
        "a-b": taking(one={"$ref": "#/$defs/a-b"}),
        "a_b": taking(two={"$ref": "#/$defs/a_b"}),
    }
    schema = {**taking(x={"$ref": "#/$defs/a-b"}, y={"$ref": "#/$defs/a_b"}), "$defs": definitions}
    text = check_stub(tool(schema))
    assert "class ToolAB(TypedDict):\n    one: NotRequired[ToolAB]\n" in text
    assert "class ToolAB2(TypedDict):\n    two: NotRequired[ToolAB2]\n" in text


@pytest.mark.parametrize("name", ["none", "true", "any", "literal", "typed_dict", "not_required", "never"])
def test_no_class_takes_the_name_of_a_type(name: str) -> None:
    check_stub(tool(taking(child={"$ref": "#"}, x={"type": "string"}), name))


def test_a_nullable_definition_stays_nullable() -> None:
    nullable = {**taking(v={"type": "string"}), "type": ["object", "null"]}
    assert type_of({"$ref": "#/$defs/N"}, {"N": nullable}) == "ToolP | None"
    assert type_of({"$ref": "#/$defs/S", "nullable": True}, {"S": {"type": "string"}}) == "str | None"


def test_what_a_tool_takes_and_returns_under_one_name_are_two_classes() -> None:
    subject = tool(taking(result=taking(a={"type": "string"})), output=taking(b={"type": "string"}))
    text = check_stub(subject)
    assert "class ToolResult(TypedDict):\n    a: " in text and "class ToolResult2(TypedDict):\n    b: " in text
    assert "-> ToolResult2:" in text


def test_a_type_that_a_tool_both_takes_and_returns_is_written_once() -> None:
    definitions = {"$defs": {"User": taking(name={"type": "string"}, boss={"$ref": "#/$defs/User"})}}
    takes, returns = taking(user={"$ref": "#/$defs/User"}), taking(saved={"$ref": "#/$defs/User"})
    text = check_stub(tool({**takes, **definitions}, output={**returns, **definitions}))
    assert text.count("boss: NotRequired[ToolUser]") == 1
    assert "saved: NotRequired[ToolUser]" in text


def test_keys_that_are_not_identifiers_are_written_unchanged() -> None:
    text = check_stub(tool(taking(item=taking(("user-id",), **{"user-id": {"type": "string"}, "class": {}}))))
    assert 'ToolItem = TypedDict("ToolItem", {\n    "user-id": str,\n    "class": NotRequired[Any],\n})' in text


def test_a_parameter_that_is_not_an_identifier_shows_its_original_name() -> None:
    text = check_stub(
        tool(taking(("user-id",), **{"user-id": {"type": "string", "description": "Whose"}, "class": {}}))
    )
    assert '    user_id: str,  # "user-id"; Whose\n' in text
    assert '    class_: Any = ...,  # "class"\n' in text


def test_required_parameters_come_first() -> None:
    subject = tool(taking(("b",), a={"type": "string", "default": "x"}, b={"type": "string"}))
    assert call_shape(subject) == "srv.tool(b: str, a: str = 'x')"
    check_stub(subject)


@pytest.mark.parametrize("schema", [{"type": "object"}, {"type": "object", "properties": {}}, {}, None, True])
def test_a_tool_without_parameters_takes_none(schema: Any) -> None:
    subject = tool(schema)
    assert call_shape(subject) == "srv.tool()"
    check_stub(subject)


def test_a_tool_that_takes_anything_says_so() -> None:
    subject = tool({"type": "object", "additionalProperties": True})
    assert call_shape(subject) == "srv.tool(**arguments)"
    assert "    **arguments: Any,\n" in check_stub(subject)


def test_the_output_is_declared_observed_or_unknown() -> None:
    declared = tool(taking(), output=taking(("n",), n={"type": "integer"}))
    assert call_shape(declared) == "srv.tool() -> {n: int}"
    observed = tool(taking())
    assert call_shape(observed, {"type": "array", "items": {"type": "string"}}) == "srv.tool() -> list[str]"
    assert "-> list[str]:  # output observed, not declared" in stub(
        observed, {"type": "array", "items": {"type": "string"}}
    )
    assert "-> Any:  # output type unknown until it is first called" in stub(observed)


def test_a_wrapped_output_is_shown_as_the_value_inside_with_its_definitions() -> None:
    output = {
        **taking(("result",), result={"type": "array", "items": {"$ref": "#/$defs/Row"}}),
        "$defs": {"Row": taking(("id",), id={"type": "integer"})},
    }
    assert call_shape(tool(taking(), output=output)) == "srv.tool() -> list[{id: int}]"
    assert "-> list[ToolRow]:" in check_stub(tool(taking(), output=output))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "strin"}, "p has the unknown type 'strin'"),
        ({"type": 5}, "p has the unknown type '5'"),
        ({"$ref": "#/$defs/missing"}, "#/$defs/missing cannot be resolved"),
        ({"$ref": "https://elsewhere.test/schema"}, "https://elsewhere.test/schema cannot be resolved"),
        ("not a schema", "p is not a schema"),
        (None, "p is not a schema"),
    ],
)
def test_a_broken_schema_becomes_any_with_a_note(schema: Any, expected: str) -> None:
    text = check_stub(tool(taking(("p",), p=schema)))
    assert "    p: Any,\n" in text
    assert f"Note: its schema has faults: {expected}." in text


@pytest.mark.parametrize(
    "description",
    [
        'e.g. "abc"',
        'a """docstring""" in it',
        '"""',
        'ends with four """"',
        "back\\slash\\",
        "nul \0 byte",
        "two\nlines",
        "\\",
    ],
)
def test_no_description_breaks_out_of_its_docstring(description: str) -> None:
    subject = tool(taking(a={"type": "string"}), description=description)
    function = ast.parse(check_stub(subject)).body[-1]
    assert isinstance(function, ast.FunctionDef) and len(function.body) == 1
    written = ast.get_docstring(function, clean=False)
    assert written == description.strip().replace("\0", "").replace('"""', "'''")


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\u2028b", "\0", "# x", "'\"", "\x0c"])
def test_no_text_in_a_schema_breaks_out_of_its_comment(text: str) -> None:
    field = {"type": "string", "description": text, "format": text, "pattern": text, "default": text, "enum": [text]}
    check_stub(tool(taking(**{text: field, "inner": taking(**{text: field})})))


def test_a_long_call_shape_gives_optional_parameters_by_name() -> None:
    properties = {f"option_{i}": {"type": "string"} for i in range(4)}
    subject = tool(taking(("path",), path={"type": "string"}, **properties))
    assert call_shape(subject, room=60) == "srv.tool(path: str, option_0?, option_1?, option_2?, option_3?)"


def test_a_call_shape_never_leaves_a_required_parameter_out_and_counts_the_options_that_do_not_fit() -> None:
    properties = {f"option_{i}": {"type": "string"} for i in range(40)}
    subject = tool(taking(("path",), path={"type": "string"}, **properties))
    assert (
        call_shape(subject, room=70)
        == "srv.tool(path: str, option_0?, option_1?, option_2?, option_3?, … 36 more optional)"
    )
    assert call_shape(subject, room=5) == "srv.tool(path, … 40 more optional)"
    assert call_shape(tool(taking(("path",), path={}, tail={}, head={})), room=5) == "srv.tool(path, tail?, head?)"


def test_an_option_that_is_none_by_default_need_not_say_that_it_may_be_none() -> None:
    mail = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    assert call_shape(tool(taking(mail=mail))) == "srv.tool(mail: str = None)"
    assert call_shape(tool(taking(("mail",), mail=mail))) == "srv.tool(mail: str | None)"


def test_the_room_of_a_return_type_is_separate_and_may_be_none() -> None:
    subject = tool(taking(), output=taking(("name", "size"), name={"type": "string"}, size={"type": "integer"}))
    assert call_shape(subject) == "srv.tool() -> {name: str, size: int}"
    assert call_shape(subject, returns=20) == "srv.tool() -> {name, size}"
    assert call_shape(subject, returns=0) == "srv.tool()"


def test_a_long_object_is_shown_by_its_keys() -> None:
    rows = {"type": "array", "items": taking(**{f"column_{i}": {"type": "string"} for i in range(6)})}
    shown = "list[{column_0?, column_1?, column_2?, column_3?, column_4?, column_5?}]"
    assert call_shape(tool(taking()), rows) == f"srv.tool() -> {shown}"


def test_a_summary_is_the_first_sentence() -> None:
    assert summary(tool({}, description="Reads a file.  Then more.\nAnd more.")) == "Reads a file."
    assert summary(tool({}, description="The day, e.g. Monday. More.")) == "The day, e.g. Monday."
    assert summary(tool({}, description="word " * 100)) == ("word " * 24).strip() + "…"
    assert summary(tool({}, description="")) == ""


def test_a_sentence_that_most_tools_of_a_server_share_is_skipped() -> None:
    about = "This tool belongs to the files. Tool description: "
    tools = [tool({}, f"t{i}", description=f"{about}Does thing {i}.") for i in range(4)]
    tools.append(tool({}, "odd", description="Note: Does something else."))
    shared = shared_sentences(tools)
    assert [summary(one, shared=shared) for one in tools] == [
        "Does thing 0.", "Does thing 1.", "Does thing 2.", "Does thing 3.", "Note: Does something else.",
    ]  # fmt: skip
    assert shared_sentences(tools[:2]) == frozenset()


def test_a_summary_that_only_repeats_the_name_is_left_out() -> None:
    assert (
        summary(tool(taking(city={"type": "string"}), "get_hotels", description="Get hotels in the given city.")) == ""
    )
    assert summary(tool({}, "get_hotels", description="Get hotels and their prices.")) == "Get hotels and their prices."


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = taking(x=schema)
    return schema


def test_schemas_nested_as_deep_as_json_can_be_are_cut_off() -> None:
    assert "Any" in check_stub(tool(_nested(480)))


def test_definitions_that_fan_out_do_not_take_exponential_time() -> None:
    width, layers = 3, 30
    definitions = {
        f"L{i}": taking(**{f"x{j}": {"$ref": f"#/$defs/L{i + 1}"} for j in range(width)}) for i in range(layers)
    }
    everyone = {f"L{i}": taking(**{f"x{j}": {"$ref": f"#/$defs/L{j}"} for j in range(15)}) for i in range(15)}
    started = time.perf_counter()
    check_stub(tool({**taking(a={"$ref": "#/$defs/L0"}), "$defs": {**definitions, f"L{layers}": {"type": "string"}}}))
    check_stub(tool({**taking(a={"$ref": "#/$defs/L0"}), "$defs": everyone}))
    assert time.perf_counter() - started < 2


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANY_SCHEMA, ANY_SCHEMA, ANY_JSON)
def test_any_schema_at_all_has_a_stub(schema: Any, output: Any, description: Any) -> None:
    check_stub(tool(schema, description=description, output=output))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANY_SCHEMA)
def test_a_stub_is_the_same_every_time(schema: Any) -> None:
    assert stub(tool(schema)) == stub(tool(schema))


def test_every_tool_of_every_captured_server_has_a_correct_stub() -> None:
    tools = captured_tools()
    assert len(tools) > 400
    for subject in tools:
        assert "schema has faults" not in check_stub(subject)


def _many(number: int, schema: Any) -> dict[str, Any]:
    return taking(**{f"p{i}": schema for i in range(number)})


def _deep(levels: int, wrap: Callable[[Any], Any], schema: Any) -> Any:
    for _ in range(levels):
        schema = wrap(schema)
    return schema


HUGE: dict[str, Callable[[], Any]] = {
    "values": lambda: taking(p={"enum": [f"v{i}" for i in range(100_000)]}),
    "long values": lambda: taking(p={"enum": ["x" * 1_000_000 + str(i) for i in range(20)]}),
    "a description": lambda: taking(p={"type": "string", "description": "word " * 2_000_000}),
    "a default": lambda: taking(p={"default": list(range(1_000_000))}),
    "levels": lambda: taking(p=_deep(5_000, lambda inner: {"items": inner}, {})),
    "parameters": lambda: _many(100_000, {"type": "string"}),
    "keys": lambda: taking(p=_many(100_000, {"type": "string"})),
    "long keys": lambda: taking(p=taking(**{"k" * 1_000_000 + str(i): {"type": "string"} for i in range(20)})),
    "classes": lambda: _many(900, taking(x=taking(y={"type": "string"}))),
    "classes of one name": lambda: taking(p=taking(**{f"p{'-' * i}": taking(x={"const": i}) for i in range(500)})),
    "forms": lambda: taking(p={"anyOf": [taking(**{f"a{i}": {"type": "integer"}}) for i in range(50_000)]}),
    "parts": lambda: taking(p={"allOf": [taking(**{f"a{i}": {"type": "integer"}}) for i in range(50_000)]}),
    "parts that are none": lambda: taking(p={"allOf": [1] * 200_000}),
    "references to nowhere": lambda: {
        **taking(**{f"p{i}": {"$ref": f"#x{i}"} for i in range(900)}),
        "$defs": {f"d{i}": {"$anchor": f"a{i}"} for i in range(50_000)},
    },
    "long references": lambda: taking(**{f"p{i}": {"$ref": "#/" + "a/" * 500_000} for i in range(10)}),
    "types": lambda: taking(p={"type": ["string", "integer"] * 50_000}),
    "places": lambda: taking(p={"prefixItems": [{"type": "string"}] * 50_000}),
    "unions": lambda: taking(p=_deep(20, lambda inner: {"anyOf": [inner, taking(a=inner)]}, {"type": "string"})),
    "references to references": lambda: {
        **taking(p={"$ref": "#/$defs/a0"}),
        "$defs": {
            f"a{i}": {"anyOf": [taking(x={"$ref": f"#/$defs/a{i + 1}"}), {"items": {"$ref": f"#/$defs/a{i + 1}"}}]}
            for i in range(40)
        },
    },
    "all of twice": lambda: {
        **taking(p={"$ref": "#/$defs/a0"}),
        "$defs": {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(60)},
    },
}
"""Made when a test asks: together they would take a gigabyte for the whole run."""


@pytest.mark.parametrize("name", HUGE)
def test_a_schema_of_any_size_becomes_a_stub_of_bounded_size_in_bounded_steps(name: str) -> None:
    schema = HUGE[name]()
    subject = tool(schema, output=schema, description="A sentence. " * 1_000_000)
    said: list[str] = []
    work = work_of(lambda: said.extend((check_stub(subject), call_shape(subject), summary(subject))))
    parsed = work_of(lambda: ast.parse(said[0])) + work_of(lambda: list(ast.walk(ast.parse(said[0]))))
    assert work - 3 * parsed < 600_000
    assert len(said[0]) < 150_000 and len(said[1]) < 700 and len(said[2]) < 200


def test_an_enum_of_very_many_values_says_how_many_and_which_come_first() -> None:
    text = check_stub(tool(taking(p={"enum": [f"zone_{i}" for i in range(5_000)]})))
    assert "    p: str = ...," in text
    assert "p is one of 5,000 values, such as 'zone_0', 'zone_1'" in text


def test_nothing_that_a_terminal_obeys_gets_into_a_stub() -> None:
    evil = "\x1b]0;title\x07\x1b[2K\r\u202e"
    schema = taking(
        **{f"p{evil}": {"type": evil, "description": evil, "format": evil, "default": evil, "enum": [evil]}}
    )
    subject = tool({**schema, "title": evil}, name=f"x{evil}", description=f"It says {evil}\nand more.", output=schema)
    for text in (check_stub(subject), call_shape(subject), summary(subject), tool_page(subject, None)):
        assert not set(text) & set("\x1b\x07\r\u202e")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANY_SCHEMA, ANY_JSON)
def test_of_no_schema_at_all_a_control_character_reaches_the_stub(schema: Any, description: Any) -> None:
    text = stub(tool(schema, description=description, output=schema))
    assert visible(text, lines=True) == text
