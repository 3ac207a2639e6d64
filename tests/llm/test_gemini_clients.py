"""Gemini's generateContent, as clients speak it."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given

from mcpgate.api.llm import gemini
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
    Reasoning,
    Refused,
    Started,
    Stopped,
    StreamEvent,
    Text,
    Thinking,
    TokenUsage,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Untranslatable,
)
from mcpgate.providers import chat as chat_provider
from mcpgate.providers import messages as messages_provider
from tests.llm.bodies import CHAT_CHUNKS, GEMINI_CLI, MESSAGES_EVENTS
from tests.llm.conversations import UNHURRIED, answers, streams
from tests.llm.judges import judge_answer, judge_request, judge_stream, parse_events, write_all

ASKED = ChatRequest("m", ())
HI = {"role": "user", "parts": [{"text": "hi"}]}


def _parse(*contents: Any, **fields: Any) -> ChatRequest:
    return gemini.parse_request({"contents": list(contents or (HI,)), **fields})


# --- Requests


@pytest.mark.parametrize(("format", "provider"), [("chat", chat_provider), ("messages", messages_provider)])
def test_gemini_cli_reaches_models_of_other_formats(format: str, provider: Any) -> None:
    request = gemini.parse_request(GEMINI_CLI)
    judge_request(format, provider.render_request(request))
    assert request.system == (Text("You are Gemini CLI."),)
    assert request.messages == (
        Message("user", (Text("<session_context/>"), Text("go"))),
        Message(
            "assistant",
            (
                Text("I will look."),
                ToolCall("read_file_17_0", "read_file", '{"path":"a"}'),
                ToolCall("call_2", "read_file", '{"path":"b.png"}'),
            ),
        ),
        Message(
            "user",
            (
                ToolResult("read_file_17_0", (Text("no such file"),), is_error=True),
                ToolResult("call_2", (Text("an image"), Image("image/png", data="AAAA"))),
                Text("go on"),
            ),
        ),
    )
    assert (request.max_tokens, request.reasoning) == (65536, Reasoning("high", shown=True))
    assert (request.temperature, request.top_p, request.top_k) == (None, None, None), "what Gemini takes by itself"


def test_fields_may_be_in_snake_case_as_in_googles_examples() -> None:
    request = _parse(
        {"parts": [{"inline_data": {"mime_type": "image/png", "data": "AAAA"}}]},
        system_instruction={"parts": [{"text": "s"}]},
        generation_config={"max_output_tokens": 5, "stop_sequences": ["END"], "top_k": 3.0},
        tools=[{"function_declarations": [{"name": "f", "parameters": {"type": "OBJECT"}}]}],
    )
    assert request.messages == (Message("user", (Image("image/png", data="AAAA"),)),)
    assert (request.system, request.max_tokens, request.stop, request.top_k) == ((Text("s"),), 5, ("END",), 3)
    assert request.tools == (Tool("f", schema={"type": "object"}),)


def test_results_without_ids_are_those_of_the_oldest_calls() -> None:
    calls = [{"functionCall": {"name": name, "args": {}}} for name in ("f", "g", "f")]
    results = [{"functionResponse": {"name": name, "response": {"output": name}}} for name in ("f", "f", "g")]
    _, said, heard = _parse(HI, {"role": "model", "parts": calls}, {"role": "function", "parts": results}).messages
    assert [call.id for call in said.parts if isinstance(call, ToolCall)] == ["call_1", "call_2", "call_3"]
    assert [one.call_id for one in heard.parts if isinstance(one, ToolResult)] == ["call_1", "call_3", "call_2"]


def test_a_stream_that_is_sent_back_in_chunks_is_one_message() -> None:
    call = {"functionCall": {"id": "a", "name": "f", "args": {}}}
    chunks = [{"role": "model", "parts": [part]} for part in ({"text": "Hel"}, {"text": "lo"}, call, {"text": ""})]
    result = {"parts": [{"functionResponse": {"id": "a", "name": "f", "response": {}}}]}
    assert _parse(HI, *chunks, result, HI).messages[1:] == (
        Message("assistant", (Text("Hello"), ToolCall("a", "f", "{}"))),
        Message("user", (ToolResult("a", ()), Text("hi"))),
    )


@pytest.mark.parametrize(
    ("response", "text", "failed"),
    [
        ({"output": "x"}, "x", False),
        ({"result": {"a": 1}}, '{"a":1}', False),
        ({"error": "bad"}, "bad", True),
        ({"error": "bad", "output": "x"}, '{"error":"bad","output":"x"}', False),
        ({"temperature": 3}, '{"temperature":3}', False),
    ],
)
def test_responses_of_functions_are_read(response: Any, text: str, failed: bool) -> None:
    call = {"role": "model", "parts": [{"functionCall": {"id": "a", "name": "f"}}]}
    result = {"parts": [{"functionResponse": {"id": "a", "name": "f", "response": response}}]}
    assert _parse(call, result).messages[1].parts == (ToolResult("a", (Text(text),), is_error=failed),)


def test_files_are_read_and_data_is_written_in_the_usual_base64() -> None:
    raw = bytes(range(250, 256)) * 3 + b"x"
    url_safe = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    parts = [
        {"inlineData": {"mimeType": "image/png", "data": url_safe}},
        {"inlineData": {"mimeType": "application/pdf", "data": "AAAA", "displayName": "a.pdf"}},
        {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://a.example/b"}},
        {"fileData": {"mimeType": "application/pdf", "fileUri": "https://a.example/c.pdf"}},
    ]
    assert _parse({"parts": parts}).messages[0].parts == (
        Image("image/png", data=base64.b64encode(raw).decode()),
        File("application/pdf", data="AAAA", name="a.pdf"),
        Image("image/jpeg", url="https://a.example/b"),
        File("application/pdf", url="https://a.example/c.pdf"),
    )


def test_a_schema_of_googles_becomes_a_json_schema() -> None:
    schema = {
        "type": "OBJECT",
        "properties": {
            "anyOf": {"type": "STRING", "nullable": True, "format": "date"},
            "list": {"type": "ARRAY", "minItems": "1", "items": {"type": "STRING", "enum": ["a"], "nullable": True}},
            "one": {"anyOf": [{"type": "INTEGER", "minimum": 1}, {"type": "BOOLEAN"}]},
        },
        "required": ["list"],
        "propertyOrdering": ["list", "one"],
    }
    request = _parse(tools=[{"functionDeclarations": [{"name": "f", "parameters": schema}]}])
    assert request.tools[0].schema == {
        "type": "object",
        "properties": {
            "anyOf": {"type": ["string", "null"], "format": "date"},
            "list": {
                "type": "array",
                "minItems": 1,
                "items": {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]},
            },
            "one": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "boolean"}]},
        },
        "required": ["list"],
    }
    config = {"responseMimeType": "application/json", "responseSchema": {"type": "STRING"}}
    assert _parse(generationConfig=config).output == JsonOutput({"type": "string"})
    assert _parse(generationConfig={"responseMimeType": "application/json"}).output == JsonOutput()


def test_a_schema_that_is_nested_too_deeply_is_refused() -> None:
    schema: dict[str, Any] = {"type": "STRING"}
    for _ in range(300):
        schema = {"type": "ARRAY", "items": schema}
    with pytest.raises(InvalidRequest, match="64 levels"):
        _parse(tools=[{"functionDeclarations": [{"name": "f", "parameters": schema}]}])


@pytest.mark.parametrize(
    ("config", "choice", "tools"),
    [
        ({}, ToolChoice("auto"), "fgh"),
        ({"mode": "VALIDATED"}, ToolChoice("auto"), "fgh"),
        ({"mode": "none"}, ToolChoice("none"), "fgh"),
        ({"mode": "ANY"}, ToolChoice("required"), "fgh"),
        ({"mode": "ANY", "allowedFunctionNames": ["g"]}, ToolChoice("tool", "g"), "g"),
        ({"mode": "ANY", "allowedFunctionNames": ["f", "h"]}, ToolChoice("required"), "fh"),
    ],
)
def test_choices_of_tools(config: Any, choice: ToolChoice, tools: str) -> None:
    declared = [{"functionDeclarations": [{"name": name} for name in "fgh"]}]
    request = _parse(tools=declared, toolConfig={"functionCallingConfig": config})
    assert request.tool_choice == choice and "".join(tool.name for tool in request.tools) == tools


@pytest.mark.parametrize(
    ("thinking", "reasoning"),
    [
        ({"includeThoughts": True}, Reasoning(shown=True)),
        ({"includeThoughts": False}, None),
        ({"thinkingBudget": 0}, Reasoning("none")),
        ({"thinkingBudget": -1, "includeThoughts": True}, Reasoning(adaptive=True, shown=True)),
        ({"thinkingBudget": 2048}, Reasoning(budget_tokens=2048)),
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, None),
        ({"thinkingLevel": "low"}, Reasoning("low")),
    ],
)
def test_how_much_to_think_is_read(thinking: Any, reasoning: Reasoning | None) -> None:
    assert _parse(generationConfig={"thinkingConfig": thinking}).reasoning == reasoning


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"tools": [{"googleSearch": {}}]}, "tools[0].googleSearch"),
        ({"tools": [{"functionDeclarations": [], "codeExecution": {}}]}, "tools[0].codeExecution"),
        ({"cachedContent": "cachedContents/1"}, "cachedContent"),
        ({"serviceTier": "priority"}, "serviceTier"),
        ({"safetySettings": [{"threshold": "BLOCK_ONLY_HIGH"}]}, "safetySettings[0].threshold"),
        ({"generationConfig": {"candidateCount": 2}}, "generationConfig.candidateCount"),
        ({"generationConfig": {"responseLogprobs": True}}, "generationConfig.responseLogprobs"),
        ({"generationConfig": {"responseModalities": ["IMAGE"]}}, "generationConfig.responseModalities"),
        ({"generationConfig": {"speechConfig": {}}}, "generationConfig.speechConfig"),
        ({"generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW"}}, "generationConfig.mediaResolution"),
        ({"generationConfig": {"responseMimeType": "text/x.enum"}}, "generationConfig.responseMimeType"),
        (
            {"generationConfig": {"thinkingConfig": {"thinkingLevel": "x"}}},
            "generationConfig.thinkingConfig.thinkingLevel",
        ),
        ({"toolConfig": {"retrievalConfig": {}}}, "toolConfig.retrievalConfig"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "X"}}}, "toolConfig.functionCallingConfig.mode"),
        ({"new_field": 1}, "newField"),
        ({"contents": [{"role": "x", "parts": []}]}, "contents[0].role"),
        ({"contents": [{"parts": [{"text": "x", "videoMetadata": {}}]}]}, "contents[0].parts[0].videoMetadata"),
        ({"contents": [{"parts": [{"executableCode": {}}]}]}, "contents[0].parts[0].executableCode"),
        (
            {"contents": [{"parts": [{"inlineData": {"mimeType": "audio/mp3", "data": "A"}}]}]},
            "contents[0].parts[0].inlineData.mimeType",
        ),
        (
            {"contents": [{"parts": [{"fileData": {"mimeType": "image/png", "fileUri": "gs://a/b"}}]}]},
            "contents[0].parts[0].fileData.fileUri",
        ),
        (
            {"tools": [{"functionDeclarations": [{"name": "f", "parameters": {"new": 1}}]}]},
            "tools[0].functionDeclarations[0].parameters.new",
        ),
    ],
)
def test_what_others_have_no_form_for_is_refused_by_name(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(Untranslatable) as refusal:
        gemini.parse_request({"contents": [], **fields})
    assert refusal.value.data["field"] == path


def test_what_asks_for_nothing_is_accepted() -> None:
    config = {"candidateCount": 1, "responseLogprobs": False, "responseModalities": ["TEXT"], "topK": 64}
    fields = {"safetySettings": [{"threshold": "BLOCK_NONE"}], "labels": {"a": "b"}, "store": False}
    assert _parse(generationConfig=config, **fields) == _parse()


# --- Thoughts of other models


@UNHURRIED
@given(answer=answers())
def test_what_a_client_sends_back_is_what_it_got(answer: ChatAnswer) -> None:
    written = gemini.render_answer(answer, ASKED)
    judge_answer("gemini", written)
    content = json.loads(json.dumps(written["candidates"][0]["content"]))
    assert _parse(HI, content).messages[1:] == _said(answer)


@UNHURRIED
@given(stream=streams())
def test_a_stream_that_is_sent_back_without_its_thoughts_keeps_them(
    stream: tuple[ChatAnswer, list[StreamEvent]],
) -> None:
    """As Gemini CLI does."""
    answer, events = stream
    chunks = judge_stream("gemini", write_all(gemini, ASKED, events))
    parts = [part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"] if "thought" not in part]
    assert _parse(HI, {"role": "model", "parts": parts}).messages[1:] == _said(answer)
    assert chunks[-1]["usageMetadata"]["promptTokenCount"] == (answer.usage.input if answer.usage else 0)
    assert [bool(chunk["candidates"][0].get("finishReason")) for chunk in chunks] == [False] * (len(chunks) - 1) + [
        True
    ]


def _said(answer: ChatAnswer) -> tuple[Message, ...]:
    return (Message("assistant", answer.parts),)


@pytest.mark.parametrize(
    "signature", ["c2lnbmF0dXJl", "skip_thought_signature_validator", "!", "bWNwZ2F0ZS50aG91Z2h0cy5b"]
)
def test_signatures_of_gemini_itself_are_no_use_to_other_models(signature: str) -> None:
    parts = [{"text": "hm", "thought": True}, {"text": "Hi", "thoughtSignature": signature}]
    (message,) = _parse({"role": "model", "parts": parts}).messages
    assert message.parts == (Thinking("hm"), Text("Hi"))


def test_thoughts_that_nothing_follows_are_kept_by_an_empty_text() -> None:
    answer = ChatAnswer("a", "m", (Thinking("hm", signature="s"),), "length", None)
    first, last = gemini.render_answer(answer, ASKED)["candidates"][0]["content"]["parts"]
    assert first == {"text": "hm", "thought": True} and last["text"] == ""
    assert _parse({"role": "model", "parts": [last]}).messages == (Message("assistant", answer.parts),)


# --- Answers


@pytest.mark.parametrize(
    ("parts", "stop", "reason"),
    [
        ((Text("x"),), "stop", "STOP"),
        ((ToolCall("a", "f", "{}"),), "tool_calls", "STOP"),
        ((Text("x"),), "length", "MAX_TOKENS"),
        ((Text("x"),), "pause", "MAX_TOKENS"),
        ((), "refusal", "SAFETY"),
        ((Refused("no"),), "refusal", "STOP"),
        ((), "content_filter", "SAFETY"),
    ],
)
def test_stop_reasons(parts: Any, stop: Any, reason: str) -> None:
    written = gemini.render_answer(ChatAnswer("a", "m", parts, stop, None), ASKED)
    judge_answer("gemini", written)
    assert written["candidates"][0]["finishReason"] == reason and written["candidates"][0]["content"]["parts"]


def test_usage_is_counted_as_google_does() -> None:
    usage = TokenUsage(input=10, output=7, cache_read=4, reasoning=2)
    assert gemini.render_answer(ChatAnswer("a", "m", (), "stop", usage), ASKED)["usageMetadata"] == {
        "promptTokenCount": 10,
        "candidatesTokenCount": 5,
        "totalTokenCount": 17,
        "cachedContentTokenCount": 4,
        "thoughtsTokenCount": 2,
    }


def test_arguments_that_are_no_object_are_refused() -> None:
    with pytest.raises(Untranslatable, match="arguments"):
        gemini.render_answer(ChatAnswer("a", "m", (ToolCall("t", "f", "[1]"),), "tool_calls", None), ASKED)


# --- Streams


@pytest.mark.parametrize(("provider", "events"), [(chat_provider, CHAT_CHUNKS), (messages_provider, MESSAGES_EVENTS)])
def test_the_stream_of_each_provider_can_be_read(provider: Any, events: Any) -> None:
    reader, writer = provider.parse_stream(), gemini.render_stream(ASKED)
    read = [one for event in events for one in reader.read("", json.dumps(event).encode())] + list(reader.end())
    written = judge_stream("gemini", [piece for event in read for piece in writer.write(event)])
    assert "Hi" in json.dumps(written) and written[-1]["candidates"][0]["finishReason"] == "STOP"


def test_calls_that_grow_by_turns_come_whole_and_in_order() -> None:
    events: list[StreamEvent] = [
        Started("a", "m"),
        PartStarted(0, ToolCall("x", "f", "")),
        PartStarted(1, ToolCall("y", "g", "")),
        PartGrew(1, '{"b"'),
        PartGrew(0, '{"a"'),
        PartGrew(1, ":2}"),
        PartEnded(1),
        PartGrew(0, ":1}"),
        PartEnded(0),
        Stopped("tool_calls", None),
    ]
    written = judge_stream("gemini", write_all(gemini, ASKED, events))
    calls = [chunk["candidates"][0]["content"]["parts"][0].get("functionCall") for chunk in written]
    assert calls == [{"id": "x", "name": "f", "args": {"a": 1}}, {"id": "y", "name": "g", "args": {"b": 2}}, None]


@pytest.mark.parametrize(
    ("type", "status", "word"),
    [("overloaded_error", 503, "UNAVAILABLE"), ("rate_limit_error", 429, "RESOURCE_EXHAUSTED"), ("x", 500, "INTERNAL")],
)
def test_an_error_within_a_stream_has_googles_shape(type: str, status: int, word: str) -> None:
    written = write_all(gemini, ASKED, [Started("a", "m"), Broken(type, "busy")])
    error = json.loads(parse_events(written)[-1][1])["error"]
    assert (error["code"], error["status"], error["message"]) == (status, word, "busy")
