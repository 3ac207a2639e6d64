"""OpenAI Responses as clients read a stream. Pure."""

import time
from collections.abc import Iterator
from typing import Any

from mcpgate.api.llm import sse
from mcpgate.api.llm.responses_items import (
    Names,
    content_part,
    finished,
    freeform_input,
    render_item,
    render_response,
    render_usage,
    summary_part,
)
from mcpgate.llm.messages import (
    Broken,
    ChatRequest,
    PartEnded,
    PartGrew,
    PartStarted,
    Refused,
    Started,
    Stopped,
    StreamEvent,
    Text,
    Thinking,
    ToolCall,
)

_ERRORS = {"rate_limit_error": "rate_limit_exceeded", "rate_limit_exceeded": "rate_limit_exceeded"}
"""A provider's word for an error → the format's; others are `server_error`."""


class _Growing:
    """An item that is being written."""

    def __init__(self, index: int, part: Any, id: str) -> None:
        self.part, self.id = part, id
        self.at = {"item_id": id, "output_index": index}
        """Where its events belong."""
        self.texts: list[str] = []
        self.signatures: list[str] = []

    def whole(self) -> Any:
        text = "".join(self.texts)
        match self.part:
            case ToolCall() as call:
                return ToolCall(call.id, call.name, text)
            case Thinking() as thought:
                return Thinking(text, "".join(self.signatures), thought.encrypted, thought.id)
            case part:
                return type(part)(text)


class ResponsesStream:
    """Turns one answer's events into those of the format. Items may grow by turns, so nothing waits."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._sequence = -1
        self._names = Names("", request)
        self._response: dict[str, Any] = {}
        self._growing: dict[int, _Growing] = {}
        self._done: dict[int, dict[str, Any]] = {}
        """The index of a part → its item."""
        self._refused = False

    def write(self, event: StreamEvent) -> Iterator[bytes]:
        match event:
            case Started():
                self._start(event)
                yield self._event("response.created", response=self._response)
                yield self._event("response.in_progress", response=self._response)
            case PartStarted():
                self._refused |= isinstance(event.part, Refused)
                item = _Growing(event.index, event.part, self._names.of(event.part, event.index))
                self._growing[event.index] = item
                yield from self._begin(event.index, item)
            case PartGrew() if event.index in self._growing:
                yield from self._grow(self._growing[event.index], event)
            case PartEnded() if event.index in self._growing:
                yield from self._end(event.index)
            case Stopped():
                for index in list(self._growing):
                    yield from self._end(index)
                yield self._stop(event)
            case Broken():
                if not self._response:
                    self._start(Started("unknown", self._request.model))
                error = {"code": _ERRORS.get(event.type, "server_error"), "message": event.message}
                failed = self._response | {"status": "failed", "error": error, "output": self._output()}
                yield self._event("response.failed", response=failed)

    def _start(self, event: Started) -> None:
        self._names = Names(event.id, self._request)
        created = event.created or int(time.time())
        self._response = render_response(self._names, event.model, created, self._request)

    def _begin(self, index: int, item: _Growing) -> Iterator[bytes]:
        opened = render_item(item.part, item.id, "in_progress", self._names)
        yield self._event("response.output_item.added", output_index=index, item=opened)
        if isinstance(item.part, Text | Refused):
            part = content_part(item.part)
            yield self._event("response.content_part.added", **item.at, content_index=0, part=part)

    def _grow(self, item: _Growing, event: PartGrew) -> Iterator[bytes]:
        if isinstance(item.part, Thinking) and event.text and not item.texts:
            part = summary_part("")
            yield self._event("response.reasoning_summary_part.added", **item.at, summary_index=0, part=part)
        if event.signature:
            item.signatures.append(event.signature)
        if not event.text:
            return
        item.texts.append(event.text)
        match item.part:
            case Text():
                delta = {"content_index": 0, "delta": event.text, "logprobs": []}
                yield self._event("response.output_text.delta", **item.at, **delta)
            case Refused():
                yield self._event("response.refusal.delta", **item.at, content_index=0, delta=event.text)
            case Thinking():
                delta = {"summary_index": 0, "delta": event.text}
                yield self._event("response.reasoning_summary_text.delta", **item.at, **delta)
            case ToolCall() if not self._names.is_freeform(item.part):
                yield self._event("response.function_call_arguments.delta", **item.at, delta=event.text)
            # Free text stands within JSON, so it is known only at its end.

    def _end(self, index: int) -> Iterator[bytes]:
        item = self._growing.pop(index)
        whole = item.whole()
        yield from self._close(item, whole)
        done = self._done[index] = render_item(whole, item.id, "completed", self._names)
        yield self._event("response.output_item.done", output_index=index, item=done)

    def _close(self, item: _Growing, whole: Any) -> Iterator[bytes]:
        match whole:
            case Text():
                text = {"content_index": 0, "text": whole.text, "logprobs": []}
                yield self._event("response.output_text.done", **item.at, **text)
            case Refused():
                yield self._event("response.refusal.done", **item.at, content_index=0, refusal=whole.text)
            case Thinking() if whole.text:
                at: dict[str, Any] = {**item.at, "summary_index": 0}
                yield self._event("response.reasoning_summary_text.done", **at, text=whole.text)
                yield self._event("response.reasoning_summary_part.done", **at, part=summary_part(whole.text))
            case ToolCall() if self._names.is_freeform(whole):
                input = freeform_input(whole.arguments)
                yield self._event("response.custom_tool_call_input.delta", **item.at, delta=input)
                yield self._event("response.custom_tool_call_input.done", **item.at, input=input)
            case ToolCall():
                yield self._event("response.function_call_arguments.done", **item.at, arguments=whole.arguments)
        if isinstance(whole, Text | Refused):
            part = content_part(whole)
            yield self._event("response.content_part.done", **item.at, content_index=0, part=part)

    def _stop(self, event: Stopped) -> bytes:
        usage = render_usage(event.usage) if event.usage else None
        end = finished(event.stop, self._refused)
        response = self._response | end | {"output": self._output(), "usage": usage}
        return self._event(f"response.{end['status']}", response=response)

    def _output(self) -> list[dict[str, Any]]:
        return [self._done[index] for index in sorted(self._done)]

    def _event(self, type: str, **fields: Any) -> bytes:
        self._sequence += 1
        return sse.event({"type": type, "sequence_number": self._sequence, **fields}, type)
