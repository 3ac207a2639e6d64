"""The official SDKs read what clients are answered, whole and in pieces, over a transport that needs no network."""

import json
from collections.abc import Iterable
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from mcpgate.api.llm import chat, messages, responses
from mcpgate.llm.messages import (
    Broken,
    ChatAnswer,
    ChatRequest,
    PartEnded,
    PartGrew,
    PartStarted,
    Started,
    Stopped,
    StreamEvent,
    Text,
    Thinking,
    TokenUsage,
    ToolCall,
)
from tests.llm.judges import write_all

ASKED = ChatRequest("m", ())
USAGE = TokenUsage(117, 9, cache_read=100)
PARTS = (Thinking("hm", signature="s"), Text("hello"), ToolCall("x", "f", '{"a":1}'), ToolCall("y", "g", "{}"))
EVENTS: list[StreamEvent] = [
    Started("a", "m", USAGE, created=5),
    PartStarted(0, Thinking("")),
    PartGrew(0, "h"),
    PartGrew(0, "m"),
    PartGrew(0, signature="s"),
    PartEnded(0),
    PartStarted(1, Text("")),
    PartGrew(1, "hel"),
    PartGrew(1, "lo"),
    PartEnded(1),
    PartStarted(2, ToolCall("x", "f", "")),
    PartStarted(3, ToolCall("y", "g", "")),
    PartGrew(2, '{"a"'),
    PartGrew(3, "{}"),
    PartGrew(2, ":1}"),
    PartEnded(2),
    PartEnded(3),
    Stopped("tool_calls", USAGE),
]


def _server(client: Any, events: Iterable[StreamEvent]) -> httpx2.Client:
    """Answers what the body asks for, as one whole or as a stream."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        if json.loads(request.content).get("stream"):
            pieces = b"".join(write_all(client, ASKED, events))
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=pieces)
        return httpx2.Response(200, json=client.render_answer(ChatAnswer("a", "m", PARTS, "tool_calls", USAGE), ASKED))

    return httpx2.Client(transport=httpx2.MockTransport(answer))


def _openai(client: Any, events: Iterable[StreamEvent] = EVENTS) -> openai.OpenAI:
    return openai.OpenAI(api_key="k", base_url="http://gateway/v1", http_client=_server(client, events), max_retries=0)


def _anthropic(events: Iterable[StreamEvent] = EVENTS) -> anthropic.Anthropic:
    server = _server(messages, events)
    return anthropic.Anthropic(api_key="k", base_url="http://gateway", http_client=server, max_retries=0)


HI: Any = [{"role": "user", "content": "hi"}]


def test_the_openai_sdk_puts_a_streamed_completion_together() -> None:
    with _openai(chat).chat.completions.stream(model="m", messages=HI) as stream:
        streamed = stream.get_final_completion().choices[0]
    whole = _openai(chat).chat.completions.create(model="m", messages=HI).choices[0]
    for choice in (streamed, whole):
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content == "hello"
        calls: Any = choice.message.tool_calls
        assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [
            ("x", "f", '{"a":1}'),
            ("y", "g", "{}"),
        ]
        assert choice.message.model_extra is not None
        assert choice.message.model_extra["reasoning_content"] == "hm"
        (detail,) = choice.message.model_extra["reasoning_details"]
        assert (detail["type"], detail["text"], detail["signature"]) == ("reasoning.text", "hm", "s")


def test_the_openai_sdk_puts_a_streamed_response_together() -> None:
    with _openai(responses).responses.stream(model="m", input="hi") as stream:
        streamed = stream.get_final_response()
    whole = _openai(responses).responses.create(model="m", input="hi")
    for response in (streamed, whole):
        assert response.status == "completed"
        assert response.output_text == "hello"
        assert [item.type for item in response.output] == ["reasoning", "message", "function_call", "function_call"]
        assert response.usage is not None and response.usage.input_tokens_details.cached_tokens == 100


def test_the_anthropic_sdk_puts_a_streamed_message_together() -> None:
    with _anthropic().messages.stream(model="m", messages=HI, max_tokens=9) as stream:
        streamed = stream.get_final_message()
    whole = _anthropic().messages.create(model="m", messages=HI, max_tokens=9)
    for message in (streamed, whole):
        assert message.stop_reason == "tool_use"
        assert [block.to_dict() for block in message.content] == [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "hello", "citations": None},
            {"type": "tool_use", "id": "x", "name": "f", "input": {"a": 1}, "caller": {"type": "direct"}},
            {"type": "tool_use", "id": "y", "name": "g", "input": {}, "caller": {"type": "direct"}},
        ]
        assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (17, 100)


BROKEN = [*EVENTS[:3], Broken("overloaded_error", "come back later")]


def test_the_sdks_raise_an_error_that_comes_within_a_stream() -> None:
    with pytest.raises(openai.APIError, match="come back later"):
        list(_openai(chat, BROKEN).chat.completions.create(model="m", messages=HI, stream=True))
    with pytest.raises(anthropic.APIStatusError, match="come back later"):
        list(_anthropic(BROKEN).messages.create(model="m", messages=HI, max_tokens=9, stream=True))
    last = list(_openai(responses, BROKEN).responses.create(model="m", input="hi", stream=True))[-1]
    assert last.type == "response.failed" and last.response.error and last.response.error.message == "come back later"
