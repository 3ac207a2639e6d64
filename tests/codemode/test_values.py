import json
from typing import Any

import pytest

from mcpgate.codemode.values import error_of, value_of
from mcpgate_sandbox.engine import Handle
from tests.catalog.schemas import taking, tool

PLAIN = tool({})
WRAPPED = tool({}, output=taking(("result",), result={"type": "array", "items": {"type": "integer"}}))
WRAPPED_TEXT = tool({}, output=taking(("result",), result={"type": "string"}))


def keep(kind: str, mime_type: str, data: str, uri: str | None) -> Handle:
    return Handle("r1", kind, mime_type, len(data), uri)


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def content(*blocks: Any, **more: Any) -> dict[str, Any]:
    return {"content": list(blocks), **more}


IMAGE = {"type": "image", "data": "aGk=", "mimeType": "image/png"}
PICTURE = Handle("r1", "image", "image/png", 4, None)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (content(text("plain words")), "plain words"),
        (content(text('{"a": [1, null]}')), {"a": [1, None]}),
        (content(text("  [1, 2]\n")), [1, 2]),
        (content(text("{not json}")), "{not json}"),
        (content(text("42")), "42"),
        (content(text("")), ""),
        (content(text("one"), text("two")), "one\ntwo"),
        (content(text('{"a": 1}'), text('{"b": 2}')), [{"a": 1}, {"b": 2}]),
        (content(), None),
        ({}, None),
        ({"content": None}, None),
        ({"content": "bare"}, "bare"),
        ({"content": text("not in a list")}, "not in a list"),
        (content(IMAGE), PICTURE),
        (content(text("see"), IMAGE), ["see", PICTURE]),
        (
            content({"type": "audio", "data": "aGk="}),
            Handle("r1", "audio", "application/octet-stream", 4, None),
        ),
        (content({"type": "resource", "resource": {"uri": "file:///a", "text": "inside"}}), "inside"),
        (
            content({"type": "resource", "resource": {"uri": "file:///a", "blob": "aGk=", "mimeType": "a/b"}}),
            Handle("r1", "blob", "a/b", 4, "file:///a"),
        ),
        (
            content({"type": "resource_link", "uri": "file:///a", "name": "a"}),
            {"type": "resource_link", "uri": "file:///a", "name": "a"},
        ),
        (content({"type": "hologram", "data": 1}), {"type": "hologram", "data": 1}),
        (content({"type": "text", "text": 5}), {"type": "text", "text": 5}),
        (content(text("ignored"), structuredContent={"a": 1}), {"a": 1}),
        (content(structuredContent={"result": 1}), {"result": 1}),
        (content(structuredContent={}), {}),
    ],
)
def test_code_gets_the_value_that_a_person_would_expect(result: dict[str, Any], expected: Any) -> None:
    assert value_of(PLAIN, result, keep) == expected


def test_a_wrapped_result_arrives_unwrapped() -> None:
    assert value_of(WRAPPED, content(text("1"), structuredContent={"result": [1]}), keep) == [1]
    assert value_of(WRAPPED, content(structuredContent={"result": [1], "more": 2}), keep) == {"result": [1], "more": 2}


def test_json_in_a_wrapped_text_is_parsed_and_other_text_stays() -> None:
    assert value_of(WRAPPED_TEXT, content(structuredContent={"result": '[{"a": 1}]'}), keep) == [{"a": 1}]
    assert value_of(WRAPPED_TEXT, content(structuredContent={"result": "words"}), keep) == "words"


def test_an_image_next_to_structured_content_is_not_lost() -> None:
    assert value_of(PLAIN, content(IMAGE, structuredContent={"a": 1}), keep) == {"a": 1, "_content": [PICTURE]}
    assert value_of(WRAPPED, content(IMAGE, structuredContent={"result": [1]}), keep) == [[1], PICTURE]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (content(text("no such file"), text("at /x")), ("no such file\nat /x", None)),
        (content(text(" "), structuredContent={"code": 7}), ("the tool failed and gave no reason", {"code": 7})),
        ({"content": "odd"}, ("the tool failed and gave no reason", None)),
    ],
)
def test_a_failure_has_a_message_and_its_data(result: dict[str, Any], expected: tuple[str, Any]) -> None:
    assert error_of(result) == expected


def test_json_of_megabytes_is_made_a_value_up_to_a_size_and_a_number_of_objects() -> None:
    rows = json.dumps([{"a": "x" * 1000}] * 5_000)
    assert value_of(PLAIN, content(text(rows)), keep) == json.loads(rows)
    longer = json.dumps([{"a": "x" * 1000}] * 10_000)
    assert value_of(PLAIN, content(text(longer)), keep) == longer
    many = "[" + "[]," * 400_000 + "1]"
    assert value_of(PLAIN, content(text(many)), keep) == many


def test_the_texts_of_one_result_share_the_size_that_is_parsed() -> None:
    rows = json.dumps([{"a": "x" * 1000}] * 3_000)
    values = value_of(PLAIN, content(*(text(rows) for _ in range(20))), keep)
    parsed = [value for value in values if isinstance(value, list)]
    assert len(values) == 20 and len(parsed) == 2 and all(value in (rows, parsed[0]) for value in values)


def test_json_behind_white_space_is_json() -> None:
    assert value_of(PLAIN, content(text("\n  {}")), keep) == {}
    assert value_of(PLAIN, content(text(" " * 1000 + "{}")), keep) == " " * 1000 + "{}"


def test_an_error_message_of_megabytes_is_cut() -> None:
    message, _ = error_of(content(*(text("x" * 1_000_000) for _ in range(5))))
    assert len(message) < 70_000 and message.endswith("more characters)")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"mean": NaN, "n": 0}', {"mean": None, "n": 0}),
        ('{"balance": 1234567890123456789012345}', {"balance": 1234567890123456789012345}),
        ('\ufeff{"id": 725653563933458432}', {"id": 725653563933458432}),
        ("[-12345678901234567890]", [-12345678901234567890]),
    ],
)
def test_json_in_text_means_what_it_means_as_structured_content(text: str, value: Any) -> None:
    assert value_of(tool(taking()), {"content": [{"type": "text", "text": text}]}, lambda *part: pytest.fail()) == value
