"""The official SDKs' types as judges of what is written, for clients and for providers: strict, and without fields that
they do not know."""

import json
from collections.abc import Iterable
from typing import Any

from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.message_create_params import MessageCreateParams
from google.genai import types as google
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParams
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from mcpgate.llm.messages import ChatRequest, StreamEvent

_WHOLE: dict[str, TypeAdapter[Any]] = {
    "chat": TypeAdapter(ChatCompletion),
    "messages": TypeAdapter(Message),
    "responses": TypeAdapter(Response),
    "gemini": TypeAdapter(google.GenerateContentResponse),
}
_EVENT: dict[str, TypeAdapter[Any]] = {
    "chat": TypeAdapter(ChatCompletionChunk),
    "messages": TypeAdapter(RawMessageStreamEvent),
    "responses": TypeAdapter(ResponseStreamEvent),
    "gemini": TypeAdapter(google.GenerateContentResponse),
}
_GEMINI: dict[str, TypeAdapter[Any]] = {
    "contents": TypeAdapter(list[google.Content]),
    "systemInstruction": TypeAdapter(google.Content),
    "tools": TypeAdapter(list[google.Tool]),
    "toolConfig": TypeAdapter(google.ToolConfig),
    "generationConfig": TypeAdapter(google.GenerationConfig),
}
"""The fields of its requests; their types allow no others within them."""
_REQUEST: dict[str, TypeAdapter[Any]] = {
    "chat": TypeAdapter(CompletionCreateParams),
    "messages": TypeAdapter(MessageCreateParams),
}
_SAMPLING = {"temperature", "top_p", "top_k"}
"""What Anthropic's newest SDK does not know, but its API of version 2023-06-01."""
_CONVENTIONS = {"reasoning_content", "reasoning_details", "presence_penalty", "frequency_penalty", "store"}
"""What chat clients read although the SDK does not know it; and what the Open Responses specification requires."""


def judge_request(format: str, body: dict[str, Any]) -> None:
    """A field that the SDK does not know is missing in what it has read."""
    if format == "gemini":
        for name, value in body.items():
            _GEMINI[name].validate_json(json.dumps(value))
        return
    known = {name: value for name, value in body.items() if format != "messages" or name not in _SAMPLING}
    read = _read(_REQUEST[format].validate_python(known))
    assert read == _without_conventions(known)


def _read(value: Any) -> Any:
    """Lists of parameters are read only as far as one looks."""
    if isinstance(value, dict):
        return {name: _read(one) for name, one in value.items()}
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return value
    return [_read(one) for one in value]


def _without_conventions(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_conventions(one) for name, one in value.items() if name not in _CONVENTIONS}
    return [_without_conventions(one) for one in value] if isinstance(value, list) else value


def judge_answer(format: str, answer: dict[str, Any]) -> Any:
    return _judged(_WHOLE[format], answer)


def judge_stream(format: str, written: Iterable[bytes]) -> list[dict[str, Any]]:
    """The events' data. For Messages and Responses the events' names must be their types."""
    judged = []
    for name, data in parse_events(written):
        if data == "[DONE]":
            continue
        event = json.loads(data)
        judged.append(event)
        assert name == ("" if format in ("chat", "gemini") else event["type"])
        if "error" not in event or format == "responses":
            _judged(_EVENT[format], event)
    return judged


def parse_events(written: Iterable[bytes]) -> list[tuple[str, str]]:
    events = []
    for event in written:
        assert event.endswith(b"\n\n") and b"\n\n" not in event[:-2]
        fields = dict(line.split(": ", 1) for line in event.decode().strip().split("\n"))
        assert fields.keys() <= {"event", "data"}
        events.append((fields.get("event", ""), fields["data"]))
    return events


def write_all(client: Any, request: ChatRequest, events: Iterable[StreamEvent]) -> list[bytes]:
    writer = client.render_stream(request)
    return [piece for event in events for piece in writer.write(event)]


def read_all(provider: Any, written: Iterable[bytes]) -> list[StreamEvent]:
    reader = provider.parse_stream()
    events = [event for name, data in parse_events(written) for event in reader.read(name, data.encode())]
    return events + list(reader.end())


def _judged(adapter: TypeAdapter[Any], value: dict[str, Any]) -> Any:
    judged = adapter.validate_json(json.dumps(value), strict=adapter not in (_WHOLE["gemini"], _EVENT["gemini"]))
    assert set(_unknown(judged)) <= _CONVENTIONS
    return judged


def _unknown(value: Any) -> Iterable[str]:
    if isinstance(value, BaseModel):
        yield from value.model_extra or ()
        for field in type(value).model_fields:
            yield from _unknown(getattr(value, field))
    elif isinstance(value, list):
        for one in value:
            yield from _unknown(one)
