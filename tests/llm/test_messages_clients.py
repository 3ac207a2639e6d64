"""Anthropic Messages, as clients speak it."""

from typing import Any

import pytest

from mcpgate.api.llm import messages
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
    ToolCall,
    ToolResult,
    Untranslatable,
)
from tests.llm.judges import judge_answer, judge_stream, write_all

ASKED = ChatRequest("m", ())


def _body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **fields}


def _heard(*blocks: dict[str, Any]) -> tuple[Any, ...]:
    return messages.parse_request(_body(messages=[{"role": "user", "content": list(blocks)}])).messages[0].parts


def test_results_of_tools_keep_their_images_errors_and_marks() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    mark = {"type": "ephemeral"}
    assert _heard(
        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "x"}, image]},
        {"type": "tool_result", "tool_use_id": "b", "content": "bad", "is_error": True, "cache_control": mark},
        {"type": "tool_result", "tool_use_id": "c"},
    ) == (
        ToolResult("a", (Text("x"), Image("image/png", data="AAAA"))),
        ToolResult("b", (Text("bad"),), is_error=True, cache=mark),
        ToolResult("c", ()),
    )


def test_documents_are_read_in_every_form_that_others_have() -> None:
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}
    assert _heard(
        {"type": "document", "source": pdf, "title": "a.pdf"},
        {"type": "document", "source": {"type": "url", "url": "https://a.example/b.pdf"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hello"}},
    ) == (
        File("application/pdf", data="AAAA", name="a.pdf"),
        File("application/pdf", url="https://a.example/b.pdf"),
        File("text/plain", data="aGVsbG8="),
    )


def test_thinking_and_tool_use_of_earlier_turns_are_read() -> None:
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "ok", "citations": None},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1, "é"]}, "caller": {"type": "direct"}},
    ]
    request = messages.parse_request(_body(messages=[{"role": "assistant", "content": content}]))
    assert request.messages[0].parts == (
        Thinking("hm", signature="s"),
        Thinking("", encrypted="xyz"),
        Text("ok"),
        ToolCall("t", "f", '{"a":[1,"é"]}'),
    )


def test_later_system_messages_stay_in_their_place() -> None:
    request = messages.parse_request(
        _body(system="first", messages=[{"role": "user", "content": "hi"}, {"role": "system", "content": "later"}])
    )
    assert request.system == (Text("first"),)
    assert request.messages[1] == Message("system", (Text("later"),))


@pytest.mark.parametrize(
    ("fields", "reasoning"),
    [
        ({"thinking": {"type": "disabled"}}, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, Reasoning(budget_tokens=2048)),
        ({"thinking": {"type": "adaptive", "display": "summarized"}}, Reasoning(adaptive=True, shown=True)),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}},
            Reasoning("xhigh", adaptive=True),
        ),
        ({"output_config": {"effort": "low"}}, Reasoning("low")),
    ],
)
def test_thinking_and_effort_are_read(fields: dict[str, Any], reasoning: Reasoning | None) -> None:
    assert messages.parse_request(_body(**fields)).reasoning == reasoning


def test_a_system_message_can_change_the_effort_from_there_on() -> None:
    turn = {"role": "system", "content": "now", "output_config": {"effort": "low"}}
    said = [{"role": "user", "content": "hi"}, turn]
    request = messages.parse_request(_body(messages=said, output_config={"effort": "max"}))
    assert request.reasoning == Reasoning("low")
    with pytest.raises(Untranslatable, match=r"messages\[1\]\.output_config\.format"):
        messages.parse_request(_body(messages=[said[0], turn | {"output_config": {"format": {}}}]))


def test_the_form_of_the_answer_is_read() -> None:
    schema = {"type": "object"}
    body = _body(output_config={"format": {"type": "json_schema", "schema": schema}})
    assert messages.parse_request(body).output == JsonOutput(schema, strict=True)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "f", "input_schema": {}, "input_examples": [{}]}]}, "tools[0].input_examples"),
        ({"mcp_servers": [{"type": "url", "url": "https://a.example"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"inference_geo": "eu"}, "inference_geo"),
        ({"speed": "fast"}, "speed"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type"),
        ({"output_config": {"task_budget": 1}}, "output_config.task_budget"),
        ({"made_up": {}}, "made_up"),
        (
            {"messages": [{"role": "user", "content": [{"type": "search_result", "content": []}]}]},
            "messages[0].content[0].type",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s", "name": "web_search"}]}
                ]
            },
            "messages[0].content[0].type",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "document", "source": {"type": "file", "file_id": "f"}},
                        ],
                    }
                ]
            },
            "messages[0].content[0].source.type",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "document",
                                "source": {"type": "url", "url": "u"},
                                "citations": {"enabled": True},
                            }
                        ],
                    }
                ]
            },
            "messages[0].content[0].citations",
        ),
    ],
)
def test_what_cannot_be_translated_is_refused_by_its_path(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(Untranslatable) as refusal:
        messages.parse_request(_body(**fields))
    assert refusal.value.data["field"] == path


@pytest.mark.parametrize(
    ("stop", "parts", "reason"),
    [
        ("stop", (Text("a"),), "end_turn"),
        ("length", (Text("a"),), "max_tokens"),
        ("tool_calls", (ToolCall("t", "f", '{"a":1}'),), "tool_use"),
        ("stop_sequence", (Text("a"),), "stop_sequence"),
        ("content_filter", (), "refusal"),
        ("stop", (Refused("no"),), "refusal"),
    ],
)
def test_each_end_has_its_stop_reason(stop: Any, parts: Any, reason: str) -> None:
    answer = messages.render_answer(ChatAnswer("a", "m", parts, stop, None), ASKED)
    judge_answer("messages", answer)
    assert answer["stop_reason"] == reason


def test_a_refusal_in_words_can_be_read() -> None:
    answer = messages.render_answer(ChatAnswer("a", "m", (Refused("I will not"),), "refusal", None), ASKED)
    assert answer["content"] == [{"type": "text", "text": "I will not", "citations": None}]


def test_arguments_that_are_no_object_are_refused_rather_than_changed() -> None:
    answer = ChatAnswer("a", "m", (ToolCall("t", "f", '{"a": '),), "length", None)
    with pytest.raises(Untranslatable, match=r"tool_calls\['t'\]\.arguments"):
        messages.render_answer(answer, ASKED)


def test_blocks_that_grow_by_turns_are_written_one_after_the_other() -> None:
    events = [
        Started("a", "m"),
        PartStarted(0, ToolCall("x", "f", "")),
        PartStarted(1, ToolCall("y", "g", "")),
        PartGrew(1, '{"b":'),
        PartGrew(0, '{"a":'),
        PartStarted(2, Text("")),
        PartGrew(2, "done"),
        PartEnded(2),
        PartGrew(1, "2}"),
        PartEnded(1),
        PartGrew(0, "1}"),
        PartEnded(0),
        Stopped("tool_calls", TokenUsage(5, 6)),
    ]
    written = judge_stream("messages", write_all(messages, ASKED, events))
    assert [(event["type"], event.get("index")) for event in written] == [
        ("message_start", None),
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("content_block_start", 2),
        ("content_block_delta", 2),
        ("content_block_stop", 2),
        ("message_delta", None),
        ("message_stop", None),
    ]
    deltas = [event["delta"].get("partial_json", "") for event in written if event["type"] == "content_block_delta"]
    assert deltas == ['{"a":', "1}", '{"b":', "2}", ""]


def test_the_open_block_does_not_wait_for_others() -> None:
    stream = messages.render_stream(ASKED)
    list(stream.write(Started("a", "m")))
    assert len(list(stream.write(PartStarted(0, Text(""))))) == 1
    assert list(stream.write(PartStarted(1, ToolCall("x", "f", "")))) == []
    assert list(stream.write(PartGrew(1, "{}"))) == []
    assert len(list(stream.write(PartGrew(0, "now")))) == 1
    assert len(list(stream.write(PartEnded(0)))) == 3  # its end, and what waited


def test_a_stream_tells_its_usage_at_the_beginning_and_at_the_end() -> None:
    events = [
        Started("a", "m", TokenUsage(117, 1, cache_read=100, cache_write=7)),
        PartStarted(0, Thinking("")),
        PartGrew(0, "hm"),
        PartGrew(0, signature="s"),
        PartEnded(0),
        Stopped("stop_sequence", TokenUsage(117, 9, cache_read=100, cache_write=7), "END"),
    ]
    written = judge_stream("messages", write_all(messages, ASKED, events))
    first, last = written[0]["message"]["usage"], written[-2]
    assert (first["input_tokens"], first["cache_read_input_tokens"]) == (10, 100)
    assert (last["delta"]["stop_reason"], last["delta"]["stop_sequence"]) == ("stop_sequence", "END")
    assert (last["usage"]["input_tokens"], last["usage"]["output_tokens"]) == (10, 9)
    assert written[1]["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}


def test_an_error_within_a_stream_is_an_event_of_its_own() -> None:
    written = judge_stream(
        "messages", write_all(messages, ASKED, [Started("a", "m"), Broken("overloaded_error", "busy")])
    )
    assert written[-1] == {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
