"""Anthropic Messages as providers speak it: requests out, answers and streams in. Pure.

Left out, because the format has no place for it and it changes nothing that was said: reasoning without a signature of
its own (the API rejects it), the detail of an image, the name of a JSON form. The request is of version 2023-06-01, the
last one that takes sampling parameters."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mcpgate import jsontext
from mcpgate.llm.chat_format import compact
from mcpgate.llm.fields import AnswerFields, Fields
from mcpgate.llm.gemini_format import signed
from mcpgate.llm.media import decode_text
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
    Untranslatable,
)
from mcpgate.llm.messages_format import STOP_REASONS, parse_said, parse_usage, render_said

DEFAULT_MAX_TOKENS = 32_000
"""For clients that set no limit, such as Codex, because the API requires one. Every model since Claude 4 can write as
much; thinking counts."""
_EFFORTS = {"minimal": "low"}
"""The lowest effort of this format is `low`."""


# --- Requests


def render_request(request: ChatRequest) -> dict[str, Any]:
    """Raises Untranslatable."""
    _refuse(request)
    thinking = request.reasoning.budget_tokens or 0 if request.reasoning else 0
    messages = [_render_message(message) for message in request.messages]
    body = {
        "model": request.model,
        "max_tokens": DEFAULT_MAX_TOKENS + thinking if request.max_tokens is None else request.max_tokens,
        "messages": [message for message in messages if message["content"]],
        "system": _render_system(request.system),
        "tools": [_render_tool(tool) for tool in request.tools] or None,
        "tool_choice": _render_tool_choice(request.tool_choice) if request.tools and request.tool_choice else None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop_sequences": list(request.stop) or None,
        "thinking": _render_thinking(request.reasoning) if request.reasoning else None,
        "output_config": _render_output_config(request),
        "metadata": {"user_id": request.user} if request.user else None,
        "stream": request.stream or None,
    }
    return compact(body)


def _refuse(request: ChatRequest) -> None:
    for name in ("seed", "verbosity"):
        if getattr(request, name) not in (None, ""):
            raise Untranslatable(name, "Anthropic Messages has no form for it")
    for name in ("frequency_penalty", "presence_penalty"):
        if getattr(request, name):
            raise Untranslatable(name, "Anthropic Messages has no form for it; only 0 can be translated")
    if request.temperature is not None and request.temperature > 1:
        raise Untranslatable("temperature", f"{request.temperature:g}; Anthropic Messages allows 0 to 1")


def _render_system(system: tuple[Text, ...]) -> str | list[dict[str, Any]] | None:
    blocks = [_render_part(text) for text in system]
    return _plain(system) or blocks or None


def _plain(parts: Sequence[Part]) -> str:
    """The text, if there is nothing else."""
    alone = parts[0] if len(parts) == 1 else None
    return alone.text if isinstance(alone, Text) and alone.cache is None else ""


def _render_message(message: Message) -> dict[str, Any]:
    render = _render_said if message.role == "assistant" else _render_part
    parts = tuple(part for part in message.parts if not _is_left_out(part, message.role))
    blocks = [render(part) for part in parts]
    return {"role": message.role, "content": _plain(parts) or blocks}


def _is_left_out(part: Part, role: str) -> bool:
    """The API rejects reasoning without a signature, or with Gemini's, and empty text of the assistant, which other
    formats send beside tool calls."""
    if isinstance(part, Thinking):
        return not (part.signature or part.encrypted) or signed(part) is not None
    return role == "assistant" and part == Text("")


def _render_said(part: Part) -> dict[str, Any]:
    return _marked(render_said(part), part)


def _marked(block: dict[str, Any], part: Any) -> dict[str, Any]:
    cache = getattr(part, "cache", None)
    return block if cache is None else block | {"cache_control": dict(cache)}


def _render_part(part: Part) -> dict[str, Any]:
    """A block of the user's."""
    match part:
        case Text():
            return _marked({"type": "text", "text": part.text}, part)
        case Image():
            source = {"type": "url", "url": part.url} if part.url else _base64(part.media_type, part.data)
            return _marked({"type": "image", "source": source}, part)
        case File():
            document = {"type": "document", "source": _render_source(part)}
            return _marked(document | {"title": part.name} if part.name else document, part)
        case ToolResult():
            block: dict[str, Any] = {"type": "tool_result", "tool_use_id": part.call_id}
            if part.parts:
                blocks = [_render_part(one) for one in part.parts]
                block["content"] = _plain(part.parts) or blocks
            return _marked(block | {"is_error": True} if part.is_error else block, part)
        case _:
            raise Untranslatable("messages", f"Anthropic Messages allows no {type(part).__name__.lower()} of the user")


def _base64(media_type: str, data: str) -> dict[str, Any]:
    return {"type": "base64", "media_type": media_type, "data": data}


def _render_source(file: File) -> dict[str, Any]:
    if file.url:
        return {"type": "url", "url": file.url}
    if file.media_type == "application/pdf":
        return _base64(file.media_type, file.data)
    if file.media_type.partition(";")[0] == "text/plain":
        try:
            return {"type": "text", "media_type": "text/plain", "data": decode_text(file.data)}
        except ValueError as error:
            raise Untranslatable("file", str(error)) from None
    raise Untranslatable("file", f"{file.media_type[:100]!r}; Anthropic Messages takes application/pdf and text/plain")


def _render_tool(tool: Tool) -> dict[str, Any]:
    schema = {"type": "object", **tool.schema}
    definition: dict[str, Any] = {"name": tool.name, "input_schema": schema}
    if tool.description:
        definition["description"] = tool.description
    if tool.strict is not None:
        definition["strict"] = tool.strict
    return _marked(definition, tool)


def _render_tool_choice(choice: ToolChoice) -> dict[str, Any]:
    rendered: dict[str, Any] = {"type": {"required": "any"}.get(choice.mode, choice.mode)}
    if choice.mode == "tool":
        rendered["name"] = choice.name
    if choice.parallel is not None and choice.mode != "none":
        rendered["disable_parallel_tool_use"] = not choice.parallel
    return rendered


def _render_thinking(reasoning: Reasoning) -> dict[str, Any]:
    if reasoning.effort == "none":
        return {"type": "disabled"}
    thinking: dict[str, Any] = {"type": "adaptive"}
    if reasoning.budget_tokens is not None:
        thinking = {"type": "enabled", "budget_tokens": reasoning.budget_tokens}
    return thinking | {"display": "summarized"} if reasoning.shown else thinking


def _render_output_config(request: ChatRequest) -> dict[str, Any] | None:
    effort = request.reasoning.effort if request.reasoning else ""
    config: dict[str, Any] = {"effort": _EFFORTS.get(effort, effort)} if effort not in ("", "none") else {}
    if request.output:
        config["format"] = _render_format(request.output)
    return config or None


def _render_format(output: JsonOutput) -> dict[str, Any]:
    if output.schema is None:
        raise Untranslatable("response_format.type", "'json_object'; Anthropic Messages needs a JSON schema")
    schema = dict(output.schema)
    if output.description:
        schema.setdefault("description", output.description)
    return {"type": "json_schema", "schema": schema}


# --- Answers


def parse_answer(body: Mapping[str, Any]) -> ChatAnswer:
    """Raises Untranslatable; ValueError for what is no answer."""
    fields = AnswerFields(body)
    if (type := fields.need_text("type")) != "message":
        fields.wrong("type", f"{type[:100]!r} is not 'message'")
    parts: list[Text | Thinking | ToolCall | Refused] = [parse_said(block) for block in fields.each("content")]
    if refused := _parse_refusal(fields):
        parts.append(refused)
    return ChatAnswer(
        id=fields.need_text("id"),
        model=fields.need_text("model"),
        parts=tuple(parts),
        stop=_parse_stop(fields),
        usage=parse_usage(fields.object("usage")),
        stop_sequence=fields.text("stop_sequence"),
    )


def _parse_stop(fields: Fields) -> StopReason:
    reason = fields.need_text("stop_reason")
    if reason not in STOP_REASONS:
        fields.wrong("stop_reason", f"{reason[:100]!r} is unknown")
    return STOP_REASONS[reason]


def _parse_refusal(fields: Fields) -> Refused | None:
    details = fields.object("stop_details")
    explanation = details.text("explanation") if details else ""
    return Refused(explanation) if explanation else None


# --- Streams


def parse_stream() -> "MessagesReader":
    return MessagesReader()


class MessagesReader:
    """Reads the events of one answer."""

    def __init__(self) -> None:
        self._open: dict[int, PartStarted] = {}
        """The provider's index of a block → the part."""
        self._grown: set[int] = set()
        self._count = 0
        self._usage: TokenUsage | None = None
        self._stopped: Stopped | None = None
        self._done = False

    def read(self, name: str, data: bytes) -> Iterator[StreamEvent]:
        fields = AnswerFields(jsontext.loads(data, "replace"))
        match fields.text("type") or name:
            case "message_start":
                message = fields.need_object("message")
                self._usage = parse_usage(message.object("usage"))
                yield Started(message.need_text("id"), message.need_text("model"), self._usage)
            case "content_block_start":
                yield from self._begin(self._index(fields), fields.need_object("content_block"))
            case "content_block_delta":
                yield from self._grow(self._index(fields), fields.need_object("delta"))
            case "content_block_stop":
                yield from self._end(self._index(fields))
            case "message_delta":
                yield from self._delta(fields)
            case "message_stop":
                if self._stopped is None:
                    raise ValueError("message_stop without a stop_reason")
                self._done = True
                yield self._stopped
            case "error":
                error = fields.object("error") or fields
                self._done = True
                yield Broken(error.text("type") or "api_error", error.text("message"))
            # Others, such as `ping`, say nothing; the API announces that it adds more.

    def end(self) -> Iterator[StreamEvent]:
        if not self._done:
            raise ValueError("the stream ended before message_stop")
        return iter(())

    @staticmethod
    def _index(fields: Fields) -> int:
        fields.need("index")
        return fields.whole("index") or 0

    def _begin(self, index: int, block: Fields) -> Iterator[StreamEvent]:
        if index in self._open:
            raise ValueError(f"content block {index} began twice")
        part = parse_said(block)
        match part:
            case Text():
                empty: Any = Text("")
                more = PartGrew(self._count, part.text)
            case Thinking():
                empty = Thinking("", encrypted=part.encrypted)
                more = PartGrew(self._count, part.text, part.signature)
            case ToolCall():
                empty = ToolCall(part.id, part.name, "")
                more = PartGrew(self._count, "" if part.arguments == "{}" else part.arguments)
        started = self._open[index] = PartStarted(self._count, empty)
        self._count += 1
        yield started
        if more.text or more.signature:
            self._grown.add(index)
            yield more

    def _grow(self, index: int, delta: Fields) -> Iterator[StreamEvent]:
        if index not in self._open:
            raise ValueError(f"content block {index} is not open")
        part = self._open[index].index
        match delta.need_text("type"):
            case "text_delta":
                more = PartGrew(part, delta.text("text"))
            case "thinking_delta":
                more = PartGrew(part, delta.text("thinking"))
            case "signature_delta":
                more = PartGrew(part, signature=delta.text("signature"))
            case "input_json_delta":
                more = PartGrew(part, delta.text("partial_json"))
            case type:
                raise Untranslatable("delta.type", f"{type[:100]!r} has no form in the client's format")
        if more.text or more.signature:
            self._grown.add(index)
            yield more

    def _end(self, index: int) -> Iterator[StreamEvent]:
        started = self._open.pop(index, None)
        if started is None:
            raise ValueError(f"content block {index} is not open")
        if isinstance(started.part, ToolCall) and index not in self._grown:
            yield PartGrew(started.index, "{}")
        self._grown.discard(index)
        yield PartEnded(started.index)

    def _delta(self, fields: Fields) -> Iterator[StreamEvent]:
        self._usage = parse_usage(fields.object("usage"), self._usage)
        delta = fields.need_object("delta")
        if refused := _parse_refusal(delta):
            yield PartStarted(self._count, Refused(""))
            yield PartGrew(self._count, refused.text)
            yield PartEnded(self._count)
            self._count += 1
        if delta.get("stop_reason") is not None:
            self._stopped = Stopped(_parse_stop(delta), self._usage, delta.text("stop_sequence"))
        elif self._stopped:
            self._stopped = Stopped(self._stopped.stop, self._usage, self._stopped.stop_sequence)
