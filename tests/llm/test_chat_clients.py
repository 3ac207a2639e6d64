"""OpenAI Chat Completions, as clients speak it."""

import json
from typing import Any

import pytest

from mcpgate.api.llm import chat
from mcpgate.errors import InvalidRequest
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
from tests.llm.judges import judge_answer, judge_stream, parse_events, write_all

ASKED = ChatRequest("m", ())


def _body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}


def _say(*messages: dict[str, Any]) -> ChatRequest:
    return chat.parse_request({"model": "m", "messages": list(messages)})


def test_the_leading_system_messages_are_the_system_prompt_and_later_ones_stay_in_their_place() -> None:
    request = _say(
        {"role": "system", "content": "be kind"},
        {"role": "developer", "content": [{"type": "text", "text": "be brief"}]},
        {"role": "user", "content": "hi"},
        {"role": "system", "content": "now be rude"},
    )
    assert request.system == (Text("be kind"), Text("be brief"))
    assert request.messages == (Message("user", (Text("hi"),)), Message("system", (Text("now be rude"),)))


def test_results_of_parallel_tools_and_the_next_words_are_one_message_of_the_user() -> None:
    request = _say(
        {"role": "user", "content": "go"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
            ],
        },
        {"role": "tool", "tool_call_id": "b", "content": "B"},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "A"}]},
        {"role": "user", "content": "and now?"},
    )
    assert request.messages[1].parts == (ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", "{}"))
    assert request.messages[2:] == (
        Message("user", (ToolResult("b", (Text("B"),)), ToolResult("a", (Text("A"),)), Text("and now?"))),
    )


def test_images_files_and_cache_marks_are_read() -> None:
    mark = {"type": "ephemeral", "ttl": "1h"}
    request = _say(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look", "cache_control": mark},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://a.example/b.jpg"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"}},
            ],
        }
    )
    assert request.messages[0].parts == (
        Text("look", mark),
        Image("image/png", data="AAAA", detail="low"),
        Image("", url="https://a.example/b.jpg"),
        File("application/pdf", data="BBBB", name="a.pdf"),
    )


def test_a_cache_mark_of_a_whole_message_or_call_stands_at_its_last_part() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}, **mark}
    request = _say(  # as the AI SDK writes it, for opencode
        {"role": "system", "content": "be brief", **mark},
        {"role": "user", "content": [{"type": "text", "text": "run"}, {"type": "text", "text": "it"}], **mark},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "done", **mark},
    )
    cache = mark["cache_control"]
    assert request.system == (Text("be brief", cache),)
    assert [message.parts for message in request.messages] == [
        (Text("run"), Text("it", cache)),
        (ToolCall("a", "f", "{}", cache),),
        (ToolResult("a", (Text("done"),), cache=cache),),
    ]


def test_tools_and_the_form_of_the_answer_are_read() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    request = chat.parse_request(
        _body(
            tools=[{"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}],
            tool_choice={"type": "function", "function": {"name": "f"}},
            parallel_tool_calls=False,
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}},
        )
    )
    assert request.tools == (Tool("f", schema=schema, strict=True),)
    assert request.tool_choice == ToolChoice("tool", "f", parallel=False)
    assert request.output == JsonOutput(schema, "n", True)


def test_reasoning_that_is_sent_back_keeps_its_signature() -> None:
    details = [
        {"type": "reasoning.text", "index": 0, "text": "hm", "signature": "s1"},
        {"type": "reasoning.encrypted", "index": 1, "data": "xyz"},
    ]
    said = {"role": "assistant", "content": "ok", "reasoning_content": "hm", "reasoning_details": details}
    assert _say(said).messages[0].parts == (Thinking("hm", signature="s1"), Thinking("", encrypted="xyz"), Text("ok"))
    only = {"role": "assistant", "content": "ok", "reasoning_content": "hm"}
    assert _say(only).messages[0].parts == (Thinking("hm"), Text("ok"))


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"audio": {"voice": "alloy", "format": "mp3"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"moderation": {"model": "x"}}, "moderation"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"store": True}, "store"),
        ({"made_up": 1}, "made_up"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"stream_options": {"made_up": 1}}, "stream_options.made_up"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice.type"),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "c"}}]},
            "tools[1].type",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"messages": [{"role": "user", "content": "x", "name": "ada"}]}, "messages[0].name"),
        ({"messages": [{"role": "function", "content": "x", "name": "f"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]},
            "messages[0].content[0].file.file_id",
        ),
        (
            {"messages": [{"role": "assistant", "audio": {"id": "a"}}]},
            "messages[0].audio",
        ),
    ],
)
def test_what_cannot_be_translated_is_refused_by_its_path(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(Untranslatable) as refusal:
        chat.parse_request(_body(**fields))
    assert refusal.value.data["field"] == path
    assert refusal.value.message.startswith(path + ": ")


def test_fields_that_change_nothing_of_the_answer_are_accepted() -> None:
    plain = chat.parse_request(_body())
    harmless = {
        "n": 1,
        "logprobs": False,
        "logit_bias": None,
        "audio": None,
        "modalities": ["text"],
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "auto",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "verbosity": "medium",
        "prediction": {"type": "content", "content": "x"},
    }
    assert chat.parse_request(_body(**harmless)) == plain


def test_the_newer_of_two_token_limits_counts() -> None:
    assert chat.parse_request(_body(max_tokens=5)).max_tokens == 5
    assert chat.parse_request(_body(max_tokens=5, max_completion_tokens=7)).max_tokens == 7


@pytest.mark.parametrize(
    ("stop", "parts", "reason"),
    [
        ("stop", (Text("a"),), "stop"),
        ("stop_sequence", (Text("a"),), "stop"),
        ("length", (Text("a"),), "length"),
        ("pause", (Text("a"),), "length"),
        ("tool_calls", (ToolCall("a", "f", "{}"),), "tool_calls"),
        ("content_filter", (), "content_filter"),
        ("refusal", (), "content_filter"),
        ("refusal", (Refused("no"),), "stop"),
    ],
)
def test_each_end_has_its_finish_reason(stop: Any, parts: Any, reason: str) -> None:
    answer = chat.render_answer(ChatAnswer("a", "m", parts, stop, None), ASKED)
    judge_answer("chat", answer)
    assert answer["choices"][0]["finish_reason"] == reason
    assert answer["choices"][0]["message"]["refusal"] == (
        parts[0].text if parts and parts[0] == Refused("no") else None
    )


def _text_events(usage: TokenUsage | None = None) -> list[Any]:
    return [
        Started("a", "m", created=7),
        PartStarted(0, Text("")),
        PartGrew(0, "hel"),
        PartGrew(0, "lo"),
        PartEnded(0),
        Stopped("stop", usage),
    ]


def test_a_stream_begins_with_the_role_and_ends_with_its_reason_usage_and_done() -> None:
    written = write_all(chat, ChatRequest("m", (), include_usage=True), _text_events(TokenUsage(3, 4, cache_read=2)))
    chunks = judge_stream("chat", written)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks[1:3]] == ["hel", "lo"]
    assert chunks[3]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert chunks[4]["choices"] == [] and chunks[4]["usage"]["prompt_tokens_details"]["cached_tokens"] == 2
    assert all(chunk["usage"] is None for chunk in chunks[:4])
    assert {chunk["id"] for chunk in chunks} == {"a"} and {chunk["created"] for chunk in chunks} == {7}
    assert written[-1] == b"data: [DONE]\n\n"


def test_a_stream_tells_its_usage_only_if_asked() -> None:
    chunks = judge_stream(
        "chat", write_all(chat, ChatRequest("m", (), include_usage=False), _text_events(TokenUsage(3, 4)))
    )
    assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)


def test_tool_calls_that_grow_by_turns_keep_their_own_arguments() -> None:
    events = [
        Started("a", "m"),
        PartStarted(0, Text("")),
        PartGrew(0, "so"),
        PartEnded(0),
        PartStarted(1, ToolCall("x", "f", "")),
        PartStarted(2, ToolCall("y", "g", "")),
        PartGrew(2, '{"b":'),
        PartGrew(1, '{"a":'),
        PartGrew(2, "2}"),
        PartGrew(1, "1}"),
        PartEnded(1),
        PartEnded(2),
        Stopped("tool_calls", None),
    ]
    calls: dict[int, dict[str, str]] = {}
    for chunk in judge_stream("chat", write_all(chat, ASKED, events)):
        for choice in chunk["choices"]:
            for call in choice["delta"].get("tool_calls", []):
                known = calls.setdefault(call["index"], {"id": call.get("id", ""), "arguments": ""})
                known["arguments"] += call["function"]["arguments"]
    assert calls == {0: {"id": "x", "arguments": '{"a":1}'}, 1: {"id": "y", "arguments": '{"b":2}'}}


def test_an_error_within_a_stream_is_an_event_that_the_sdk_raises() -> None:
    written = write_all(chat, ASKED, [Started("a", "m"), Broken("overloaded_error", "come back later")])
    last = json.loads(parse_events(written)[-1][1])
    assert last["error"]["message"] == "come back later" and last["error"]["type"] == "overloaded_error"
    assert b"[DONE]" not in b"".join(written)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        chat.parse_request({"model": "m", "messages": [{"role": "tool", "content": "x"}]})
    assert refusal.value.message == "messages[0].tool_call_id: is required"
