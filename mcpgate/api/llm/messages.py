"""Anthropic Messages as clients speak it: requests in, answers and streams out. Pure.

`_TRANSLATED`, `_LEFT_OUT` and `_DEFAULTS` name every field that is accepted; all others are refused by name."""

from collections.abc import Iterator, Mapping
from typing import Any

from mcpgate.api.llm import sse
from mcpgate.llm.fields import Defaults, Fields
from mcpgate.llm.media import encode_text
from mcpgate.llm.messages import (
    Broken,
    ChatAnswer,
    ChatRequest,
    File,
    Image,
    JsonOutput,
    Message,
    Part,
    PartEnded,
    PartGrew,
    PartStarted,
    Reasoning,
    Refused,
    Started,
    Stopped,
    StopReason,
    StreamEvent,
    Text,
    Thinking,
    TokenUsage,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from mcpgate.llm.messages_format import BEGINNINGS, RENDERED_STOPS, parse_said, render_said, render_usage

_TRANSLATED = frozenset(
    "model messages system tools tool_choice max_tokens temperature top_p top_k stop_sequences thinking output_config "
    "metadata stream".split()
)
_LEFT_OUT = {
    "cache_control": "makes the answer cheaper, not different",
    "context_management": "only removes what the model no longer needs",
    "diagnostics": "tells about the cache",
}
_DEFAULTS: Defaults = {
    "service_tier": ("auto", "standard_only"),
    "speed": ("standard",),
    "mcp_servers": ([],),
}
_TOOL_LEFT_OUT = {
    "eager_input_streaming": "makes the stream smoother, not different",
    "defer_loading": "a tool that is there from the beginning can do the same",
}
_DIRECT: Defaults = {"allowed_callers": (["direct"],)}
_NO_CITATIONS: Defaults = {"citations": ([], {"enabled": False})}
_PLAIN: Defaults = {**_NO_CITATIONS, "caller": ({"type": "direct"},)}


# --- Requests


def parse_request(body: Mapping[str, Any]) -> ChatRequest:
    """Raises InvalidRequest, Untranslatable."""
    fields = Fields(body)
    fields.only(_TRANSLATED, _LEFT_OUT, _DEFAULTS)
    fields.need("max_tokens")
    fields.need("messages")
    metadata, config = fields.object("metadata"), fields.object("output_config")
    return ChatRequest(
        model=fields.need_text("model"),
        messages=tuple(_parse_message(message) for message in fields.each("messages")),
        system=tuple(_parse_texts(fields, "system")) if fields.get("system") else (),
        tools=tuple(_parse_tool(tool) for tool in fields.each("tools")),
        tool_choice=_parse_tool_choice(fields.object("tool_choice")),
        max_tokens=fields.whole("max_tokens"),
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        top_k=fields.whole("top_k"),
        stop=fields.texts("stop_sequences"),
        output=_parse_format(config.object("format")) if config else None,
        reasoning=_parse_thinking(fields.object("thinking"), _parse_effort(fields)),
        user=metadata.text("user_id") if metadata else "",
        stream=fields.flag("stream") or False,
    )


def _parse_message(message: Fields) -> Message:
    role: Any = message.need_text("role")
    message.only(("role", "content", "output_config") if role == "system" else ("role", "content"))
    match role:
        case "user":
            parts: list[Part] = _parse_content(message, "content")
        case "assistant":
            parts = [*_parse_said(message)]
        case "system":
            parts = [*_parse_texts(message, "content")]
        case _:
            message.untranslatable("role", f"{role[:100]!r}; it can be user, assistant or system")
    return Message(role, tuple(parts))


def _parse_said(message: Fields) -> Iterator[Part]:
    content = message.need("content")
    if isinstance(content, str):
        yield Text(content)
        return
    for block in message.each("content"):
        type = block.need_text("type")
        if type in BEGINNINGS:
            block.only((*BEGINNINGS[type], "cache_control"), (), _PLAIN)
        yield parse_said(block)


def _parse_texts(fields: Fields, name: str) -> Iterator[Text]:
    for index, part in enumerate(_parse_content(fields, name)):
        if not isinstance(part, Text):
            fields.wrong(f"{name}[{index}].type", "must be text")
        yield part


def _parse_content(fields: Fields, name: str) -> list[Part]:
    content = fields.need(name)
    if isinstance(content, str):
        return [Text(content)]
    return [_parse_block(block) for block in fields.each(name)]


def _parse_block(block: Fields) -> Part:
    """A block of the user's."""
    cache = block.mapping("cache_control")
    match block.need_text("type"):
        case "text":
            block.only(("type", "text", "cache_control"), (), _NO_CITATIONS)
            block.need("text")
            return Text(block.text("text"), cache)
        case "image":
            block.only(("type", "source", "cache_control"))
            return _parse_image(block.need_object("source"), cache)
        case "document":
            block.only(("type", "source", "title", "cache_control"), (), _NO_CITATIONS)
            return _parse_document(block.need_object("source"), block.text("title"), cache)
        case "tool_result":
            block.only(("type", "tool_use_id", "content", "is_error", "cache_control"))
            parts: Any = tuple(_parse_content(block, "content")) if block.get("content") is not None else ()
            return ToolResult(block.need_text("tool_use_id"), parts, block.flag("is_error") or False, cache)
        case "tool_reference":
            # Found by the client's search for tools, all of which the model sees from the beginning.
            block.only(("type", "tool_name", "cache_control"))
            return Text(block.need_text("tool_name"), cache)
        case type:
            block.untranslatable("type", f"{type[:100]!r} has no form in the format of this model's provider")


def _parse_image(source: Fields, cache: Mapping[str, Any] | None) -> Image:
    match source.need_text("type"):
        case "base64":
            return Image(source.need_text("media_type"), data=source.need_text("data"), cache=cache)
        case "url":
            return Image("", url=source.need_text("url"), cache=cache)
        case type:
            source.untranslatable("type", f"{type[:100]!r}; it can be base64 or url")


def _parse_document(source: Fields, title: str, cache: Mapping[str, Any] | None) -> File:
    match source.need_text("type"):
        case "base64":
            media_type = source.need_text("media_type")
            return File(media_type, data=source.need_text("data"), name=title, cache=cache)
        case "url":
            return File("application/pdf", url=source.need_text("url"), name=title, cache=cache)
        case "text":
            return File("text/plain", data=encode_text(source.need_text("data")), name=title, cache=cache)
        case type:
            source.untranslatable("type", f"{type[:100]!r}; it can be base64, url or text")


def _parse_tool(tool: Fields) -> Tool:
    if (type := tool.text("type") or "custom") != "custom":
        tool.untranslatable("type", f"{type[:100]!r} runs at Anthropic only; remove it or use a Claude model")
    tool.only(("type", "name", "description", "input_schema", "strict", "cache_control"), _TOOL_LEFT_OUT, _DIRECT)
    tool.need("input_schema")
    return Tool(
        name=tool.need_text("name"),
        description=tool.text("description"),
        schema=tool.mapping("input_schema") or {},
        strict=tool.flag("strict"),
        cache=tool.mapping("cache_control"),
    )


def _parse_tool_choice(choice: Fields | None) -> ToolChoice | None:
    if choice is None:
        return None
    choice.only(("type", "name", "disable_parallel_tool_use"))
    alone = choice.flag("disable_parallel_tool_use")
    parallel = None if alone is None else not alone
    match choice.need_text("type"):
        case "auto":
            return ToolChoice("auto", parallel=parallel)
        case "any":
            return ToolChoice("required", parallel=parallel)
        case "none":
            return ToolChoice("none", parallel=parallel)
        case "tool":
            return ToolChoice("tool", choice.need_text("name"), parallel)
        case type:
            choice.untranslatable("type", f"{type[:100]!r}; it can be auto, any, tool or none")


def _parse_format(format: Fields | None) -> JsonOutput | None:
    if format is None:
        return None
    format.only(("type", "schema"))
    if (type := format.need_text("type")) != "json_schema":
        format.untranslatable("type", f"{type[:100]!r}; it can be json_schema")
    format.need("schema")
    return JsonOutput(format.mapping("schema") or {}, strict=True)


def _parse_effort(fields: Fields) -> str:
    """The newest word on it: system messages may change it from there on, as Claude Code's do."""
    effort = ""
    for holder in (fields, *fields.each("messages")):
        if config := holder.object("output_config"):
            config.only(("effort", "format") if holder is fields else ("effort",))
            effort = config.one_of("effort", ("low", "medium", "high", "xhigh", "max")) or effort
    return effort


def _parse_thinking(thinking: Fields | None, effort: str) -> Reasoning | None:
    """`disabled` is what clients of this format say by habit, and to models that cannot think too: it asks for
    nothing."""
    type = thinking.need_text("type") if thinking else "disabled"
    if thinking is None or type == "disabled":
        return Reasoning(effort) if effort else None
    thinking.only(("type", "budget_tokens", "display"))
    shown = thinking.text("display") == "summarized"
    if type == "enabled":
        thinking.need("budget_tokens")
        return Reasoning(effort, thinking.whole("budget_tokens"), shown=shown)
    if type != "adaptive":
        thinking.untranslatable("type", f"{type[:100]!r}; it can be adaptive, enabled or disabled")
    return Reasoning(effort, adaptive=True, shown=shown)


# --- Answers


def render_answer(answer: ChatAnswer, request: ChatRequest) -> dict[str, Any]:
    """Raises Untranslatable for arguments of a tool that are no JSON object."""
    return {
        "id": answer.id,
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [_block(part) for part in answer.parts],
        "stop_reason": _stop_reason(answer.stop, any(isinstance(part, Refused) for part in answer.parts)),
        "stop_sequence": answer.stop_sequence or None,
        "stop_details": None,
        "usage": _all_usage(answer.usage),
        "container": None,
    }


def _block(part: Part) -> dict[str, Any]:
    """A block of an answer, with the fields that the format always has."""
    block = render_said(part)
    match block["type"]:
        case "text":
            return {**block, "citations": None}
        case "tool_use":
            return {**block, "caller": {"type": "direct"}}
    return block


def _all_usage(usage: TokenUsage | None) -> dict[str, Any]:
    return {**render_usage(usage), "inference_geo": None, "server_tool_use": None, "service_tier": "standard"}


def _stop_reason(stop: StopReason, refused: bool) -> str:
    return "refusal" if refused and stop == "stop" else RENDERED_STOPS[stop]


# --- Streams


def render_stream(request: ChatRequest) -> "MessagesStream":
    return MessagesStream()


class MessagesStream:
    """Turns one answer's events into those of the format, in which blocks do not grow by turns: while one is open, what
    belongs to later ones waits."""

    def __init__(self) -> None:
        self._blocks = 0
        self._open: int | None = None
        """The index of the part whose block is open."""
        self._parts: dict[int, PartStarted] = {}
        """Parts that are open or waiting, in their order."""
        self._waiting: dict[int, list[PartGrew]] = {}
        self._ended: set[int] = set()
        self._refused = False

    def write(self, event: StreamEvent) -> Iterator[bytes]:
        match event:
            case Started():
                yield _event("message_start", message=_beginning(event))
            case PartStarted():
                self._refused |= isinstance(event.part, Refused)
                self._parts[event.index] = event
                self._waiting[event.index] = []
                yield from self._go_on()
            case PartGrew() if event.index == self._open:
                yield from self._grow(event)
            case PartGrew() if event.index in self._waiting:
                self._waiting[event.index].append(event)
            case PartEnded():
                self._ended.add(event.index)
                yield from self._go_on()
            case Stopped():
                self._ended.update(self._parts)
                yield from self._go_on()
                stop = {
                    "stop_reason": _stop_reason(event.stop, self._refused),
                    "stop_sequence": event.stop_sequence or None,
                    "stop_details": None,
                    "container": None,
                }
                usage = render_usage(event.usage)
                del usage["cache_creation"]  # no part of this event
                yield _event("message_delta", delta=stop, usage=usage)
                yield _event("message_stop")
            case Broken():
                yield _event("error", error={"type": event.type, "message": event.message})

    def _go_on(self) -> Iterator[bytes]:
        """Closes the open block if its part has ended, opens the next one, and so on."""
        while True:
            if self._open is not None:
                if self._open not in self._ended:
                    return
                yield _event("content_block_stop", index=self._blocks - 1)
                self._ended.discard(self._open)
                del self._parts[self._open]
                self._open = None
            if not self._parts:
                return
            self._open = next(iter(self._parts))
            self._blocks += 1
            yield _event("content_block_start", index=self._blocks - 1, content_block=_opening(self._parts[self._open]))
            for grown in self._waiting.pop(self._open):
                yield from self._grow(grown)

    def _grow(self, grown: PartGrew) -> Iterator[bytes]:
        part = self._parts[grown.index].part
        match part:
            case Thinking():
                if grown.text:
                    yield self._delta({"type": "thinking_delta", "thinking": grown.text})
                if grown.signature:
                    yield self._delta({"type": "signature_delta", "signature": grown.signature})
            case ToolCall():
                yield self._delta({"type": "input_json_delta", "partial_json": grown.text})
            case Text() | Refused():
                yield self._delta({"type": "text_delta", "text": grown.text})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._blocks - 1, delta=delta)


def _event(type: str, **fields: Any) -> bytes:
    return sse.event({"type": type, **fields}, type)


def _beginning(event: Started) -> dict[str, Any]:
    return {
        "id": event.id,
        "type": "message",
        "role": "assistant",
        "model": event.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "usage": _all_usage(event.usage),
        "container": None,
    }


def _opening(started: PartStarted) -> dict[str, Any]:
    """The block as it begins: what is known of a part but does not grow."""
    part = started.part
    if isinstance(part, ToolCall):
        return _block(ToolCall(part.id, part.name, "{}"))
    return _block(part)
