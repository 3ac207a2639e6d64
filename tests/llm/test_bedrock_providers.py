"""Amazon Bedrock's Converse, as providers speak it."""

import base64
import json
import struct
from dataclasses import replace
from typing import Any

import pytest
from botocore.eventstream import ParserError
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.llm.events import parts_of
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
from mcpgate.llm.metering import Meter, usage_and_tier, usage_of
from mcpgate.llm.prices import _listed
from mcpgate.providers import bedrock
from mcpgate.providers.aws import Frames, server_sent
from tests import bedrock_wire
from tests.llm.conversations import UNHURRIED, answers, collect, requests, streams

CLAUDE, NOVA, LLAMA = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "amazon.nova-2-lite-v1:0", "meta.llama3-70b-v1:0"
HI = Message("user", (Text("hi"),))


def _asked(*said: Message, model: str = CLAUDE, **fields: Any) -> dict[str, Any]:
    body = bedrock.render_request(ChatRequest(model, said or (HI,), **fields))
    path = f"/model/{model.replace(':', '%3A').replace('/', '%2F')}/converse"
    assert not bedrock_wire.invalid(path, body)
    return body


def test_a_request_is_what_the_service_documents() -> None:
    body = _asked(
        HI,
        Message("assistant", (Text("ok"), ToolCall("t1", "f", '{"a":1}'), ToolCall("t2", "f", "{}"))),
        Message("user", (ToolResult("t1", (Text("x"),)), ToolResult("t2", (), is_error=True), Text("go on"))),
        system=(Text("be kind"),),
        tools=(Tool("f", "does it", {"properties": {}}, strict=True),),
        tool_choice=ToolChoice("required"),
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        stop=("END",),
    )
    assert body == {
        "system": [{"text": "be kind"}],
        "messages": [
            {"role": "user", "content": [{"text": "hi"}]},
            {
                "role": "assistant",
                "content": [
                    {"text": "ok"},
                    {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"a": 1}}},
                    {"toolUse": {"toolUseId": "t2", "name": "f", "input": {}}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"toolResult": {"toolUseId": "t1", "content": [{"text": "x"}]}},
                    {"toolResult": {"toolUseId": "t2", "content": [{"text": "(empty)"}], "status": "error"}},
                    {"text": "go on"},
                ],
            },
        ],
        "toolConfig": {
            "tools": [
                {
                    "toolSpec": {
                        "name": "f",
                        "description": "does it",
                        "inputSchema": {"json": {"type": "object", "properties": {}}},
                        "strict": True,
                    }
                }
            ],
            "toolChoice": {"any": {}},
        },
        "inferenceConfig": {"maxTokens": 5, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]},
    }


def test_roles_take_turns_and_results_come_first() -> None:
    body = _asked(
        HI,
        Message("assistant", (ToolCall("t", "f", "{}"),)),
        Message("system", (Text("be brief"),)),
        Message("user", (ToolResult("t", (Text("x"),), cache={"type": "ephemeral"}),)),
        Message("user", (Text("and?"), Text(" \n"))),
        tools=(Tool("f"),),
    )
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][2]["content"] == [
        {"toolResult": {"toolUseId": "t", "content": [{"text": "x"}]}},
        {"cachePoint": {"type": "default"}},
        {"text": "be brief"},
        {"text": "and?"},
    ]


def test_marks_for_the_cache_become_cache_points_where_a_model_has_a_cache() -> None:
    mark, hour = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
    said = Message("user", (Text("a", mark), Image("image/png", data="AAAA", cache=hour)))
    asked: dict[str, Any] = {"system": (Text("s", hour),), "tools": (Tool("f", cache=mark),)}
    short, long = {"cachePoint": {"type": "default"}}, {"cachePoint": {"type": "default", "ttl": "1h"}}
    body = _asked(said, **asked)
    assert body["messages"][0]["content"][1::2] == [short, long]
    assert body["system"][1] == long and body["toolConfig"]["tools"][1] == short
    nova = _asked(said, model=NOVA, **asked)
    assert nova["system"][1] == long and len(nova["toolConfig"]["tools"]) == 1, "Nova keeps no tools"
    assert "cachePoint" not in json.dumps(_asked(said, model=LLAMA, **asked))


def test_a_wish_for_the_cache_marks_the_end_unless_there_is_a_mark() -> None:
    body = _asked()
    wish = bedrock.cache_wish(CLAUDE, body)
    assert wish["messages"][0]["content"] == [{"text": "hi"}, {"cachePoint": {"type": "default"}}]
    assert bedrock.cache_wish(CLAUDE, body | wish) == bedrock.cache_wish(LLAMA, body) == {}


def test_images_and_documents_are_data_or_stand_in_s3() -> None:
    parts = (
        Image("image/jpeg", data="AAAA"),
        Image("", url="s3://bucket/a.png"),
        File("application/pdf", data="BBBB", name="Q3_report.final.pdf"),
        File("text/markdown; charset=utf-8", data="CCCC", name="Q3 report final pdf"),
        File("", url="s3://bucket/b.docx"),
    )
    body = _asked(Message("user", (Text("look"), *parts)))
    _, jpeg, png, pdf, md, docx = body["messages"][0]["content"]
    assert jpeg == {"image": {"format": "jpeg", "source": {"bytes": "AAAA"}}}
    assert png == {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://bucket/a.png"}}}}
    assert pdf["document"] == {"format": "pdf", "name": "Q3 report final pdf", "source": {"bytes": "BBBB"}}
    assert (md["document"]["format"], md["document"]["name"]) == ("md", "Q3 report final pdf (2)")
    assert docx["document"]["source"] == {"s3Location": {"uri": "s3://bucket/b.docx"}}
    result = _asked(
        HI, Message("assistant", (ToolCall("t", "f", "{}"),)), Message("user", (ToolResult("t", parts[:1]),))
    )
    assert result["messages"][2]["content"][0]["toolResult"]["content"] == [jpeg]


def test_reasoning_goes_back_only_to_a_model_that_can_verify_it() -> None:
    said = (Thinking("mine", signature="s"), Thinking("", encrypted="eA=="), Thinking("no one's"), Text("ok"))
    google = Thinking("g", signature="gemini.0.x")
    blocks = _asked(HI, Message("assistant", (*said, google)))["messages"][1]["content"]
    assert blocks == [
        {"reasoningContent": {"reasoningText": {"text": "mine", "signature": "s"}}},
        {"reasoningContent": {"redactedContent": "eA=="}},
        {"text": "ok"},
    ]
    assert _asked(HI, Message("assistant", said), model=NOVA)["messages"][1]["content"] == [{"text": "ok"}]
    arn = "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/abc123"
    assert _asked(HI, Message("assistant", said), model=arn)["messages"][1]["content"] == blocks


@pytest.mark.parametrize(
    ("model", "reasoning", "effort", "more"),
    [
        (CLAUDE, Reasoning("high"), "high", {"thinking": {"type": "adaptive"}}),
        (CLAUDE, Reasoning("minimal", shown=True), "low", {"thinking": {"type": "adaptive", "display": "summarized"}}),
        (CLAUDE, Reasoning("none"), None, {"thinking": {"type": "disabled"}}),
        (CLAUDE, Reasoning(budget_tokens=2048), None, {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        (NOVA, Reasoning("max"), None, {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}),
        (NOVA, Reasoning("none"), None, {"reasoningConfig": {"type": "disabled"}}),
        (LLAMA, Reasoning("medium"), "medium", None),
        (LLAMA, Reasoning(adaptive=True), None, None),
    ],
)
def test_each_family_of_models_has_its_own_words_for_reasoning(
    model: str, reasoning: Reasoning, effort: str | None, more: dict[str, Any] | None
) -> None:
    body = _asked(model=model, reasoning=reasoning)
    assert body.get("outputConfig") == ({"effort": effort} if effort else None)
    assert body.get("additionalModelRequestFields") == more


def test_top_k_has_words_at_claude_and_nova() -> None:
    assert _asked(top_k=5)["additionalModelRequestFields"] == {"top_k": 5}
    assert _asked(model=NOVA, top_k=5)["additionalModelRequestFields"] == {"inferenceConfig": {"topK": 5}}


def test_a_json_schema_becomes_the_format_of_the_output() -> None:
    format = _asked(output=JsonOutput({"type": "object"}, name="pet", description="a pet"))["outputConfig"][
        "textFormat"
    ]
    schema = {"schema": '{"type":"object"}', "name": "pet", "description": "a pet"}
    assert format == {"type": "json_schema", "structure": {"jsonSchema": schema}}


def test_choices_of_tools() -> None:
    tools = (Tool("f"),)
    one = _asked(tools=tools, tool_choice=ToolChoice("tool", "f", parallel=False))
    assert one["toolConfig"]["toolChoice"] == {"tool": {"name": "f"}}
    assert one["system"] == [{"text": "Call at most one tool at a time."}]
    assert "toolChoice" not in _asked(tools=tools, tool_choice=ToolChoice())["toolConfig"]
    assert "toolConfig" not in _asked(tools=tools, tool_choice=ToolChoice("none"))


@pytest.mark.parametrize("tools", [(), (Tool("f"),)])
def test_tools_that_were_called_stay_defined_if_none_may_be_called(tools: tuple[Tool, ...]) -> None:
    said = (HI, Message("assistant", (ToolCall("t", "f", "{}"),)), Message("user", (ToolResult("t", (Text("x"),)),)))
    body = _asked(*said, tools=tools, tool_choice=ToolChoice("none"))
    assert [one["toolSpec"]["name"] for one in body["toolConfig"]["tools"]] == ["f"]
    assert body["system"] == [{"text": "Do not call any tool."}]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"seed": 1}, "seed"),
        ({"verbosity": "low"}, "verbosity"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": -1}, "presence_penalty"),
        ({"temperature": 1.5}, "temperature"),
        ({"output": JsonOutput()}, "response_format.type"),
        ({"model": LLAMA, "top_k": 5}, "top_k"),
        ({"model": LLAMA, "reasoning": Reasoning(budget_tokens=5)}, "reasoning"),
        ({"model": LLAMA, "reasoning": Reasoning("none")}, "reasoning"),
        ({"model": ".."}, "model"),
        ({"model": "a b"}, "model"),
        ({"model": "a" * 3000}, "model"),
        ({"messages": (Message("user", (Image("", url="https://a.example/b.png"),)),)}, "image.url"),
        ({"messages": (Message("user", (Image("image/tiff", data="AAAA"),)),)}, "image"),
        ({"messages": (Message("user", (File("", url="https://a.example/b.pdf"),)),)}, "file.url"),
        ({"messages": (Message("user", (File("audio/mpeg", data="AAAA"),)),)}, "file"),
        ({"messages": (Message("assistant", (ToolCall("t", "f", "[1]"),)),)}, "tool_calls['t'].arguments"),
        ({"messages": (Message("assistant", (Image("image/png", data="AAAA"),)),)}, "messages"),
        ({"messages": (Message("user", (ToolCall("t", "f", "{}"),)),)}, "messages"),
    ],
)
def test_what_the_format_has_no_form_for_is_refused_by_name(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(Untranslatable) as refusal:
        bedrock.render_request(ChatRequest(**({"model": CLAUDE, "messages": ()} | fields)))
    assert refusal.value.data["field"] == path


def test_penalties_of_zero_ask_for_nothing() -> None:
    assert _asked(frequency_penalty=0.0, presence_penalty=0.0) == _asked()


@pytest.mark.parametrize("model", [CLAUDE, NOVA, LLAMA])
@UNHURRIED
@given(request=requests)
def test_every_request_is_one_that_the_service_takes(model: str, request: ChatRequest) -> None:
    """By botocore's model of it, and by what is known beside it."""
    said = tuple(replace(one, parts=tuple(map(_as_data, one.parts))) for one in request.messages)
    try:
        body = bedrock.render_request(replace(request, model=model, messages=said))
    except Untranslatable as refusal:
        assert refusal.data["field"] in ("reasoning",)
        return
    assert not bedrock_wire.invalid(f"/model/{model.replace(':', '%3A')}/converse", body)
    assert sum("toolUse" in block for one in body["messages"] for block in one["content"]) == sum(
        isinstance(part, ToolCall) for one in request.messages for part in one.parts
    )


def _as_data(part: Any) -> Any:
    """Images by address are refused; empty data and names that are too short for the service are the client's fault."""
    if isinstance(part, Image | File):
        return replace(part, url="", data="AAAA", media_type=part.media_type or "image/png")
    return part


# --- Answers


def _answer(*content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": list(content)}
    whole = {"output": {"message": message}, "stopReason": "end_turn", "usage": bedrock_wire.USAGE}
    return whole | {"metrics": {"latencyMs": 3}} | fields


def test_an_answer_is_read() -> None:
    answer = bedrock.parse_answer(
        _answer(
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}},
            {"reasoningContent": {"redactedContent": "eA=="}},
            {"text": "ok"},
            {"toolUse": {"toolUseId": "t", "name": "f", "input": {"a": [1]}}},
            stopReason="tool_use",
        )
    )
    assert answer.parts == (
        Thinking("hm", signature="s"),
        Thinking("", encrypted="eA=="),
        Text("ok"),
        ToolCall("t", "f", '{"a":[1]}'),
    )
    assert (answer.stop, answer.model) == ("tool_calls", "") and answer.id.startswith("msg_")


def test_cached_tokens_are_part_of_the_input() -> None:
    details = [{"ttl": "1h", "inputTokens": 60}, {"ttl": "5m", "inputTokens": 40}]
    usage = {**bedrock_wire.USAGE, "cacheDetails": details}
    read = bedrock.parse_answer(_answer({"text": "x"}, usage=usage)).usage
    assert read == TokenUsage(input=1000, output=50, cache_read=400, cache_write=100, cache_write_1h=60)
    counted = usage_of("bedrock", usage)
    assert counted is not None
    assert (counted.input_tokens, counted.cache_read_tokens, counted.cache_write_tokens) == (1000, 400, 100)
    assert counted.more == {"cache_write_1h_tokens": 60}


@pytest.mark.parametrize(
    ("reason", "stop"),
    [("max_tokens", "length"), ("model_context_window_exceeded", "length"), ("guardrail_intervened", "content_filter")],
)
def test_stop_reasons(reason: str, stop: str) -> None:
    assert bedrock.parse_answer(_answer({"text": "x"}, stopReason=reason)).stop == stop


@pytest.mark.parametrize(
    "block",
    [
        {"image": {"format": "png", "source": {"bytes": "AAAA"}}},
        {"citationsContent": {"content": [{"text": "x"}]}},
        {"toolUse": {"toolUseId": "t", "name": "web", "input": {}, "type": "server_tool_use"}},
    ],
)
def test_what_the_client_cannot_read_is_refused(block: dict[str, Any]) -> None:
    with pytest.raises(Untranslatable):
        bedrock.parse_answer(_answer(block))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"message": "no"},
        _answer(stopReason="malformed_tool_use"),
        _answer(stopReason=None),
        _answer(output={"message": {"content": 3}}),
        _answer(output={"message": {}}),
        _answer({}),
        _answer({"text": "x"}, usage={"inputTokens": -1}),
    ],
)
def test_what_is_no_answer_is_an_error(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        bedrock.parse_answer(body)


@UNHURRIED
@given(answer=answers())
def test_an_answer_is_read_as_the_service_wrote_it(answer: ChatAnswer) -> None:
    stops = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
    usage = answer.usage or TokenUsage()
    written = _answer(*map(_block, answer.parts), stopReason=stops[answer.stop], usage=_usage(usage))
    read = bedrock.parse_answer(json.loads(json.dumps(written)))
    said = replace(answer, id=read.id, model="", created=0, usage=replace(usage, reasoning=0))
    assert read == said


def _block(part: Any) -> dict[str, Any]:
    match part:
        case Text():
            return {"text": part.text}
        case ToolCall():
            return {"toolUse": {"toolUseId": part.id, "name": part.name, "input": json.loads(part.arguments)}}
        case Thinking() if part.encrypted:
            return {"reasoningContent": {"redactedContent": part.encrypted}}
        case _:
            return {"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}


def _usage(usage: TokenUsage) -> dict[str, Any]:
    return {
        "inputTokens": usage.input - usage.cache_read - usage.cache_write,
        "outputTokens": usage.output,
        "totalTokens": usage.input + usage.output,
        "cacheReadInputTokens": usage.cache_read,
        "cacheWriteInputTokens": usage.cache_write,
        "cacheDetails": [{"ttl": "1h", "inputTokens": usage.cache_write_1h}],
    }


# --- Streams


def _read(*frames: bytes) -> list[StreamEvent]:
    reader = bedrock.parse_stream()
    read: list[StreamEvent] = []
    for frame in frames:
        read += reader.read(*parts_of(server_sent(frame)))
    return read + list(reader.end())


def test_a_stream_is_read() -> None:
    body = {"messages": [], "toolConfig": {"tools": [{"toolSpec": {"name": "f"}}]}}
    started, *read = _read(*bedrock_wire.stream("tools", body, []))
    assert isinstance(started, Started) and started.model == ""
    assert read == [
        PartStarted(0, Thinking("")),
        PartGrew(0, "Let me look."),
        PartGrew(0, signature=bedrock_wire.THINKING["signature"]),
        PartEnded(0),
        PartStarted(1, ToolCall("tooluse_1", "f", "")),
        PartGrew(1, '{"n'),
        PartGrew(1, '": 1}'),
        PartEnded(1),
        PartStarted(2, ToolCall("tooluse_2", "f", "")),
        PartGrew(2, '{"n'),
        PartGrew(2, '": 2}'),
        PartEnded(2),
        Stopped("tool_calls", TokenUsage(input=1000, output=50, cache_read=400, cache_write=100)),
    ]


def test_a_call_without_arguments_and_an_unknown_event() -> None:
    frame = bedrock_wire.frame
    read = _read(
        frame("messageStart", {"role": "assistant"}),
        frame("contentBlockStop", {"contentBlockIndex": 0}),
        frame("eventOfNextYear", {"a": 1}),
        frame("contentBlockStart", {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "t", "name": "f"}}}),
        frame("contentBlockStop", {"contentBlockIndex": 1}),
        frame(
            "contentBlockDelta", {"contentBlockIndex": 2, "delta": {"reasoningContent": {"redactedContent": "eA=="}}}
        ),
        frame("contentBlockStop", {"contentBlockIndex": 2}),
        frame("messageStop", {"stopReason": "tool_use"}),
    )
    assert read[1:] == [
        PartStarted(0, ToolCall("t", "f", "")),
        PartGrew(0, "{}"),
        PartEnded(0),
        PartStarted(1, Thinking("", encrypted="eA==")),
        PartEnded(1),
        Stopped("tool_calls", None),
    ]


def test_an_exception_breaks_the_stream() -> None:
    frames = list(bedrock_wire.stream("broken", {}, ["a", "b", "c"]))
    assert _read(*frames)[-1] == Broken("modelStreamErrorException", "The model has failed.")


TEXT = {"contentBlockIndex": 0, "delta": {"text": "x"}}
CALL = {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "t", "name": "f"}}}


@pytest.mark.parametrize(
    "events",
    [
        [],
        [("messageStart", {})],
        [("messageStop", {"stopReason": "malformed_model_output"})],
        [("contentBlockStart", CALL), ("contentBlockStart", CALL)],
        [("contentBlockStart", CALL), ("contentBlockDelta", TEXT)],
        [("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": "{}"}}})],
        [("contentBlockDelta", {"delta": {"text": "x"}})],
        [("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"image": {}}})],
        [("contentBlockStart", {"contentBlockIndex": 0, "start": {"image": {"format": "png"}}})],
        [("metadata", {"usage": 3})],
    ],
)
def test_a_stream_that_is_cut_off_or_out_of_order_is_an_error(events: list[tuple[str, dict[str, Any]]]) -> None:
    with pytest.raises((ValueError, Untranslatable)):
        _read(*(bedrock_wire.frame(name, data) for name, data in events))


@UNHURRIED
@given(stream=streams(), cuts=st.lists(st.integers(1, 200), min_size=1, max_size=9))
def test_a_stream_says_what_the_whole_answer_says_wherever_its_bytes_are_cut(
    stream: tuple[ChatAnswer, list[StreamEvent]], cuts: list[int]
) -> None:
    answer, events = stream
    sent = b"".join(_frames(events))
    frames, read, at, turn = Frames(), [], 0, 0
    while at < len(sent):
        size = cuts[turn % len(cuts)]
        read += frames.feed(sent[at : at + size])
        at, turn = at + size, turn + 1
    assert not frames.rest
    found = collect(_read(*read))
    usage = answer.usage or TokenUsage()
    assert found == replace(answer, id=found.id, model="", created=0, usage=replace(usage, reasoning=0))


def _frames(events: list[StreamEvent]) -> Any:
    kinds: dict[int, Any] = {}
    for event in events:
        match event:
            case Started():
                yield bedrock_wire.frame("messageStart", {"role": "assistant"})
            case PartStarted():
                kinds[event.index] = event.part
                at = {"contentBlockIndex": event.index}
                if isinstance(event.part, ToolCall):
                    call = {"toolUseId": event.part.id, "name": event.part.name}
                    yield bedrock_wire.frame("contentBlockStart", {**at, "start": {"toolUse": call}})
                elif isinstance(event.part, Thinking) and event.part.encrypted:
                    hidden = {"reasoningContent": {"redactedContent": event.part.encrypted}}
                    yield bedrock_wire.frame("contentBlockDelta", {**at, "delta": hidden})
            case PartGrew():
                delta: dict[str, Any] = {"text": event.text}
                if isinstance(kinds[event.index], ToolCall):
                    delta = {"toolUse": {"input": event.text}}
                elif isinstance(kinds[event.index], Thinking):
                    said = {"text": event.text} if event.text else {"signature": event.signature}
                    delta = {"reasoningContent": said}
                yield bedrock_wire.frame("contentBlockDelta", {"contentBlockIndex": event.index, "delta": delta})
            case PartEnded():
                yield bedrock_wire.frame("contentBlockStop", {"contentBlockIndex": event.index})
            case Stopped():
                stops = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
                yield bedrock_wire.frame("messageStop", {"stopReason": stops[event.stop]})
                yield bedrock_wire.frame("metadata", {"usage": _usage(event.usage or TokenUsage())})


# --- Hostile bytes


GOOD = bedrock_wire.frame("messageStop", {"stopReason": "end_turn"})


@pytest.mark.parametrize(
    "bytes_",
    [b"<html>this is no answer</html>", struct.pack(">I", 15) + b"x" * 20, struct.pack(">I", 2**31) + b"x" * 20],
)
def test_bytes_that_are_no_events_are_an_error_at_once(bytes_: bytes) -> None:
    with pytest.raises(ValueError):
        list(Frames().feed(bytes_))


@UNHURRIED
@given(at=st.integers(0, len(GOOD) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_never_goes_unseen(at: int, bit: int) -> None:
    flipped = bytearray(GOOD)
    flipped[at] ^= 1 << bit
    with pytest.raises((ValueError, ParserError)):
        frames = Frames()
        for frame in frames.feed(bytes(flipped)):
            server_sent(frame)
        if frames.rest:
            raise ValueError


@pytest.mark.parametrize("name", ["", "a b", 'a":1,"b', "a\nb", "a" * 101])
def test_the_name_of_an_event_cannot_write_events(name: str) -> None:
    about = {":event-type": name, ":message-type": "event"}
    with pytest.raises(ValueError):
        server_sent(bedrock_wire.encode(about, b"{}"))


def test_line_breaks_in_a_payload_write_no_events() -> None:
    payload = b'{"stopReason":\r\n\r\n"end_turn"\n\ndata: x\n\n}'
    sent = server_sent(bedrock_wire.encode({":event-type": "messageStop", ":message-type": "event"}, payload))
    assert sent.count(b"\n") == 2 and b"\r" not in sent and sent.endswith(b"}\n\n")


def test_an_event_without_a_type_is_an_error_of_the_service() -> None:
    about = {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "oh"}
    sent = server_sent(bedrock_wire.encode(about, b""))
    error = json.loads(sent.partition(b"data: ")[2])["error"]
    assert error == {"type": "InternalFailure", "message": "oh", "code": 500}


def test_events_in_one_large_chunk_are_split_in_linear_time() -> None:
    many = GOOD * 20_000
    assert sum(1 for _ in Frames().feed(many)) == 20_000


# --- Metering


def test_the_usage_of_a_stream_comes_with_its_metadata() -> None:
    meter = Meter("bedrock", 100)
    frames = list(bedrock_wire.stream("good", {}, ["Hello", " there"]))
    for frame in frames[:-1]:
        meter.read(server_sent(frame))
    assert meter.is_over and not meter.is_exact
    assert (meter.usage.input_tokens, meter.usage.output_tokens) == (100, 4)
    meter.read(server_sent(frames[-1]))
    assert meter.is_exact and (meter.usage.input_tokens, meter.usage.output_tokens) == (1000, 50)


@pytest.mark.parametrize("usage", [None, 3, {}, {"inputTokens": "5"}, {"inputTokens": 10**12}, {"outputTokens": 5}])
def test_usage_that_cannot_be_is_none(usage: Any) -> None:
    assert usage_of("bedrock", usage) is None


def test_the_tier_that_was_billed_is_said_in_the_answer() -> None:
    assert usage_and_tier("bedrock", {"usage": {}, "serviceTier": {"type": "flex"}})[1] == "flex"
    assert usage_and_tier("bedrock", {"usage": {}, "serviceTier": 3})[1] == "default"


@pytest.mark.parametrize(
    "model",
    [
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "eu.anthropic.claude-haiku-4-5-20251001-v1:0",
        "global.anthropic.claude-opus-4-5-20251101-v1:0",
        "amazon.nova-pro-v1:0",
        "eu.amazon.nova-lite-v1:0",
        "arn:aws:bedrock:eu-central-1::foundation-model/amazon.nova-pro-v1:0",
        "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
    ],
)
def test_models_have_prices_with_and_without_a_region(model: str) -> None:
    price = _listed("aws", model, "default")
    assert price is not None and price.input[0][1] > 0 and price.output[0][1] > price.input[0][1]


def test_a_refusal_in_words_is_text() -> None:
    assert _asked(HI, Message("assistant", (Refused("no"),)))["messages"][1]["content"] == [{"text": "no"}]


def test_redacted_bytes_stay_as_they_are() -> None:
    blob = base64.b64encode(bytes(range(256))).decode()
    answer = bedrock.parse_answer(_answer({"reasoningContent": {"redactedContent": blob}}))
    blocks = _asked(HI, Message("assistant", answer.parts))["messages"][1]["content"]
    assert blocks == [{"reasoningContent": {"redactedContent": blob}}]
