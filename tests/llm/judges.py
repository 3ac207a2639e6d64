"""The official SDKs' types as judges of what is written for clients: strict, and without fields that they do not know."""

import json
from collections.abc import Iterable
from typing import Any

from anthropic.types import Message, RawMessageStreamEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from mcpgate.llm.messages import ChatRequest, StreamEvent

_WHOLE: dict[str, TypeAdapter[Any]] = {
    "chat": TypeAdapter(ChatCompletion),
    "messages": TypeAdapter(Message),
    "responses": TypeAdapter(Response),
}
_EVENT: dict[str, TypeAdapter[Any]] = {
    "chat": TypeAdapter(ChatCompletionChunk),
    "messages": TypeAdapter(RawMessageStreamEvent),
    "responses": TypeAdapter(ResponseStreamEvent),
}
_CONVENTIONS = {"reasoning_content", "reasoning_details"}
"""What chat clients read although the SDK does not know it."""


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
        assert name == ("" if format == "chat" else event["type"])
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
    judged = adapter.validate_json(json.dumps(value), strict=True)
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
