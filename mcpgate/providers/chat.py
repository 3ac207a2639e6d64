"""OpenAI Chat Completions as providers speak it: requests out, answers and streams in. Pure.

Left out, because the format has no place for it and it changes nothing that was said: cache marks (these providers
cache by themselves), a user's name of more than 64 characters (the most that OpenAI takes). Images and files in the
results of tools go into a message of the user that follows, because results are text only."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mcpgate import jsontext
from mcpgate.llm.chat_format import compact, of_type, parse_reasoning, parse_thoughts, parse_usage, render_reasoning
from mcpgate.llm.fields import AnswerFields, Fields
from mcpgate.llm.media import data_url, url_of
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
    text_of,
)

_LONGEST_USER = 64
_STOPS: Mapping[str, StopReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}
_BUDGETS = ((4_096, "low"), (16_384, "medium"))
"""Tokens of reasoning up to which an effort stands for them; above: `high`. The format knows no budget."""


# --- Requests


def render_request(request: ChatRequest) -> dict[str, Any]:
    """Raises Untranslatable."""
    if request.top_k is not None:
        raise Untranslatable("top_k", "OpenAI Chat Completions has no form for it")
    messages = [{"role": "system", "content": _render_content(request.system)}] if request.system else []
    for message in request.messages:
        messages += _render_message(message)
    choice = request.tool_choice if request.tools else None
    body = {
        "model": request.model,
        "messages": messages,
        "tools": [_render_tool(tool) for tool in request.tools] or None,
        "tool_choice": _render_tool_choice(choice) if choice else None,
        "parallel_tool_calls": choice.parallel if choice else None,
        "max_completion_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": list(request.stop) or None,
        "seed": request.seed,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "response_format": _render_output(request.output) if request.output else None,
        "reasoning_effort": _effort(request.reasoning) if request.reasoning else None,
        "verbosity": request.verbosity or None,
        "user": request.user if 0 < len(request.user) <= _LONGEST_USER else None,
        "stream": request.stream or None,
        "stream_options": {"include_usage": True} if request.stream else None,
    }
    return compact(body)


def _render_message(message: Message) -> list[dict[str, Any]]:
    if message.role == "assistant":
        return [_render_assistant(message.parts)]
    results = of_type(message.parts, ToolResult)
    rendered = [_render_result(result) for result in results]
    media = [part for result in results for part in _media_of(result)]
    said = [part for part in message.parts if not isinstance(part, ToolResult)]
    if media or said or not results:
        rendered.append({"role": message.role, "content": _render_content([*media, *said])})
    return rendered


def _render_assistant(parts: Sequence[Part]) -> dict[str, Any]:
    texts, refusals, calls = of_type(parts, Text), of_type(parts, Refused), of_type(parts, ToolCall)
    message: dict[str, Any] = {"role": "assistant", "content": _render_content(texts) if texts or not calls else None}
    for part in parts:
        if isinstance(part, Image | File | ToolResult):
            raise Untranslatable("messages", f"the format allows no {type(part).__name__.lower()} of the assistant")
    message |= render_reasoning(of_type(parts, Thinking))
    if refusals:
        message["refusal"] = "".join(part.text for part in refusals)
    if calls:
        message["tool_calls"] = [_render_tool_call(call) for call in calls]
    return message


def _render_tool_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _render_result(result: ToolResult) -> dict[str, Any]:
    """The format cannot say that a tool failed, so the text does."""
    texts: list[Part] = of_type(result.parts, Text)
    if result.is_error:
        texts[:1] = [Text(f"Error: {text_of(texts[:1])}")]
    return {"role": "tool", "tool_call_id": result.call_id, "content": _render_content(texts)}


def _media_of(result: ToolResult) -> list[Part]:
    media = [part for part in result.parts if not isinstance(part, Text)]
    return [Text(f"From the result of tool call {result.call_id}:"), *media] if media else []


def _render_content(parts: Sequence[Part]) -> str | list[dict[str, Any]]:
    """A string where one suffices: some servers know nothing else."""
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [_render_part(part) for part in parts]


def _render_part(part: Part) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Image():
            image = {"url": url_of(part)}
            return {"type": "image_url", "image_url": image | {"detail": part.detail} if part.detail else image}
        case File():
            if part.url:
                raise Untranslatable("file.url", "OpenAI Chat Completions takes no files by URL")
            name = part.name or "document" + (".pdf" if part.media_type == "application/pdf" else ".txt")
            return {"type": "file", "file": {"filename": name, "file_data": data_url(part.media_type, part.data)}}
        case _:
            raise Untranslatable("messages", f"the format allows no {type(part).__name__.lower()} of the user")


def _render_tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.schema:
        function["parameters"] = dict(tool.schema)
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _render_tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def _render_output(output: JsonOutput) -> dict[str, Any]:
    if output.schema is None:
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": output.name, "schema": dict(output.schema)}
    if output.description:
        schema["description"] = output.description
    if output.strict is not None:
        schema["strict"] = output.strict
    return {"type": "json_schema", "json_schema": schema}


def _effort(reasoning: Reasoning) -> str | None:
    if reasoning.effort or reasoning.budget_tokens is None:
        return reasoning.effort or None
    return next((effort for most, effort in _BUDGETS if reasoning.budget_tokens <= most), "high")


# --- Answers


def parse_answer(body: Mapping[str, Any]) -> ChatAnswer:
    """Raises Untranslatable; ValueError for what is no answer."""
    fields = AnswerFields(body)
    choice = next(fields.each("choices"), None)
    if choice is None:
        fields.wrong("choices", "is empty")
    message = choice.need_object("message")
    _refuse(message)
    parts: list[Any] = [*parse_reasoning(message)]
    if text := message.text("content"):
        parts.append(Text(text))
    if refusal := message.text("refusal"):
        parts.append(Refused(refusal))
    parts += [_parse_tool_call(call) for call in message.each("tool_calls")]
    choice.need("finish_reason")
    return ChatAnswer(
        id=fields.text("id") or _new_id("chatcmpl"),
        model=fields.text("model"),
        parts=tuple(parts),
        stop=_parse_stop(choice, bool(of_type(parts, ToolCall)), bool(refusal)),
        usage=parse_usage(fields.object("usage")),
        created=fields.whole("created") or 0,
    )


def _refuse(message: Fields) -> None:
    for name in ("function_call", "audio"):
        if message.get(name) is not None:
            message.untranslatable(name)


def _parse_tool_call(call: Fields) -> ToolCall:
    _refuse_type(call)
    function = call.need_object("function")
    arguments = function.text("arguments") or "{}"
    return ToolCall(call.text("id") or _new_id("call"), function.need_text("name"), arguments)


def _refuse_type(call: Fields) -> None:
    if (type := call.text("type") or "function") != "function":
        call.untranslatable("type", f"{type[:100]!r} has no form in the client's format")


def _parse_stop(choice: Fields, called: bool, refused: bool) -> StopReason:
    """Some servers say `stop` where there are calls of tools."""
    reason = choice.text("finish_reason")
    if reason not in _STOPS:
        choice.wrong("finish_reason", f"{reason[:100]!r} is unknown")
    if reason == "stop":
        return "tool_calls" if called else "refusal" if refused else "stop"
    return _STOPS[reason]


def _new_id(prefix: str) -> str:
    """For servers that give none."""
    return f"{prefix}_{uuid.uuid4().hex[:24]}"


# --- Streams


def parse_stream() -> "ChatReader":
    return ChatReader()


class ChatReader:
    """Reads the chunks of one answer. Text and reasoning end when something else begins; tool calls, which may grow by
    turns, at the end."""

    def __init__(self) -> None:
        self._started = False
        self._count = 0
        self._speech: PartStarted | None = None
        """The open text, refusal or reasoning."""
        self._thought = 0
        """The provider's index of the newest reasoning."""
        self._calls: dict[int, tuple[PartStarted, ToolCall]] = {}
        """The provider's index of a tool call → the part."""
        self._grown: set[int] = set()
        """Parts that are tool calls and have arguments."""
        self._called = self._refused = self._done = False
        self._stop: StopReason | None = None
        self._usage: TokenUsage | None = None

    def read(self, name: str, data: bytes) -> Iterator[StreamEvent]:
        if data.strip() == b"[DONE]":
            yield from self.end()
            return
        fields = AnswerFields(jsontext.loads(data, "replace"))
        if fields.get("error") is not None:
            yield self._broken(fields)
            return
        if not self._started:
            self._started = True
            id, created = fields.text("id") or _new_id("chatcmpl"), fields.whole("created") or 0
            yield Started(id, fields.text("model"), created=created)
        self._usage = parse_usage(fields.object("usage")) or self._usage
        for choice in fields.each("choices"):
            if choice.whole("index"):
                raise Untranslatable(choice.at("index"), "more than one answer")
            delta = choice.object("delta")
            if delta:
                yield from self._delta(delta)
            if choice.get("finish_reason") is not None:
                yield from self._finish(choice)

    def end(self) -> Iterator[StreamEvent]:
        if not self._done:
            if self._stop is None:
                raise ValueError("the stream ended without a finish_reason")
            self._done = True
            yield from self._end_parts()
            yield Stopped(self._stop, self._usage)

    def _broken(self, fields: Fields) -> Broken:
        self._done = True
        error = fields.get("error")
        if not isinstance(error, Mapping):
            return Broken("api_error", str(error)[:1000])
        type, message = error.get("type"), error.get("message")
        return Broken(type if isinstance(type, str) and type else "api_error", str(message)[:1000])

    def _delta(self, delta: Fields) -> Iterator[StreamEvent]:
        _refuse(delta)
        for index, thought in parse_thoughts(delta):
            yield from self._think(index, thought)
        if text := delta.text("content"):
            yield from self._say(Text(""), text)
        if refusal := delta.text("refusal"):
            self._refused = True
            yield from self._say(Refused(""), refusal)
        for place, call in enumerate(delta.each("tool_calls")):
            yield from self._call(call, place)

    def _think(self, index: int, thought: Thinking) -> Iterator[StreamEvent]:
        if index != self._thought:
            self._thought = index
            yield from self._end_speech()
        if thought.encrypted:
            yield from self._end_speech()
            yield from self._begin(Thinking("", encrypted=thought.encrypted, id=thought.id))
            yield from self._end_speech()
        elif thought.text or thought.signature:
            yield from self._say(Thinking("", id=thought.id), thought.text, thought.signature)

    def _say(self, part: Text | Refused | Thinking, text: str, signature: str = "") -> Iterator[StreamEvent]:
        if self._speech is None or type(self._speech.part) is not type(part):
            yield from self._end_speech()
            yield from self._begin(part)
        yield PartGrew(self._count - 1, text, signature)  # open speech is always the newest part

    def _begin(self, part: Any) -> Iterator[StreamEvent]:
        started = PartStarted(self._count, part)
        self._count += 1
        if not isinstance(part, ToolCall):
            self._speech = started
        yield started

    def _end_speech(self) -> Iterator[StreamEvent]:
        if self._speech:
            yield PartEnded(self._speech.index)
            self._speech = None

    def _call(self, call: Fields, place: int) -> Iterator[StreamEvent]:
        """Some servers give no index, or the same one to all calls; then the id tells them apart."""
        _refuse_type(call)
        index = call.whole("index")
        index = place if index is None else index
        function = call.object("function") or AnswerFields({})
        id, known = call.text("id"), self._calls.get(index)
        if known is None or (id and id != known[1].id):
            yield from self._end_speech()
            if known:
                yield from self._end_call(index)
            part = ToolCall(id or _new_id("call"), function.need_text("name"), "")
            self._called = True
            self._calls[index] = (PartStarted(self._count, part), part)
            yield from self._begin(part)
        if arguments := function.text("arguments"):
            started, _ = self._calls[index]
            self._grown.add(started.index)
            yield PartGrew(started.index, arguments)

    def _end_call(self, index: int) -> Iterator[StreamEvent]:
        started, _ = self._calls.pop(index)
        if started.index not in self._grown:
            yield PartGrew(started.index, "{}")
        yield PartEnded(started.index)

    def _end_parts(self) -> Iterator[StreamEvent]:
        yield from self._end_speech()
        for index in list(self._calls):
            yield from self._end_call(index)

    def _finish(self, choice: Fields) -> Iterator[StreamEvent]:
        yield from self._end_parts()
        self._stop = _parse_stop(choice, self._called, self._refused)
