"""OpenAI Chat Completions, as providers speak it, the many look-alikes among them."""

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
from mcpgate.providers import chat
from tests.llm.judges import judge_request


def _asked(*said: Message, **fields: Any) -> dict[str, Any]:
    body = chat.render_request(ChatRequest("gpt", said or (Message("user", (Text("hi"),)),), **fields))
    judge_request("chat", body)
    return body


def test_results_come_first_and_their_images_follow_in_a_message_of_the_user() -> None:
    body = _asked(
        Message("assistant", (ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}"))),
        Message(
            "user",
            (
                ToolResult("a", (Text("seen"), Image("image/png", data="AAAA"))),
                ToolResult("b", (Text("broken"),), is_error=True),
                Text("go on"),
            ),
        ),
    )
    assert [message["role"] for message in body["messages"]] == ["assistant", "tool", "tool", "user"]
    assert body["messages"][0]["content"] is None
    assert body["messages"][1]["content"] == "seen"
    assert body["messages"][2]["content"] == "Error: broken"
    label, image, text = body["messages"][3]["content"]
    assert "tool call a" in label["text"] and text["text"] == "go on"
    assert image["image_url"]["url"] == "data:image/png;base64,AAAA"


def test_system_prompts_and_later_system_messages_keep_their_places() -> None:
    body = _asked(Message("user", (Text("hi"),)), Message("system", (Text("later"),)), system=(Text("a"), Text("b")))
    assert [(message["role"], message["content"]) for message in body["messages"]] == [
        ("system", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
        ("user", "hi"),
        ("system", "later"),
    ]


def test_reasoning_goes_back_with_all_that_it_came_with() -> None:
    body = _asked(Message("assistant", (Thinking("hm", signature="s"), Thinking("", encrypted="x"), Text("ok"))))
    assert body["messages"][0]["reasoning_content"] == "hm"
    assert body["messages"][0]["reasoning_details"] == [
        {"index": 0, "type": "reasoning.text", "text": "hm", "signature": "s"},
        {"index": 1, "type": "reasoning.encrypted", "data": "x"},
    ]
    plain = _asked(Message("assistant", (Thinking("hm"), Text("ok"))))["messages"][0]
    assert plain == {"role": "assistant", "content": "ok", "reasoning_content": "hm"}


@pytest.mark.parametrize(
    ("reasoning", "effort"),
    [
        (Reasoning("xhigh", adaptive=True), "xhigh"),
        (Reasoning(adaptive=True), None),
        (Reasoning(budget_tokens=1024), "low"),
        (Reasoning(budget_tokens=16_384), "medium"),
        (Reasoning(budget_tokens=60_000), "high"),
    ],
)
def test_budgets_of_thinking_become_effort(reasoning: Reasoning, effort: str | None) -> None:
    assert _asked(reasoning=reasoning).get("reasoning_effort") == effort


def test_a_stream_is_always_asked_for_its_usage() -> None:
    assert _asked(stream=True, include_usage=False)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in _asked()


def test_tools_and_the_form_of_the_answer_are_written() -> None:
    body = _asked(
        tools=(Tool("f", "does", {"type": "object"}, strict=True),),
        tool_choice=ToolChoice("tool", "f", parallel=False),
        output=JsonOutput({"type": "object"}, "n", True),
        max_tokens=7,
    )
    function = {"name": "f", "description": "does", "parameters": {"type": "object"}, "strict": True}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert body["parallel_tool_calls"] is False
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert body["max_completion_tokens"] == 7
    assert _asked(output=JsonOutput())["response_format"] == {"type": "json_object"}


def test_a_name_of_the_user_that_is_too_long_is_left_out() -> None:
    assert _asked(user="ada")["user"] == "ada"
    assert "user" not in _asked(user="x" * 65)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"top_k": 3}, "top_k"),
        ({"messages": (Message("user", (File("application/pdf", url="https://a.example"),)),)}, "file.url"),
        ({"messages": (Message("assistant", (Image("image/png", data="AAAA"),)),)}, "messages"),
    ],
)
def test_what_the_format_has_no_form_for_is_refused_by_name(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(Untranslatable) as refusal:
        chat.render_request(ChatRequest(**({"model": "m", "messages": ()} | fields)))
    assert refusal.value.data["field"] == path


def _answer(finish: str = "stop", **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": None, **message}}
    return {"id": "c", "object": "chat.completion", "created": 5, "model": "gpt", "choices": [choice]}


def test_an_answer_with_calls_ends_with_calls_whatever_the_server_says() -> None:
    call = {"id": "", "function": {"name": "f", "arguments": ""}}
    answer = chat.parse_answer(_answer(tool_calls=[call]))
    (part,) = answer.parts
    assert isinstance(part, ToolCall) and part.arguments == "{}" and part.id.startswith("call_")
    assert answer.stop == "tool_calls"


def test_a_refusal_is_one() -> None:
    answer = chat.parse_answer(_answer(refusal="no"))
    assert (answer.parts, answer.stop) == ((Refused("no"),), "refusal")


@pytest.mark.parametrize(
    "body",
    [{}, {"choices": []}, {"choices": [3]}, _answer("new"), _answer() | {"usage": 3}, _answer(content=[1])],
)
def test_what_is_no_answer_is_an_error(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        chat.parse_answer(body)


def test_a_call_in_the_old_style_is_refused_rather_than_dropped() -> None:
    with pytest.raises(Untranslatable, match="function_call"):
        chat.parse_answer(_answer("function_call", function_call={"name": "f", "arguments": "{}"}))


def _read(*chunks: Any, done: bool = True) -> list[Any]:
    reader = chat.parse_stream()
    read: list[Any] = []
    for chunk in chunks:
        read += reader.read("", json.dumps(chunk).encode())
    return read + list(reader.read("", b"[DONE]") if done else reader.end())


def _chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 5, "model": "gpt", "choices": [choice]}


def _call(index: Any, arguments: str, **fields: Any) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": fields.pop("name")} if "name" in fields else {})
    return {"index": index, "function": function, **fields}


USAGE = {"id": "c", "model": "gpt", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 4}}


@pytest.mark.parametrize("done", [True, False])
def test_a_stream_is_read_with_the_usage_that_comes_last(done: bool) -> None:
    chunks = (
        _chunk(role="assistant", content=""),
        _chunk(reasoning_content="hm"),
        _chunk(content="hi"),
        _chunk("stop"),
    )
    assert _read(*chunks, USAGE, done=done) == [
        Started("c", "gpt", created=5),
        PartStarted(0, Thinking("")),
        PartGrew(0, "hm"),
        PartEnded(0),
        PartStarted(1, Text("")),
        PartGrew(1, "hi"),
        PartEnded(1),
        Stopped("stop", TokenUsage(input=10, output=4)),
    ]


def test_parallel_calls_that_come_by_turns_are_kept_apart() -> None:
    read = _read(
        _chunk(tool_calls=[_call(0, "", id="a", name="f"), _call(1, "", id="b", name="g")]),
        _chunk(tool_calls=[_call(1, '{"b":')]),
        _chunk(tool_calls=[_call(0, '{"a":')]),
        _chunk(tool_calls=[_call(1, "2}"), _call(0, "1}")]),
        _chunk("tool_calls"),
    )
    grown = {0: "", 1: ""}
    for event in read:
        if isinstance(event, PartGrew):
            grown[event.index] += event.text
    assert grown == {0: '{"a":1}', 1: '{"b":2}'}
    assert [event.part for event in read if isinstance(event, PartStarted)] == [
        ToolCall("a", "f", ""),
        ToolCall("b", "g", ""),
    ]


@pytest.mark.parametrize("index", [0, None])
def test_calls_that_share_an_index_are_told_apart_by_their_ids(index: Any) -> None:
    read = _read(
        _chunk(tool_calls=[_call(index, '{"a":1}', id="a", name="f")]),
        _chunk(tool_calls=[_call(index, '{"b":2}', id="b", name="g")]),
        _chunk("stop"),
    )
    assert [event for event in read if not isinstance(event, Started)] == [
        PartStarted(0, ToolCall("a", "f", "")),
        PartGrew(0, '{"a":1}'),
        PartEnded(0),
        PartStarted(1, ToolCall("b", "g", "")),
        PartGrew(1, '{"b":2}'),
        PartEnded(1),
        Stopped("tool_calls", None),
    ]


def test_a_call_without_arguments_has_an_empty_object() -> None:
    read = _read(_chunk(tool_calls=[_call(0, "", id="a", name="f")]), _chunk("tool_calls"))
    assert read[1:4] == [PartStarted(0, ToolCall("a", "f", "")), PartGrew(0, "{}"), PartEnded(0)]


def test_what_comes_after_the_end_still_has_an_end_of_its_own() -> None:
    read = _read(_chunk("stop"), _chunk(content="late"))
    assert read[1:] == [PartStarted(0, Text("")), PartGrew(0, "late"), PartEnded(0), Stopped("stop", None)]


@pytest.mark.parametrize(
    ("error", "broken"),
    [
        ({"type": "server_error", "message": "oops"}, Broken("server_error", "oops")),
        ("out of memory", Broken("api_error", "out of memory")),
    ],
)
def test_an_error_breaks_the_stream(error: Any, broken: Broken) -> None:
    assert _read(_chunk(content="hi"), {"error": error})[-1] == broken


@pytest.mark.parametrize(
    "chunks",
    [
        [_chunk(content="hi")],
        [_chunk(tool_calls=[_call(0, "{}", id="a")]), _chunk("tool_calls")],
        [_chunk(content=3)],
        [[]],
    ],
)
def test_a_stream_that_is_cut_off_or_malformed_is_an_error(chunks: list[Any]) -> None:
    with pytest.raises(ValueError):
        _read(*chunks)
