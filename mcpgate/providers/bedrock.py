"""Amazon Bedrock's Converse as providers speak it: requests out, answers and streams in. Pure.

A stream's events have the form of the service's union: `{"contentBlockDelta": {...}}` (see aws.py).

Left out, because the format has no place for it and it changes nothing that was said: reasoning that the model asked
cannot verify, blank text (the API rejects it), cache marks for models that have no cache, the detail of an image, the
user's name. Instructions that come later in the conversation are words of the user, because roles must alternate. That
only one tool may be called at a time, or none of those that the conversation has used, is told to the model in words.
"""

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mcpgate import jsontext
from mcpgate.llm.chat_format import compact
from mcpgate.llm.fields import AnswerFields, Fields
from mcpgate.llm.gemini_format import signed
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
from mcpgate.llm.messages_format import parse_arguments

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,2047}")
_VENDOR = re.compile(r"(?:^|[./])(anthropic|amazon)\.(?:claude|nova)")
_NAMED = re.compile(r"(?:^|/)(?:[a-z-]{2,8}\.)?[a-z0-9]+\.[a-z0-9]")
"""A model's own id, which names who made it; other ids are those of profiles and of models of a customer, which are
taken for Claude's."""
_ONE_CALL, _NO_CALL = "Call at most one tool at a time.", "Do not call any tool."
_EMPTY = "(empty)"
"""The API rejects blank results."""
_IMAGES = {f"image/{name}": name for name in ("png", "jpeg", "gif", "webp")} | {"image/jpg": "jpeg"}
_OFFICE = "application/vnd.openxmlformats-officedocument"
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    f"{_OFFICE}.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    f"{_OFFICE}.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_LONGEST_NAME = 180
_UNNAMED = "document"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9\s()\[\]-]+")
_EFFORTS = {"minimal": "low"}
"""The lowest effort of this format is `low`."""
_STOPS: Mapping[str, StopReason] = {
    "end_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
"""Others, such as malformed_tool_use, mean that there is no good answer."""

Blocks = list[dict[str, Any]]


# --- Requests


def render_request(request: ChatRequest) -> dict[str, Any]:
    """Raises Untranslatable. The model and whether a stream is wanted are said in the path."""
    _refuse(request)
    writer = _Writer(request)
    messages = writer.messages()
    tools, words = _render_tools(request)
    system = [block for text in request.system for block in writer.blocks(text)]
    return compact(
        {
            "messages": messages,
            "system": [*system, *({"text": word} for word in words)] or None,
            "toolConfig": tools,
            "inferenceConfig": compact(
                {
                    "maxTokens": request.max_tokens,
                    "temperature": request.temperature,
                    "topP": request.top_p,
                    "stopSequences": list(request.stop) or None,
                }
            )
            or None,
            "outputConfig": _render_output_config(request),
            "additionalModelRequestFields": _render_more(request) or None,
        }
    )


def cache_wish(model: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The field of a body that asks to keep all of it, unless it has marks of its own."""
    messages = body.get("messages")
    if not messages or not _caches(model) or b'"cachePoint"' in jsontext.dumps(body):
        return {}
    *before, last = messages
    return {"messages": [*before, {**last, "content": [*last["content"], _cache_point({})]}]}


def _refuse(request: ChatRequest) -> None:
    if not _MODEL.fullmatch(request.model):
        raise Untranslatable("model", f"{request.model[:100]!r} is no name of a model at Bedrock")
    for name in ("seed", "verbosity"):
        if getattr(request, name) not in (None, ""):
            raise Untranslatable(name, "Bedrock has no form for it")
    for name in ("frequency_penalty", "presence_penalty"):
        if getattr(request, name):
            raise Untranslatable(name, "Bedrock has no form for it; only 0 can be translated")
    if request.temperature is not None and request.temperature > 1:
        raise Untranslatable("temperature", f"{request.temperature:g}; Bedrock allows 0 to 1")


def _family(model: str) -> str:
    """`claude`, `nova` or `other`: each has words of its own."""
    if found := _VENDOR.search(model):
        return "claude" if found[1] == "anthropic" else "nova"
    return "other" if _NAMED.search(model) else "claude"


def _caches(model: str) -> bool:
    return _family(model) != "other"


def _cache_point(mark: Mapping[str, Any]) -> dict[str, Any]:
    return {"cachePoint": {"type": "default", **({"ttl": "1h"} if mark.get("ttl") == "1h" else {})}}


class _Writer:
    """Writes the parts of one request."""

    def __init__(self, request: ChatRequest) -> None:
        self._request, self._caches = request, _caches(request.model)
        self._names: set[str] = set()
        """Of documents, which must differ."""

    def messages(self) -> list[dict[str, Any]]:
        """Roles take turns. Results of tools come first in theirs."""
        turns: list[tuple[str, list[Blocks]]] = []
        for message in self._request.messages:
            role = "assistant" if message.role == "assistant" else "user"
            written = [blocks for part in message.parts if (blocks := self._part(message, part))]
            if turns and turns[-1][0] == role:
                turns[-1][1].extend(written)
            elif written:
                turns.append((role, written))
        return [
            {"role": role, "content": [block for one in sorted(parts, key=_is_no_result) for block in one]}
            for role, parts in turns
        ]

    def blocks(self, part: Part) -> Blocks:
        """A part of what is said to the model, and its cache mark. None for blank text."""
        match part:
            case Text() if not part.text.strip():
                return []
            case Text():
                block: dict[str, Any] = {"text": part.text}
            case Image():
                block = {"image": _render_image(part)}
            case File():
                block = {"document": self._document(part)}
            case ToolResult():
                return self._result(part)
            case _:
                raise Untranslatable("messages", f"Bedrock allows no {type(part).__name__.lower()} of the user")
        return [block, *self._mark(part.cache)]

    def _part(self, message: Message, part: Part) -> Blocks:
        return self._said(part) if message.role == "assistant" else self.blocks(part)

    def _mark(self, *marks: Mapping[str, Any] | None) -> Blocks:
        """The last of the marks, if any."""
        found = [mark for mark in marks if mark is not None]
        return [_cache_point(found[-1])] if found and self._caches else []

    def _said(self, part: Part) -> Blocks:
        match part:
            case Text() | Refused():
                return self.blocks(part if isinstance(part, Text) else Text(part.text))
            case Thinking():
                return self._thought(part)
            case ToolCall():
                call = {"toolUseId": part.id, "name": part.name, "input": parse_arguments(part)}
                return [{"toolUse": call}, *self._mark(part.cache)]
            case _:
                raise Untranslatable("messages", f"Bedrock allows no {type(part).__name__.lower()} of the assistant")

    def _thought(self, part: Thinking) -> Blocks:
        if _family(self._request.model) != "claude" or signed(part) is not None:
            return []
        if part.encrypted:
            return [{"reasoningContent": {"redactedContent": part.encrypted}}]
        said = {"text": part.text, "signature": part.signature}
        return [{"reasoningContent": {"reasoningText": said}}] if part.signature else []

    def _result(self, result: ToolResult) -> Blocks:
        """A mark within a result stands after it."""
        content = [self.blocks(part)[0] for part in result.parts if not isinstance(part, Text) or part.text.strip()]
        block: dict[str, Any] = {"toolUseId": result.call_id, "content": content or [{"text": _EMPTY}]}
        if result.is_error:
            block["status"] = "error"
        return [{"toolResult": block}, *self._mark(*(part.cache for part in result.parts), result.cache)]

    def _document(self, file: File) -> dict[str, Any]:
        source = _render_source(file, "file.url")
        format = (
            _DOCUMENTS.get(file.media_type.partition(";")[0].strip().lower()) or file.url.rpartition(".")[2].lower()
        )
        if format not in _DOCUMENTS.values():
            raise Untranslatable("file", f"{file.media_type[:100]!r}; Bedrock takes {', '.join(_DOCUMENTS.values())}")
        return {"format": format, "name": self._name(file.name), "source": source}

    def _name(self, wanted: str) -> str:
        """Made of the letters that are allowed, and its own."""
        plain = " ".join(_NOT_IN_NAMES.sub(" ", wanted).split())[:_LONGEST_NAME].strip() or _UNNAMED
        name, number = plain, 2
        while name in self._names:
            name, number = f"{plain} ({number})", number + 1
        self._names.add(name)
        return name


def _is_no_result(blocks: Blocks) -> bool:
    return "toolResult" not in blocks[0]


def _render_image(image: Image) -> dict[str, Any]:
    source = _render_source(image, "image.url")
    format = _IMAGES.get(image.media_type.lower()) or _IMAGES.get(f"image/{image.url.rpartition('.')[2].lower()}")
    if format is None:
        raise Untranslatable("image", f"{image.media_type[:100]!r}; Bedrock takes png, jpeg, gif and webp")
    return {"format": format, "source": source}


def _render_source(medium: Image | File, field: str) -> dict[str, Any]:
    if not medium.url:
        return {"bytes": medium.data}
    if not medium.url.startswith("s3://"):
        raise Untranslatable(field, f"{medium.url[:100]!r}; Bedrock takes data, or an address of S3 (s3://)")
    return {"s3Location": {"uri": medium.url}}


def _render_tools(request: ChatRequest) -> tuple[dict[str, Any] | None, list[str]]:
    """The tools, and what is said about them in words. The API wants a definition of every tool that the conversation
    has called, also if none may be called."""
    choice = request.tool_choice or ToolChoice()
    called = {part.name for one in request.messages for part in one.parts if isinstance(part, ToolCall)}
    has_results = any(isinstance(part, ToolResult) for one in request.messages for part in one.parts)
    if not request.tools or choice.mode == "none":
        if not called and not has_results:
            return None, []
        known = request.tools or tuple(Tool(name) for name in sorted(called)) or (Tool("none"),)
        return {"tools": _render_each(known, request.model)}, [_NO_CALL]
    config: dict[str, Any] = {"tools": _render_each(request.tools, request.model)}
    if request.tool_choice is not None and choice.mode != "auto":
        config["toolChoice"] = {"tool": {"name": choice.name}} if choice.mode == "tool" else {"any": {}}
    return config, [_ONE_CALL] if choice.parallel is False else []


def _render_each(tools: Sequence[Tool], model: str) -> Blocks:
    marks = _family(model) == "claude"
    rendered: Blocks = []
    for tool in tools:
        spec: dict[str, Any] = {"name": tool.name, "inputSchema": {"json": {"type": "object", **tool.schema}}}
        if tool.description:
            spec["description"] = tool.description
        if tool.strict:
            spec["strict"] = True
        rendered.append({"toolSpec": spec})
        if tool.cache is not None and marks:
            rendered.append(_cache_point(tool.cache))
    return rendered


def _render_output_config(request: ChatRequest) -> dict[str, Any] | None:
    effort = request.reasoning.effort if request.reasoning and _family(request.model) != "nova" else ""
    config: dict[str, Any] = {"effort": _EFFORTS.get(effort, effort)} if effort not in ("", "none") else {}
    if request.output:
        config["textFormat"] = _render_format(request.output)
    return config or None


def _render_format(output: JsonOutput) -> dict[str, Any]:
    if output.schema is None:
        raise Untranslatable("response_format.type", "'json_object'; Bedrock needs a JSON schema")
    schema: dict[str, Any] = {"schema": jsontext.dumps(output.schema).decode(), "name": output.name}
    if output.description:
        schema["description"] = output.description
    return {"type": "json_schema", "structure": {"jsonSchema": schema}}


def _render_more(request: ChatRequest) -> dict[str, Any]:
    """What each family of models has its own words for."""
    family = _family(request.model)
    more: dict[str, Any] = {}
    if request.top_k is not None:
        if family not in ("claude", "nova"):
            raise Untranslatable("top_k", f"Bedrock has no form for it for {request.model[:100]}")
        more = {"top_k": request.top_k} if family == "claude" else {"inferenceConfig": {"topK": request.top_k}}
    if request.reasoning:
        more |= _render_thinking(request.reasoning, family, request.model)
    return more


def _render_thinking(reasoning: Reasoning, family: str, model: str) -> dict[str, Any]:
    if family == "claude":
        thinking: dict[str, Any] = {"type": "adaptive"}
        if reasoning.effort == "none":
            return {"thinking": {"type": "disabled"}}
        if reasoning.budget_tokens is not None:
            thinking = {"type": "enabled", "budget_tokens": reasoning.budget_tokens}
        return {"thinking": thinking | {"display": "summarized"} if reasoning.shown else thinking}
    if reasoning.budget_tokens is not None:
        raise Untranslatable("reasoning", f"a budget of tokens is for Claude; for {model[:100]}, say an effort")
    if family == "nova" and reasoning.effort:
        if reasoning.effort == "none":
            return {"reasoningConfig": {"type": "disabled"}}
        most = {"minimal": "low", "xhigh": "high", "max": "high"}.get(reasoning.effort, reasoning.effort)
        return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": most}}
    if reasoning.effort == "none":
        raise Untranslatable("reasoning", f"'none'; Bedrock has no form for it for {model[:100]}")
    return {}


# --- Answers


def parse_answer(body: Mapping[str, Any]) -> ChatAnswer:
    """Raises Untranslatable; ValueError for what is no answer. It says neither its id nor the model."""
    fields = AnswerFields(body)
    message = fields.need_object("output").need_object("message")
    message.need("content")
    return ChatAnswer(
        id=_new_id(),
        model="",
        parts=tuple(_parse_said(block) for block in message.each("content")),
        stop=_parse_stop(fields),
        usage=_parse_usage(fields.object("usage")),
    )


def _new_id() -> str:
    return f"msg_bdrk_{uuid.uuid4().hex[:24]}"


def _parse_said(block: Fields) -> Text | Thinking | ToolCall:
    block.only(("text", "toolUse", "reasoningContent"))
    if (call := block.object("toolUse")) is not None:
        _check_call(call)
        arguments = jsontext.dumps(call.mapping("input") or {}).decode()
        return ToolCall(call.need_text("toolUseId"), call.need_text("name"), arguments)
    if (reasoning := block.object("reasoningContent")) is not None:
        if reasoning.get("redactedContent") is not None:
            return Thinking("", encrypted=reasoning.need_text("redactedContent"))
        said = reasoning.need_object("reasoningText")
        return Thinking(said.text("text"), signature=said.text("signature"))
    block.need("text")
    return Text(block.text("text"))


def _check_call(call: Fields) -> None:
    if type := call.text("type"):
        call.untranslatable("type", f"{type[:100]!r} has no form in the client's format")


def _parse_stop(fields: Fields) -> StopReason:
    reason = fields.need_text("stopReason")
    if reason not in _STOPS:
        fields.wrong("stopReason", f"{reason[:100]!r}")
    return _STOPS[reason]


def _parse_usage(usage: Fields | None) -> TokenUsage | None:
    """The format counts cached tokens apart."""
    if usage is None:
        return None
    read, write = usage.whole("cacheReadInputTokens") or 0, usage.whole("cacheWriteInputTokens") or 0
    kept = sum(one.whole("inputTokens") or 0 for one in usage.each("cacheDetails") if one.text("ttl") == "1h")
    return TokenUsage(
        input=(usage.whole("inputTokens") or 0) + read + write,
        output=usage.whole("outputTokens") or 0,
        cache_read=read,
        cache_write=write,
        cache_write_1h=min(kept, write),
    )


# --- Streams


def parse_stream() -> "BedrockReader":
    return BedrockReader()


class BedrockReader:
    """Reads the events of one answer."""

    def __init__(self) -> None:
        self._open: dict[int, PartStarted] = {}
        """The provider's index of a block → the part."""
        self._grown: set[int] = set()
        self._count = 0
        self._usage: TokenUsage | None = None
        self._stop: StopReason | None = None
        self._done = False

    def read(self, name: str, data: bytes) -> Iterator[StreamEvent]:
        fields = AnswerFields(jsontext.loads(data, "replace"))
        if (error := fields.object("error")) is not None:
            self._done = True
            yield Broken(error.text("type") or "internalServerException", error.text("message"))
        elif fields.get("messageStart") is not None:
            yield Started(_new_id(), "")
        elif (started := fields.object("contentBlockStart")) is not None:
            yield from self._begin(self._index(started), started.object("start"))
        elif (more := fields.object("contentBlockDelta")) is not None:
            yield from self._grow(self._index(more), more.need_object("delta"))
        elif (ended := fields.object("contentBlockStop")) is not None:
            yield from self._end(self._index(ended))
        elif (stopped := fields.object("messageStop")) is not None:
            self._stop = _parse_stop(stopped)
        elif (about := fields.object("metadata")) is not None:
            self._usage = _parse_usage(about.object("usage"))
        # Others say nothing that is known today.

    def end(self) -> Iterator[StreamEvent]:
        """The usage comes after the reason, so that both are told at the end."""
        if self._done:
            return
        if self._stop is None:
            raise ValueError("the stream ended before messageStop")
        self._done = True
        for index in sorted(self._open):
            yield from self._end(index)
        yield Stopped(self._stop, self._usage)

    @staticmethod
    def _index(fields: Fields) -> int:
        fields.need("contentBlockIndex")
        return fields.whole("contentBlockIndex") or 0

    def _begin(self, index: int, start: Fields | None) -> Iterator[StreamEvent]:
        """Only calls of tools say how they begin."""
        if start is None or not start.value:
            return
        start.only(("toolUse",))
        call = start.need_object("toolUse")
        _check_call(call)
        yield from self._open_part(index, ToolCall(call.need_text("toolUseId"), call.need_text("name"), ""))

    def _open_part(self, index: int, part: Any) -> Iterator[StreamEvent]:
        if index in self._open:
            raise ValueError(f"content block {index} began twice")
        started = self._open[index] = PartStarted(self._count, part)
        self._count += 1
        yield started

    def _grow(self, index: int, delta: Fields) -> Iterator[StreamEvent]:
        delta.only(("text", "toolUse", "reasoningContent"))
        if (call := delta.object("toolUse")) is not None:
            yield from self._more(index, ToolCall, None, call.text("input"))
        elif (reasoning := delta.object("reasoningContent")) is not None:
            if redacted := reasoning.text("redactedContent"):
                yield from self._open_part(index, Thinking("", encrypted=redacted))
            else:
                more = reasoning.text("text"), reasoning.text("signature")
                yield from self._more(index, Thinking, Thinking(""), *more)
        else:
            yield from self._more(index, Text, Text(""), delta.text("text"))

    def _more(self, index: int, kind: type, empty: Any, text: str, signature: str = "") -> Iterator[StreamEvent]:
        if index not in self._open and empty is not None:
            yield from self._open_part(index, empty)
        started = self._open.get(index)
        if started is None or not isinstance(started.part, kind):
            raise ValueError(f"content block {index} is no {kind.__name__.lower()}")
        if text or signature:
            self._grown.add(index)
            yield PartGrew(started.index, text, signature)

    def _end(self, index: int) -> Iterator[StreamEvent]:
        started = self._open.pop(index, None)
        if started is None:
            return  # a text without a word
        if isinstance(started.part, ToolCall) and index not in self._grown:
            yield PartGrew(started.index, "{}")
        self._grown.discard(index)
        yield PartEnded(started.index)
