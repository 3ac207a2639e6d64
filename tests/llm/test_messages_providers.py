"""Anthropic Messages, as providers speak it."""

import json
from typing import Any

import pytest

from mcpgate.llm.messages import (
    Broken,
    ChatRequest,
    File,
    Image,
    JsonOutput,
    Message,
    PartEnded,
    PartGrew,
    PartStarted,
    Reasoning,
    Refused,
    Started,
    Stopped,
    Text,
    Thinking,
    TokenUsage,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Untranslatable,
)
from mcpgate.providers import messages
from tests.llm.judges import judge_request


def _asked(*said: Message, **fields: Any) -> dict[str, Any]:
    body = messages.render_request(ChatRequest("claude", said or (Message("user", (Text("hi"),)),), **fields))
    judge_request("messages", body)
    return body


def test_a_request_without_a_token_limit_gets_the_documented_one() -> None:
    assert _asked()["max_tokens"] == messages.DEFAULT_MAX_TOKENS
    assert _asked(max_tokens=5)["max_tokens"] == 5


def test_the_default_limit_leaves_room_for_the_thinking_that_was_asked_for() -> None:
    body = _asked(reasoning=Reasoning(budget_tokens=30_000))
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 30_000}
    assert body["max_tokens"] == messages.DEFAULT_MAX_TOKENS + 30_000


@pytest.mark.parametrize(
    ("reasoning", "thinking", "effort"),
    [
        (Reasoning("high"), {"type": "adaptive"}, "high"),
        (Reasoning("minimal"), {"type": "adaptive"}, "low"),
        (Reasoning("none"), {"type": "disabled"}, None),
        (Reasoning(adaptive=True, shown=True), {"type": "adaptive", "display": "summarized"}, None),
    ],
)
def test_effort_becomes_thinking_and_effort(reasoning: Reasoning, thinking: dict[str, Any], effort: str | None) -> None:
    body = _asked(reasoning=reasoning)
    assert body["thinking"] == thinking
    assert body.get("output_config") == ({"effort": effort} if effort else None)


def test_marks_for_the_cache_stand_where_the_client_put_them() -> None:
    mark = {"type": "ephemeral", "ttl": "1h"}
    body = _asked(
        Message("user", (Text("a", mark), Image("image/png", data="AAAA", cache=mark))),
        Message("assistant", (ToolCall("t", "f", "{}"),)),
        Message("user", (ToolResult("t", (Text("x"),), cache=mark),)),
        system=(Text("s", mark),),
        tools=(Tool("f", cache=mark),),
    )
    assert body["system"] == [{"type": "text", "text": "s", "cache_control": mark}]
    assert [block["cache_control"] for block in body["messages"][0]["content"]] == [mark, mark]
    assert body["messages"][2]["content"][0]["cache_control"] == mark
    assert body["tools"][0]["cache_control"] == mark


def test_results_keep_images_and_documents() -> None:
    parts = (
        Text("x"),
        Image("image/png", data="AAAA"),
        Image("", url="https://a.example/b.png"),
        File("application/pdf", data="BBBB", name="a.pdf"),
        File("text/plain", data="aGVsbG8="),
    )
    body = _asked(Message("user", (ToolResult("t", parts, is_error=True),)))
    (result,) = body["messages"][0]["content"]
    assert result["is_error"] is True
    assert [block["source"]["type"] for block in result["content"][1:]] == ["base64", "url", "base64", "text"]
    assert result["content"][4]["source"]["data"] == "hello"


def test_reasoning_goes_back_only_if_the_api_can_verify_it() -> None:
    said = (Thinking("mine", signature="s"), Thinking("", encrypted="x"), Thinking("another's"), Text(""), Text("ok"))
    body = _asked(Message("user", (Text("hi"),)), Message("assistant", said))
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "mine", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "ok"},
    ]


def test_a_json_schema_becomes_the_output_format_with_its_description() -> None:
    body = _asked(output=JsonOutput({"type": "object"}, description="a pet"))
    format = body["output_config"]["format"]
    assert format == {"type": "json_schema", "schema": {"type": "object", "description": "a pet"}}


def test_choices_of_tools() -> None:
    tools = (Tool("f", schema={"properties": {}}),)
    one_at_a_time = _asked(tools=tools, tool_choice=ToolChoice("required", parallel=False))
    assert one_at_a_time["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    assert one_at_a_time["tools"][0]["input_schema"] == {"type": "object", "properties": {}}
    assert _asked(tools=tools, tool_choice=ToolChoice("tool", "f"))["tool_choice"] == {"type": "tool", "name": "f"}
    assert "tool_choice" not in _asked(tool_choice=ToolChoice(parallel=True))


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"seed": 1}, "seed"),
        ({"verbosity": "low"}, "verbosity"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": -1}, "presence_penalty"),
        ({"temperature": 1.5}, "temperature"),
        ({"output": JsonOutput()}, "response_format.type"),
        ({"messages": (Message("user", (File("text/csv", data="AAAA"),)),)}, "file"),
        ({"messages": (Message("user", (File("text/plain", data="!"),)),)}, "file"),
        ({"messages": (Message("assistant", (ToolCall("t", "f", "[1]"),)),)}, "tool_calls['t'].arguments"),
        ({"messages": (Message("assistant", (Image("image/png", data="AAAA"),)),)}, "messages"),
    ],
)
def test_what_the_format_has_no_form_for_is_refused_by_name(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(Untranslatable) as refusal:
        messages.render_request(ChatRequest(**({"model": "m", "messages": ()} | fields)))
    assert refusal.value.data["field"] == path


def test_penalties_of_zero_ask_for_nothing() -> None:
    assert _asked(frequency_penalty=0.0, presence_penalty=0.0) == _asked()


def _answer(**fields: Any) -> dict[str, Any]:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 7, "output_tokens": 4}
    whole = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "usage": usage}
    return whole | {"stop_reason": "end_turn", "stop_sequence": None} | fields


def test_cached_tokens_are_part_of_the_input() -> None:
    usage = messages.parse_answer(_answer()).usage
    assert usage == TokenUsage(input=117, output=4, cache_read=100, cache_write=7)


def test_a_refusal_brings_its_explanation() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "not that"}
    answer = messages.parse_answer(_answer(stop_reason="refusal", stop_details=details))
    assert (answer.stop, answer.parts) == ("refusal", (Refused("not that"),))


def test_a_server_tool_in_an_answer_is_never_a_call_to_the_client() -> None:
    content = [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}]
    with pytest.raises(Untranslatable) as refusal:
        messages.parse_answer(_answer(content=content))
    assert refusal.value.data["field"] == "content[0].type"


@pytest.mark.parametrize(
    "body",
    [{}, {"type": "error", "error": {}}, _answer(stop_reason="new"), _answer(content=3), _answer(stop_reason=None)],
)
def test_what_is_no_answer_is_an_error(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        messages.parse_answer(body)


def _read(*events: dict[str, Any]) -> list[Any]:
    reader = messages.parse_stream()
    read = [one for event in events for one in reader.read(event["type"], json.dumps(event).encode())]
    return read + list(reader.end())


START = {
    "type": "message_start",
    "message": _answer(usage={"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 1}),
}


def test_a_stream_is_read() -> None:
    assert _read(
        START,
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        },
        {"type": "content_block_stop", "index": 1},
        {"type": "an_event_of_next_year"},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ) == [
        Started("msg_1", "claude", TokenUsage(input=15, output=1, cache_read=5)),
        PartStarted(0, Thinking("")),
        PartGrew(0, "hm"),
        PartGrew(0, signature="s"),
        PartEnded(0),
        PartStarted(1, ToolCall("t", "f", "")),
        PartGrew(1, "{}"),
        PartEnded(1),
        Stopped("tool_calls", TokenUsage(input=15, output=9, cache_read=5)),
    ]


def test_a_refusal_in_a_stream_brings_its_explanation() -> None:
    delta = {"stop_reason": "refusal", "stop_details": {"type": "refusal", "explanation": "not that"}}
    read = _read(
        START, {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 2}}, {"type": "message_stop"}
    )
    assert read[1:4] == [PartStarted(0, Refused("")), PartGrew(0, "not that"), PartEnded(0)]


def test_an_error_breaks_the_stream() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    assert _read(START, error)[-1] == Broken("overloaded_error", "busy")


@pytest.mark.parametrize(
    "events",
    [
        [START],
        [START, {"type": "message_stop"}],
        [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}],
        [{"type": "content_block_stop", "index": 3}],
        [{"type": "message_start", "message": 3}],
    ],
)
def test_a_stream_that_is_cut_off_or_out_of_order_is_an_error(events: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError):
        _read(*events)
