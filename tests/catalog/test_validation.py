"""The validator compared with jsonschema, where the verdict is certain, and against schemas made to take long."""

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from referencing import Registry
from referencing.exceptions import Unresolvable

from mcpgate.catalog.arguments import ArgumentFault, bind, check, schema_fault
from mcpgate.catalog.dialects import fault_in
from mcpgate.catalog.validation import MAX_STEPS, Document, Steps, Verdict
from tests.catalog.schemas import ANY_JSON, ANY_SCHEMA, taking, tool
from tests.catalog.work import work_of

CLASSES: dict[int, Any] = {
    4: jsonschema.Draft4Validator,
    6: jsonschema.Draft6Validator,
    7: jsonschema.Draft7Validator,
    2019: jsonschema.Draft201909Validator,
    2020: jsonschema.Draft202012Validator,
}
DRAFTS = st.sampled_from(list(CLASSES))
SLOW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

_NAMES = st.sampled_from(["a", "b", "c1", "class"])
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 12)
    | st.sampled_from([0.5, 1.0, 2.5, -1.5, "", "a", "ab", "c1", "abab"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=8,
)
_COUNTS = st.integers(0, 3)
_NUMBERS = st.integers(-3, 12) | st.sampled_from([0.5, 2.5])
_PATTERNS = st.sampled_from(["^a", "b$", "[a-c]+", "^.{1,2}$", r"^\w+$", "^(ab)*$", r"\d", "^[^a]"])
_TYPES = st.sampled_from(["array", "boolean", "integer", "null", "number", "object", "string"])


def _sound(inner: st.SearchStrategy[Any], draft: int) -> st.SearchStrategy[Any]:
    some, named = st.lists(inner, min_size=1, max_size=3), st.dictionaries(_NAMES, inner, max_size=3)
    names = st.lists(_NAMES, min_size=1, max_size=3, unique=True)
    keywords = {
        "type": _TYPES | st.lists(_TYPES, min_size=1, max_size=3, unique=True),
        "enum": st.lists(_VALUES, min_size=1, max_size=3, unique_by=json.dumps),
        "properties": named,
        "patternProperties": st.dictionaries(_PATTERNS, inner, max_size=2),
        "additionalProperties": inner | st.booleans(),
        "required": names,
        "minProperties": _COUNTS,
        "maxProperties": _COUNTS,
        "items": inner,
        "minItems": _COUNTS,
        "maxItems": _COUNTS,
        "uniqueItems": st.booleans(),
        "minLength": _COUNTS,
        "maxLength": _COUNTS,
        "pattern": _PATTERNS,
        "minimum": _NUMBERS,
        "maximum": _NUMBERS,
        "multipleOf": st.sampled_from([1, 2, 3, 0.5]),
        "allOf": some,
        "anyOf": some,
        "oneOf": some,
        "not": inner,
        "$ref": st.sampled_from(["#/definitions/A", "#/definitions/B", "#/definitions/C"]),
    }
    if draft > 4:
        keywords |= {"const": _VALUES, "contains": inner, "propertyNames": inner, "exclusiveMinimum": _NUMBERS}
    if draft < 2020:
        keywords |= {"items": inner | some, "additionalItems": inner}
    if draft < 2019:
        keywords |= {"dependencies": st.dictionaries(_NAMES, inner | names, max_size=2)}
    if draft >= 7:
        keywords |= {"if": inner, "then": inner, "else": inner}
    if draft >= 2019:
        keywords |= {"dependentSchemas": named, "dependentRequired": st.dictionaries(_NAMES, names, max_size=2)}
        keywords |= {"minContains": _COUNTS, "maxContains": _COUNTS, "unevaluatedProperties": inner | st.just(False)}
    if draft == 2020:
        keywords |= {"prefixItems": some}
    pairs = st.lists(st.sampled_from(sorted(keywords)), max_size=3, unique=True)
    return pairs.flatmap(lambda chosen: st.fixed_dictionaries({name: keywords[name] for name in chosen}))


def _schemas(draft: int) -> st.SearchStrategy[Any]:
    leaf = st.just({}) if draft == 4 else st.just({}) | st.booleans()
    inner = st.recursive(
        leaf | _TYPES.map(lambda kind: {"type": kind}), lambda below: _sound(below, draft), max_leaves=8
    )
    definitions = st.fixed_dictionaries({name: inner for name in "ABC"})
    return st.builds(lambda schema, named: {**schema, "definitions": named}, _sound(inner, draft), definitions)


SCHEMAS = DRAFTS.flatmap(lambda draft: st.tuples(st.just(draft), _schemas(draft)))


def verdict(draft: int, schema: Any, value: Any, steps: Steps | None = None) -> Verdict:
    return Document(schema, draft).judge(value, steps)


@SLOW
@given(SCHEMAS, _VALUES)
def test_what_is_certain_is_what_jsonschema_says(subject: tuple[int, Any], value: Any) -> None:
    draft, schema = subject
    found = verdict(draft, schema, value)
    try:
        fits = CLASSES[draft](schema, registry=Registry()).is_valid(value)
    except (RecursionError, Unresolvable):
        return
    if found is not None:
        assert (not found) is fits


@SLOW
@given(SCHEMAS, _VALUES)
def test_a_schema_without_references_is_always_certain(subject: tuple[int, Any], value: Any) -> None:
    draft, schema = subject
    if "$ref" not in json.dumps(schema):
        assert verdict(draft, schema, value) is not None


@SLOW
@given(DRAFTS, ANY_SCHEMA)
def test_a_schema_is_valid_if_its_meta_schema_says_so(draft: int, schema: Any) -> None:
    try:
        CLASSES[draft].check_schema(schema, format_checker=None)
    except jsonschema.SchemaError:
        sound = False
    else:
        sound = True
    assert (fault_in(schema, draft) is None) is sound


# --- cost


MOST_WORK = 30 * MAX_STEPS
"""Calls that one step takes."""


def _twice(levels: int, keyword: str, leaf: Any) -> dict[str, Any]:
    """Each level refers to the next one twice: 2 to the power of `levels` ways to the leaf."""
    references = {f"a{i}": {keyword: [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(levels)}
    return {"properties": {"p": {"$ref": "#/$defs/a0"}}, "$defs": {**references, f"a{levels}": leaf}}


def _nested(levels: int, of: Callable[[Any], Any], leaf: Any) -> Any:
    for _ in range(levels):
        leaf = of(leaf)
    return leaf


_NEVER: dict[str, Any] = {"not": {"$ref": "#/$defs/n"}}
HOSTILE: dict[str, Callable[[], tuple[Any, Any]]] = {
    "all of twice": lambda: (_twice(60, "allOf", {"type": "string"}), "x"),
    "any of twice, wrong at the end": lambda: (_twice(60, "anyOf", {"type": "string"}), 1),
    "one of twice": lambda: (_twice(60, "oneOf", {"type": "string"}), "x"),
    "twice through objects": lambda: (
        {
            "properties": {"p": {"$ref": "#/$defs/a"}},
            "$defs": {"a": {"anyOf": [{"properties": {str(i): {"$ref": "#/$defs/a"} for i in range(9)}}] * 9}},
        },
        _nested(5, lambda inner: {str(i): inner for i in range(9)}, 1),
    ),
    "each level another object": lambda: (
        {"properties": {"p": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"oneOf": [{"items": {"$ref": "#/$defs/a"}}, {"items": {"$ref": "#/$defs/a"}, "minItems": 1}]}}},
        _nested(100, lambda inner: [inner, [inner]], []),
    ),
    "not what it is": lambda: ({"properties": {"p": {"$ref": "#/$defs/n"}}, "$defs": {"n": _NEVER}}, 1),
    "if after if": lambda: ({"properties": {"p": {"$ref": "#/$defs/i"}}, "$defs": {"i": {"if": {"$ref": "#/$defs/i"}, "then": {"$ref": "#/$defs/i"}, "else": {"$ref": "#/$defs/i"}}}}, 1),
    "unevaluated twice": lambda: ({"unevaluatedProperties": False, **_twice(60, "allOf", {"unevaluatedProperties": False})}, {"x": 1}),
    "unevaluated in itself": lambda: ({"properties": {"p": {"$ref": "#/$defs/u"}}, "$defs": {"u": {"unevaluatedProperties": False, "allOf": [{"$ref": "#/$defs/u"}]}}}, {"x": 1}),
    "many items": lambda: (taking(p={"type": "array", "items": {"type": "string"}}), ["a"] * 400_000),
    "many objects that are to be unique": lambda: (taking(p={"type": "array", "uniqueItems": True}), [{"a": i} for i in range(100_000)]),
    "integers of one hash that are to be unique": lambda: (taking(p={"uniqueItems": True}), [i * (2**61 - 1) for i in range(30_000)]),
    "huge items that are to be unique": lambda: (taking(p={"uniqueItems": True}), ["x" * 1_000_000 + str(i) for i in range(100)]),
    "many names against many patterns": lambda: (
        taking(p={"patternProperties": {f"^{i}[a-z]*$": {"type": "string"} for i in range(2_000)}}),
        {f"key{i}": "x" for i in range(2_000)},
    ),
    "many heavy patterns": lambda: (taking(p={"patternProperties": {f"^{i}[^a]{{1000}}$": True for i in range(2_000)}}), {"a": 1}),
    "an e-mail as it is often written": lambda: (taking(p={"pattern": r"^([a-zA-Z0-9_\-\.]+)+@([a-zA-Z0-9_\-\.]+)\.([a-zA-Z]{2,5})$"}), "a" * 50_000 + "!"),
    "a pattern that repeats repeats": lambda: (taking(p={"pattern": "^((((a+)+)+)+)+$"}), "a" * 50_000 + "!"),
    "a pattern of many states": lambda: (taking(p={"pattern": "[ab]*a[ab]{5000}c"}), "ab" * 50_000),
    "a pattern that is written out large": lambda: (taking(p={"pattern": r"((\w{1000}){1000}){1000}"}), "a" * 1000),
    "an enum against many items": lambda: (taking(p={"items": {"enum": [[i] for i in range(5_000)]}}), [[i] for i in range(5_000)]),
    "texts of an enum": lambda: (taking(p={"items": {"enum": ["x" * 10_000 + str(i) for i in range(400)]}}), ["x" * 10_000 + "y"] * 5_000),
    "a deep value against a deep constant": lambda: (taking(p={"items": {"const": _nested(900, lambda inner: [inner], 1)}}), [_nested(900, lambda inner: [inner], 1)] * 1_000),
    "contains in contains": lambda: ({"properties": {"p": {"$ref": "#/$defs/c"}}, "$defs": {"c": {"contains": {"$ref": "#/$defs/c"}, "maxContains": 0}}}, _nested(12, lambda inner: [inner] * 8, [])),
    "many required": lambda: (taking(p={"items": {"required": [str(i) for i in range(10_000)]}}), [{str(i): 1 for i in range(10_000)}] * 100),
    "many dependencies": lambda: (taking(p={"items": {"dependentRequired": {str(i): ["0"] for i in range(9_000)}}}), [{"0": 1}] * 100),
    "a schema of many unknown words": lambda: (taking(p={"items": {f"x-{i}": 1 for i in range(20_000)}}), [1] * 1_000),
    "huge integers": lambda: (taking(p={"items": {"multipleOf": 3, "minimum": 10**1000}}), [10**4000 + i for i in range(20_000)]),
    "names of properties": lambda: (taking(p={"propertyNames": {"pattern": "^a", "maxLength": 5}}), {f"a{i}": 1 for i in range(100_000)}),
    "dynamic references": lambda: ({"$dynamicAnchor": "n", "properties": {"p": {"items": {"$dynamicRef": "#n"}}}, "allOf": [{"$dynamicRef": "#n"}] * 40}, [{}] * 40),
}  # fmt: skip
"""Made when a test asks: together they would take a gigabyte for the whole run."""


@pytest.mark.parametrize("name", HOSTILE)
def test_no_schema_and_no_value_takes_more_than_the_steps_there_are(name: str) -> None:
    schema, value = HOSTILE[name]()
    subject = tool({"type": "object", **schema})
    check(subject, {}, Steps())  # computed once for each tool
    steps = Steps()
    said = []

    def act() -> None:
        try:
            check(subject, {"p": value}, steps)
        except ArgumentFault as fault:
            said.append(str(fault))

    assert work_of(act) < MOST_WORK
    assert all(len(text) < 2000 for text in said)


@pytest.mark.parametrize("name", HOSTILE)
def test_whether_null_is_taken_costs_no_more(name: str) -> None:
    subject = tool({"type": "object", **HOSTILE[name]()[0]})
    check(subject, {}, Steps())
    assert work_of(lambda: bind(subject, [None], {})) < MOST_WORK


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_validated_in_bounded_time(name: str) -> None:
    schema, _ = HOSTILE[name]()
    assert work_of(lambda: schema_fault(schema)) < MOST_WORK


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SCHEMAS, ANY_JSON, st.integers(0, 300))
def test_any_schema_keeps_to_the_steps_it_is_given_and_errs_only_towards_the_server(
    subject: tuple[int, Any], value: Any, most: int
) -> None:
    draft, schema = subject
    steps = Steps(most)
    found = verdict(draft, schema, value, steps)
    whole = verdict(draft, schema, value)
    assert steps.left >= 0 or found is None or found
    assert found is None or bool(found) is bool(whole)


def test_what_is_wrong_before_the_steps_are_used_up_is_still_said() -> None:
    subject = tool(taking(a={"type": "integer"}, b={"type": "array", "items": {"type": "string"}}))
    with pytest.raises(ArgumentFault, match="a: 'x' is not of type 'integer'"):
        check(subject, {"a": "x", "b": ["a"] * 400_000})
    check(subject, {"a": 1, "b": ["a"] * 400_000 + [1]})


OF_MANY_PARTS: dict[str, Callable[[], Any]] = {
    "properties": lambda: {"properties": {str(i): {"type": "string"} for i in range(100_000)}},
    "enum": lambda: {"enum": list(range(10_000_000))},
    "allOf": lambda: {"allOf": [{"type": "strin"}] * 100_000},
    "depth": lambda: _nested(60_000, lambda inner: {"not": inner}, {}),
    "required": lambda: {"required": [str(i) for i in range(100_000)]},
    "dependencies": lambda: {"dependentRequired": {str(i): ["a"] * 10 for i in range(20_000)}},
}


@pytest.mark.parametrize("name", OF_MANY_PARTS)
def test_a_schema_of_too_many_parts_is_not_checked_at_all(name: str) -> None:
    schema = OF_MANY_PARTS[name]()
    found: list[str | None] = []
    assert work_of(lambda: found.append(schema_fault(schema))) < MOST_WORK
    assert found == ["too large to be checked"]
    check(tool({"type": "object", **schema}), {"p": 1})


def test_a_schema_nested_deeper_than_pythons_recursion_limit_is_valid_and_judges_what_it_can() -> None:
    schema = {
        "type": "object",
        "properties": {"p": {"type": "integer"}, "q": _nested(5_000, lambda s: {"items": s}, {})},
    }
    assert schema_fault(schema) is None
    value = _nested(5_000, lambda inner: [inner], 1)
    check(tool(schema), {"p": 1, "q": value})
    with pytest.raises(ArgumentFault, match="p: 'x' is not of type 'integer'"):
        check(tool(schema), {"p": "x", "q": value})


HUGE: dict[str, Callable[[], Any]] = {
    "text": lambda: "x" * 60_000_000,
    "key": lambda: {"k" * 1_000_000: "v" * 1_000_000},
    "list": lambda: ["x" * 1_000_000] * 100,
    "deep": lambda: _nested(900, lambda inner: [inner], "x"),
    "number": lambda: 10**4_000,
    "longer number": lambda: -(7**100_000),
    "odd keys": lambda: {i: i for i in range(100_000)},
    "surrogates": lambda: "\ud800" * 100,
}


@pytest.mark.parametrize("name", HUGE)
def test_a_huge_value_is_named_in_a_few_words_and_steps(name: str) -> None:
    value = HUGE[name]()
    subject = tool({"type": "object", "properties": {"p": {"anyOf": [{"type": "null"}, {"const": 5}]}}})
    said: list[str] = []

    def act() -> None:
        with pytest.raises(ArgumentFault) as caught:
            check(subject, {"p": value})
        said.append(str(caught.value))

    assert work_of(act) < 2_000
    assert len(said[0]) < 300


def test_a_call_with_a_hundred_thousand_unknown_names_is_refused_in_a_few_steps() -> None:
    subject = tool(taking(**{f"parameter_{i}": {"type": "string"} for i in range(5_000)}))
    assert subject.parameters  # computed once for each tool
    names = {"x" * 300 + str(i): None for i in range(100_000)}
    said: list[str] = []

    def act() -> None:
        with pytest.raises(ArgumentFault) as caught:
            bind(subject, [], names)
        said.append(str(caught.value))

    assert work_of(act) < 50_000
    assert len(said[0]) < 3_000


def test_an_unknown_name_of_megabytes_is_cut_before_it_is_compared() -> None:
    subject = tool(taking(text={"type": "string"}))
    with pytest.raises(ArgumentFault) as caught:
        bind(subject, [], {"x" * 7_000_000: 1})
    assert len(str(caught.value)) < 200


# --- references


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"properties": {"p": {"$ref": "#n"}}, "$defs": {"N": {"$anchor": "n", "type": "string"}}}, "x", 1),
        ({"properties": {"p": {"$ref": "item"}}, "$defs": {"N": {"$id": "item", "type": "string"}}}, "x", 1),
        (
            {
                "$id": "https://x.test/schemas/root.json",
                "properties": {"p": {"$ref": "item.json"}},
                "$defs": {"N": {"$id": "https://x.test/schemas/item.json", "type": "string"}},
            },
            "x",
            1,
        ),
        (
            {"$id": "https://x.test/root.json", "properties": {"p": {"$ref": "root.json#/$defs/N"}}, "$defs": {"N": {"type": "string"}}},
            "x",
            1,
        ),
        ({"properties": {"p": {"$ref": "#/$defs/a~1b%20c"}}, "$defs": {"a/b c": {"type": "string"}}}, "x", 1),
        ({"properties": {"p": {"type": "array", "items": {"$ref": "#"}}}}, [{"p": []}], [{"p": 1}]),
        ({"$dynamicAnchor": "n", "properties": {"p": {"items": {"$dynamicRef": "#n"}}}, "type": "object"}, [{}], [1]),
    ],
)  # fmt: skip
def test_a_reference_within_the_schema_is_followed(schema: Any, right: Any, wrong: Any) -> None:
    check(tool(schema), {"p": right})
    with pytest.raises(ArgumentFault, match="is not of type"):
        check(tool(schema), {"p": wrong})


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"p": {"$ref": "#/$defs/N"}}, "$defs": {"N": {"type": "string"}, "M": {"$id": "m", "items": {"$ref": "#/$defs/N"}}}},
        {"properties": {"p": {"$ref": "#n"}}, "$defs": {"N": {"$anchor": "n", "type": "string"}, "M": {"$anchor": "n"}}},
        {"properties": {"p": {"$ref": "#/properties/p"}}},
        {"properties": {"p": {"$ref": "#/required"}}, "required": ["p"]},
        {"properties": {"p": {"not": {"$ref": "https://elsewhere.test/x"}}}},
        {"properties": {"p": {"oneOf": [{"$ref": "https://elsewhere.test/x"}, {"type": "integer"}]}}},
        {"properties": {"p": {"$ref": "#/" + "x/" * 5_000}}},
    ],
)  # fmt: skip
def test_a_reference_that_leads_nowhere_clear_is_left_to_the_server(schema: Any) -> None:
    check(tool(schema), {"p": 1})
    check(tool(schema), {"p": "x"})
