"""OpenAI Responses, as clients speak it."""

from typing import Any

import pytest

from mcpgate.api.llm import responses
from mcpgate.llm.messages import (
    Broken,
    ChatAnswer,
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
    ToolResult,
    Untranslatable,
)
from tests.llm.judges import judge_answer, judge_stream, write_all

ASKED = ChatRequest("m", ())


def _body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "input": "hi", **fields}


def _said(*items: dict[str, Any]) -> ChatRequest:
    return responses.parse_request(_body(input=list(items)))


def test_items_become_messages_of_those_who_said_them() -> None:
    request = responses.parse_request(
        _body(
            instructions="be kind",
            input=[
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "be brief"}]},
                {"role": "user", "content": "go"},
                {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "wait"}]},
                {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}", "id": "fc_1"},
                {"type": "function_call", "call_id": "b", "name": "g", "arguments": '{"x":1}'},
                {"type": "function_call_output", "call_id": "a", "output": "A"},
                {
                    "type": "function_call_output",
                    "call_id": "b",
                    "output": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"}],
                },
                {"role": "user", "content": [{"type": "input_file", "file_url": "https://a.example/b.pdf"}]},
            ],
        )
    )
    assert request.system == (Text("be kind"), Text("be brief"))
    assert request.messages == (
        Message("user", (Text("go"),)),
        Message("assistant", (Text("wait"), ToolCall("a", "f", "{}"), ToolCall("b", "g", '{"x":1}'))),
        Message(
            "user",
            (
                ToolResult("a", (Text("A"),)),
                ToolResult("b", (Image("image/png", data="AAAA", detail="auto"),)),
                File("", url="https://a.example/b.pdf"),
            ),
        ),
    )


def test_effort_verbosity_and_the_form_of_the_answer_are_read() -> None:
    format = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    request = responses.parse_request(
        _body(reasoning={"effort": "high", "summary": "auto"}, text={"format": format, "verbosity": "low"})
    )
    assert request.reasoning == Reasoning("high", shown=True)
    assert request.output == JsonOutput({"type": "object"}, "n", True)
    assert request.verbosity == "low"


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"store": True}, "store"),
        ({"truncation": "auto"}, "truncation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"tools": [{"type": "function", "name": "f"}, {"type": "web_search"}]}, "tools[1].type"),
        (
            {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]}]},
            "tools[0].tools[0].type",
        ),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"made_up": 1}, "made_up"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
    ],
)
def test_what_cannot_be_translated_is_refused_by_its_path(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(Untranslatable) as refusal:
        responses.parse_request(_body(**fields))
    assert refusal.value.data["field"] == path


APPLY_PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edit files",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}


def test_a_tool_that_takes_free_text_is_a_function_to_the_model() -> None:
    request = responses.parse_request(_body(tools=[APPLY_PATCH], tool_choice={"type": "custom", "name": "apply_patch"}))
    (tool,) = request.tools
    assert tool.freeform and tool.schema["required"] == ["input"]
    assert "Edit files" in tool.description and "start: /.+/" in tool.description
    again = _said(
        {"type": "custom_tool_call", "call_id": "a", "name": "apply_patch", "input": "*** Begin"},
        {"type": "custom_tool_call_output", "call_id": "a", "output": "ok"},
    )
    assert again.messages[0].parts == (ToolCall("a", "apply_patch", '{"input":"*** Begin"}'),)
    assert again.messages[1].parts == (ToolResult("a", (Text("ok"),)),)


def test_the_client_gets_the_free_text_back() -> None:
    request = ChatRequest("m", (), tools=(Tool("apply_patch", freeform=True), Tool("f")))
    events = [
        Started("a", "m", created=5),
        PartStarted(0, ToolCall("x", "apply_patch", "")),
        PartGrew(0, '{"input":"*** '),
        PartGrew(0, 'Begin"}'),
        PartEnded(0),
        PartStarted(1, ToolCall("y", "f", "")),
        PartGrew(1, "{}"),
        PartEnded(1),
        Stopped("tool_calls", TokenUsage(1, 2)),
    ]
    written = judge_stream("responses", write_all(responses, request, events))
    assert [event["type"] for event in written if "custom" in event["type"]] == [
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
    ]
    output = written[-1]["response"]["output"]
    assert [(item["type"], item.get("input")) for item in output] == [
        ("custom_tool_call", "*** Begin"),
        ("function_call", None),
    ]
    assert written[-1]["response"]["tools"][0]["type"] == "custom"


def test_tools_of_a_namespace_keep_it_on_their_way_to_the_model_and_back() -> None:
    inner = [{"type": "function", "name": name, "description": name, "parameters": {}} for name in ("close", "spawn")]
    tools = [{"type": "namespace", "name": "agents", "description": "Sub-agents.", "tools": inner}]
    call = {"type": "function_call", "call_id": "a", "name": "spawn", "namespace": "agents", "arguments": "{}"}
    request = responses.parse_request(_body(input=[call], tools=tools))
    assert [tool.name for tool in request.tools] == ["agents__close", "agents__spawn"]
    assert [tool.description for tool in request.tools] == ["Sub-agents.\n\nclose", "spawn"]
    assert request.messages[0].parts == (ToolCall("a", "agents__spawn", "{}"),)
    answer = ChatAnswer("a", "m", (ToolCall("b", "agents__close", "{}"),), "tool_calls", None)
    written = responses.render_answer(answer, request)
    judge_answer("responses", written)
    assert (written["output"][0]["namespace"], written["output"][0]["name"]) == ("agents", "close")
    assert [tool["name"] for tool in written["tools"][0]["tools"]] == ["close", "spawn"]


def test_a_stream_has_each_event_of_the_original_in_its_order() -> None:
    events = [
        Started("a", "m", created=5),
        PartStarted(0, Thinking("")),
        PartGrew(0, "hm"),
        PartGrew(0, signature="s"),
        PartEnded(0),
        PartStarted(1, Text("")),
        PartGrew(1, "hello"),
        PartEnded(1),
        PartStarted(2, ToolCall("x", "f", "")),
        PartGrew(2, "{}"),
        PartEnded(2),
        Stopped("tool_calls", TokenUsage(10, 4, cache_read=6, reasoning=2)),
    ]
    written = judge_stream("responses", write_all(responses, ASKED, events))
    assert [(event["type"].removeprefix("response."), event.get("output_index")) for event in written] == [
        ("created", None),
        ("in_progress", None),
        ("output_item.added", 0),
        ("reasoning_summary_part.added", 0),
        ("reasoning_summary_text.delta", 0),
        ("reasoning_summary_text.done", 0),
        ("reasoning_summary_part.done", 0),
        ("output_item.done", 0),
        ("output_item.added", 1),
        ("content_part.added", 1),
        ("output_text.delta", 1),
        ("output_text.done", 1),
        ("content_part.done", 1),
        ("output_item.done", 1),
        ("output_item.added", 2),
        ("function_call_arguments.delta", 2),
        ("function_call_arguments.done", 2),
        ("output_item.done", 2),
        ("completed", None),
    ]
    usage = written[-1]["response"]["usage"]
    assert usage["input_tokens_details"]["cached_tokens"] == 6
    assert usage["output_tokens_details"]["reasoning_tokens"] == 2
    assert usage["total_tokens"] == 14


@pytest.mark.parametrize(
    ("stop", "parts", "status", "reason"),
    [
        ("stop", (Text("a"),), "completed", None),
        ("length", (Text("a"),), "incomplete", "max_output_tokens"),
        ("pause", (Text("a"),), "incomplete", "max_output_tokens"),
        ("content_filter", (), "incomplete", "content_filter"),
        ("refusal", (), "incomplete", "content_filter"),
        ("refusal", (Refused("no"),), "completed", None),
    ],
)
def test_each_end_has_its_status(stop: Any, parts: Any, status: str, reason: str | None) -> None:
    answer = responses.render_answer(ChatAnswer("a", "m", parts, stop, None), ASKED)
    judge_answer("responses", answer)
    assert answer["status"] == status
    assert answer["incomplete_details"] == ({"reason": reason} if reason else None)


def test_a_refusal_streams_as_one() -> None:
    events = [
        Started("a", "m"),
        PartStarted(0, Refused("")),
        PartGrew(0, "no"),
        PartEnded(0),
        Stopped("refusal", None),
    ]
    written = judge_stream("responses", write_all(responses, ASKED, events))
    assert [event["refusal"] for event in written if event["type"] == "response.refusal.done"] == ["no"]
    assert written[-1]["response"]["output"][0]["content"] == [{"type": "refusal", "refusal": "no"}]


@pytest.mark.parametrize("before", [[], [Started("a", "m", created=5)]])
def test_an_error_within_a_stream_fails_the_response(before: list[Any]) -> None:
    written = judge_stream("responses", write_all(responses, ASKED, [*before, Broken("rate_limit_error", "slow down")]))
    assert written[-1]["type"] == "response.failed"
    assert written[-1]["response"]["error"] == {"code": "rate_limit_exceeded", "message": "slow down"}
    assert written[-1]["response"]["status"] == "failed"
