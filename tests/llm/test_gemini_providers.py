"""Gemini's generateContent, as providers speak it."""

import json
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.api.llm import chat as chat_client
from mcpgate.api.llm import messages as messages_client
from mcpgate.api.llm import responses as responses_client
from mcpgate.llm.gemini_format import camel, path_of
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
from mcpgate.llm.metering import Meter, gemini_size_of, usage_of
from mcpgate.providers import gemini
from mcpgate.providers import messages as messages_provider
from tests.llm.bodies import CLAUDE_CODE, CODEX, GEMINI_ANSWER, GEMINI_CHUNKS, OPENCODE
from tests.llm.conversations import UNHURRIED, collect, names, objects, words
from tests.llm.judges import judge_request

HI = Message("user", (Text("hi"),))


def _asked(*said: Message, model: str = "gemini-3-pro", **fields: Any) -> dict[str, Any]:
    body = gemini.render_request(ChatRequest(model, said or (HI,), **fields))
    judge_request("gemini", body)
    return body


# --- Requests


@pytest.mark.parametrize(
    ("client", "body"), [(messages_client, CLAUDE_CODE), (responses_client, CODEX), (chat_client, OPENCODE)]
)
def test_what_agents_send_reaches_gemini(client: Any, body: Any) -> None:
    rendered = gemini.render_request(replace(client.parse_request(body), model="gemini-3-pro"))
    judge_request("gemini", rendered)
    parts = [part for content in rendered["contents"] for part in content["parts"]]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    results = [part["functionResponse"] for part in parts if "functionResponse" in part]
    assert [(one["id"], one["name"]) for one in results] == [(one["id"], one["name"]) for one in calls]
    assert {content["role"] for content in rendered["contents"]} == {"user", "model"}


def test_roles_results_and_instructions_have_their_places() -> None:
    body = _asked(
        HI,
        Message("assistant", (Text("ok"), ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", "{}"))),
        Message("user", (ToolResult("a", (Text("1"),)), ToolResult("b", (Text("no"),), is_error=True), Text("go"))),
        Message("system", (Text("later"),)),
        system=(Text("first"),),
        model="gemini-2.5-pro",
    )
    assert body["systemInstruction"] == {"parts": [{"text": "first"}]}
    assert body["contents"] == [
        {"role": "user", "parts": [{"text": "hi"}]},
        {
            "role": "model",
            "parts": [
                {"text": "ok"},
                {"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}},
                {"functionCall": {"id": "b", "name": "g", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "a", "name": "f", "response": {"output": "1"}}},
                {"functionResponse": {"id": "b", "name": "g", "response": {"error": "no"}}},
                {"text": "go"},
            ],
        },
        {"role": "user", "parts": [{"text": "later"}]},
    ]


@pytest.mark.parametrize("model", ["gemini-3-pro", "gemini-2.5-pro"])
def test_images_in_results_stand_where_the_model_reads_them(model: str) -> None:
    result = ToolResult("a", (Text("x"), Image("image/png", data="AAAA")))
    said = (Message("assistant", (ToolCall("a", "f", "{}"),)), Message("user", (result, Text("go"))))
    parts = _asked(*said, model=model)["contents"][1]["parts"]
    image = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    if model == "gemini-3-pro":
        assert parts[0]["functionResponse"]["parts"] == [image] and len(parts) == 2
    else:
        assert parts[1:] == [{"text": "From the result of tool call a:"}, image, {"text": "go"}]


def test_images_and_files_are_sent_or_named() -> None:
    parts = (
        Image("image/png", data="AAAA"),
        Image("", url="https://a.example/b.jpg?x=1"),
        File("application/pdf", url="https://a.example/c"),
    )
    assert _asked(Message("user", parts))["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://a.example/b.jpg?x=1"}},
        {"fileData": {"mimeType": "application/pdf", "fileUri": "https://a.example/c"}},
    ]


@pytest.mark.parametrize(
    ("model", "reasoning", "thinking"),
    [
        ("gemini-3-pro", Reasoning("minimal"), {"thinkingLevel": "MINIMAL"}),
        ("gemini-3-pro", Reasoning("max", shown=True), {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-3-flash", Reasoning("none"), {"thinkingBudget": 0}),
        ("gemini-3-pro", Reasoning(adaptive=True), None),
        ("gemini-2.5-flash", Reasoning("low"), {"thinkingBudget": 1024}),
        ("gemini-2.5-flash", Reasoning("xhigh"), {"thinkingBudget": 24_576}),
        ("gemini-2.5-flash", Reasoning(budget_tokens=5), {"thinkingBudget": 5}),
        ("gemini-2.5-flash", Reasoning(adaptive=True), {"thinkingBudget": -1}),
    ],
)
def test_how_much_to_think_is_said_in_the_words_of_the_models_generation(
    model: str, reasoning: Reasoning, thinking: Any
) -> None:
    assert _asked(model=model, reasoning=reasoning).get("generationConfig", {}).get("thinkingConfig") == thinking


@pytest.mark.parametrize(
    ("choice", "strict", "config"),
    [
        (None, None, None),
        (None, True, {"mode": "VALIDATED"}),
        (ToolChoice("auto"), False, {"mode": "AUTO"}),
        (ToolChoice("auto"), True, {"mode": "VALIDATED"}),
        (ToolChoice("none"), True, {"mode": "NONE"}),
        (ToolChoice("required"), True, {"mode": "ANY"}),
        (ToolChoice("tool", "f"), None, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
def test_choices_of_tools(choice: ToolChoice | None, strict: bool | None, config: Any) -> None:
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/y"}}, "$defs": {"y": {"type": "string"}}}
    body = _asked(tools=(Tool("f", "does", schema, strict), Tool("g")), tool_choice=choice)
    assert body.get("toolConfig") == (config and {"functionCallingConfig": config})
    assert body["tools"][0]["functionDeclarations"] == [
        {"name": "f", "description": "does", "parametersJsonSchema": schema},
        {"name": "g"},
    ]


def test_one_call_at_a_time_is_told_in_words() -> None:
    body = _asked(tools=(Tool("f"),), tool_choice=ToolChoice(parallel=False), system=(Text("s"),))
    assert body["systemInstruction"]["parts"] == [{"text": "s"}, {"text": "Call at most one function at a time."}]


def test_settings_have_googles_names() -> None:
    body = _asked(
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        stop=("END",),
        seed=7,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        output=JsonOutput({"type": "object"}, description="a pet"),
        user="u",
        stream=True,
    )
    assert set(body) == {"contents", "generationConfig"}
    assert body["generationConfig"] == {
        "maxOutputTokens": 5,
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 3,
        "stopSequences": ["END"],
        "seed": 7,
        "frequencyPenalty": 0.1,
        "presencePenalty": 0.2,
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object", "description": "a pet"},
    }
    assert _asked(output=JsonOutput())["generationConfig"] == {"responseMimeType": "application/json"}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"verbosity": "low"}, "verbosity"),
        ({"messages": (Message("user", (Image("", url="https://a.example/b"),)),)}, "image.url"),
        ({"messages": (Message("user", (File("", url="https://a.example/b"),)),)}, "file.url"),
        ({"messages": (Message("user", (ToolResult("t", ()),)),)}, "messages"),
        ({"messages": (Message("user", (ToolCall("t", "f", "{}"),)),)}, "messages"),
        ({"messages": (Message("assistant", (ToolResult("t", ()),)),)}, "messages"),
        ({"messages": (Message("assistant", (ToolCall("t", "f", "[1]"),)),)}, "tool_calls['t'].arguments"),
    ],
)
def test_what_the_format_has_no_form_for_is_refused_by_name(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(Untranslatable) as refusal:
        gemini.render_request(ChatRequest(**({"model": "m", "messages": ()} | fields)))
    assert refusal.value.data["field"] == path


def test_the_path_names_the_model_the_method_and_how_it_is_streamed() -> None:
    assert path_of("gemini", "gemini-3", False) == "/models/gemini-3:generateContent"
    assert path_of("gemini", "a/b?c#d", True) == "/models/a%2Fb%3Fc%23d:streamGenerateContent?alt=sse"
    assert path_of("gemini_count", "m", False) == "/models/m:countTokens"


# --- Signatures


SIGNED = [
    {"text": "Look", "thought": True},
    {"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}, "thoughtSignature": "c2ln"},
    {"functionCall": {"id": "b", "name": "f", "args": {}}},
]


def _answer(parts: list[Any], **fields: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0, **fields}
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 4, "thoughtsTokenCount": 3}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-3-pro", "responseId": "r"}


def _again(client: ModuleType, answer: ChatAnswer) -> list[dict[str, Any]]:
    """The parts that Gemini gets back after a client of another format has read an answer and asked again."""
    written = client.render_answer(answer, ChatRequest("m", ()))
    if client is responses_client:
        body: dict[str, Any] = {"input": [{"role": "user", "content": "hi"}, *written["output"]]}
    elif client is chat_client:
        body = {"messages": [{"role": "user", "content": "hi"}, written["choices"][0]["message"]]}
    else:
        said = {"role": "assistant", "content": written["content"]}
        body = {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}, said]}
    request = client.parse_request(json.loads(json.dumps({"model": "gemini-3-pro", **body})))
    contents = gemini.render_request(request)["contents"]
    found: list[dict[str, Any]] = contents[1]["parts"] if len(contents) > 1 else []
    return found


CLIENTS = [chat_client, responses_client, messages_client]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_signature_comes_back_with_its_call_through_every_format(client: ModuleType) -> None:
    assert _again(client, gemini.parse_answer(_answer(SIGNED))) == SIGNED[1:]


signatures = st.text("abcdefgh+/=.", min_size=1, max_size=8)
functions = st.builds(lambda id, name, args: {"id": id, "name": name, "args": args}, names, names, objects)


@st.composite
def said(draw: Any) -> list[dict[str, Any]]:
    """What a model says: thoughts, a text whose signature comes last, calls of which some are signed."""
    parts: list[dict[str, Any]] = [{"text": text, "thought": True} for text in draw(st.lists(words, max_size=1))]
    for text in draw(st.lists(words, max_size=1)):
        signature = draw(st.none() | signatures)
        parts.append({"text": text} | ({"thoughtSignature": signature} if signature else {}))
    for number, call in enumerate(draw(st.lists(functions, max_size=3, unique_by=lambda call: call["id"]))):
        signature = draw(signatures if number == 0 else st.none() | signatures)
        parts.append({"functionCall": call} | ({"thoughtSignature": signature} if signature else {}))
    return parts


@pytest.mark.parametrize("client", CLIENTS)
@UNHURRIED
@given(parts=said())
def test_what_gemini_said_comes_back_as_it_was_but_for_its_thoughts(client: ModuleType, parts: list[Any]) -> None:
    expected = [part for part in parts if "thought" not in part]
    assert _again(client, gemini.parse_answer(_answer(parts))) == expected


@UNHURRIED
@given(parts=said(), at=st.integers(0, 12))
def test_a_stream_says_what_the_whole_answer_says(parts: list[Any], at: int) -> None:
    chunks = []
    for part in parts:
        if "text" in part and 0 < at < len(part["text"]):
            begun = {name: value for name, value in part.items() if name != "thoughtSignature"}
            chunks.append(_answer([{**begun, "text": part["text"][:at]}], finishReason=None))
            part = {**part, "text": part["text"][at:]}
        chunks.append(_answer([part], finishReason=None))
    chunks.append(_answer([{"text": ""}]))
    assert collect(_read(*chunks)) == gemini.parse_answer(_answer(parts))


def test_a_call_without_a_signature_is_marked_as_one_for_models_that_need_it() -> None:
    turn = Message(
        "assistant", (Thinking("hm", signature="claudes"), ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}"))
    )
    parts = _asked(turn)["contents"][0]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == ["skip_thought_signature_validator", None]
    parts = _asked(turn, model="gemini-2.5-pro")["contents"][0]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [None, None]


def test_claude_never_gets_geminis_signature() -> None:
    answer = gemini.parse_answer(_answer(SIGNED))
    body = messages_provider.render_request(ChatRequest("claude", (HI, Message("assistant", answer.parts))))
    assert [block["type"] for block in body["messages"][1]["content"]] == ["tool_use", "tool_use"]


# --- Answers


def test_an_answer_is_read() -> None:
    answer = gemini.parse_answer(GEMINI_ANSWER)
    assert answer.parts == (
        Thinking("hm"),
        Text("Hi"),
        Thinking("", signature="gemini.text.dGV4dA=="),
        Thinking("", signature="gemini.0.Y2FsbA=="),
        ToolCall("f1", "read", '{"path":"a"}'),
        ToolCall("f2", "read", "{}"),
    )
    assert (answer.id, answer.model, answer.stop) == ("r1", "gemini-3-pro", "tool_calls")
    assert answer.usage == TokenUsage(input=9, output=4, cache_read=2, reasoning=1)


@pytest.mark.parametrize(
    ("reason", "stop"),
    [("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("SPII", "content_filter")],
)
def test_stop_reasons(reason: str, stop: str) -> None:
    assert gemini.parse_answer(_answer([{"text": "x"}], finishReason=reason)).stop == stop


def test_a_blocked_prompt_is_a_filter_without_an_answer() -> None:
    answer = gemini.parse_answer(
        {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 5}}
    )
    assert (answer.parts, answer.stop, answer.usage) == ((), "content_filter", TokenUsage(input=5))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"candidates": []},
        {"error": {"code": 500, "message": "no"}},
        _answer([{"text": "x"}], finishReason="MALFORMED_FUNCTION_CALL"),
        _answer([{"text": "x"}], finishReason="NEW_REASON"),
        _answer([{"text": 3}]),
        _answer([{"functionCall": {"args": {}}}]),
    ],
)
def test_what_is_no_answer_is_an_error(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        gemini.parse_answer(body)


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}, "candidates[0].content.parts[0].inlineData"),
        ({"executableCode": {"code": "1"}}, "candidates[0].content.parts[0].executableCode"),
        ({"functionCall": {"name": "f", "partialArgs": []}}, "candidates[0].content.parts[0].functionCall.partialArgs"),
    ],
)
def test_what_no_client_can_read_is_refused_by_name(part: dict[str, Any], path: str) -> None:
    with pytest.raises(Untranslatable) as refusal:
        gemini.parse_answer(_answer([part]))
    assert refusal.value.data["field"] == path


# --- Streams


def _read(*chunks: dict[str, Any]) -> list[Any]:
    reader = gemini.parse_stream()
    read = [one for chunk in chunks for one in reader.read("", json.dumps(chunk).encode())]
    return read + list(reader.end())


def test_a_stream_is_read() -> None:
    usage = TokenUsage(input=9, output=4, cache_read=2, reasoning=1)
    assert _read(*GEMINI_CHUNKS) == [
        Started("r1", "gemini-3-pro"),
        PartStarted(0, Thinking("")),
        PartGrew(0, "h"),
        PartGrew(0, "m"),
        PartEnded(0),
        PartStarted(1, Text("")),
        PartGrew(1, "H"),
        PartGrew(1, "i"),
        PartEnded(1),
        PartStarted(2, Thinking("")),
        PartGrew(2, "", "gemini.text.dGV4dA=="),
        PartEnded(2),
        PartStarted(3, Thinking("")),
        PartGrew(3, "", "gemini.0.Y2FsbA=="),
        PartEnded(3),
        PartStarted(4, ToolCall("f1", "read", "")),
        PartGrew(4, '{"path":"a"}'),
        PartEnded(4),
        PartStarted(5, ToolCall("f2", "read", "")),
        PartGrew(5, "{}"),
        PartEnded(5),
        Stopped("tool_calls", usage),
    ]


def test_an_error_breaks_the_stream() -> None:
    error = {"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}
    assert _read(GEMINI_CHUNKS[0], error)[-1] == Broken("UNAVAILABLE", "busy")


@pytest.mark.parametrize("chunks", [[], GEMINI_CHUNKS[:3], [_answer([{"text": "x"}], index=1)]])
def test_a_stream_that_is_cut_off_is_an_error(chunks: list[dict[str, Any]]) -> None:
    with pytest.raises((ValueError, Untranslatable)):
        _read(*chunks)


# --- Metering


def test_thoughts_are_output_and_what_tools_at_google_read_is_input() -> None:
    counted = {"promptTokenCount": 10, "toolUsePromptTokenCount": 5, "cachedContentTokenCount": 4}
    usage = usage_of("gemini", {**counted, "candidatesTokenCount": 3, "thoughtsTokenCount": 2})
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (15, 5, 4)
    assert usage_of("gemini", {"candidatesTokenCount": 3}) is None
    assert usage_of("gemini", {"promptTokenCount": "10"}) is None


def test_the_usage_of_a_stream_is_that_of_its_last_chunk() -> None:
    meter = Meter("gemini", 100)
    for number, chunk in enumerate(GEMINI_CHUNKS, 1):
        meter.read(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        assert meter.is_exact == meter.is_over == (number == len(GEMINI_CHUNKS))
    assert (meter.usage.input_tokens, meter.usage.output_tokens) == (9, 4)


@pytest.mark.parametrize("spelt", [lambda body: body, lambda body: _snake(body)])
def test_only_data_that_is_no_text_is_media(spelt: Any) -> None:
    def part(media_type: str) -> dict[str, Any]:
        return {"inlineData": {"mimeType": media_type, "data": "A" * 300_000}}

    response = {"functionResponse": {"name": "f", "response": {}, "parts": [part("image/png")]}}
    parts = [part("image/png"), part("text/plain"), {"text": "A" * 300_000}, response, {"fileData": {"fileUri": "x"}}]
    body = spelt({"contents": [{"parts": parts}]})
    size = gemini_size_of(json.dumps(body).encode(), body)
    assert size.media_tokens == 3000 + 3000 + 2000 and 600_000 < size.text < 601_000


def _snake(value: Any) -> Any:
    spelt = {"inlineData": "inline_data", "mimeType": "mime_type", "fileData": "file_data"}
    spelt |= {"functionResponse": "function_response", "fileUri": "file_uri"}
    if isinstance(value, dict):
        return {spelt.get(name, name): _snake(one) for name, one in value.items()}
    return [_snake(one) for one in value] if isinstance(value, list) else value


def test_fields_may_be_spelt_in_both_ways_but_not_those_of_a_clients_own() -> None:
    body = {"contents": [{"parts": [{"function_call": {"name": "f", "args": {"my_arg": {"a_b": 1}}}}]}]}
    assert camel(body)["contents"][0]["parts"] == [{"functionCall": {"name": "f", "args": {"my_arg": {"a_b": 1}}}}]
