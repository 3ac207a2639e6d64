"""OpenAI Chat Completions as clients speak it: requests in, answers and streams out. Pure.

`_TRANSLATED`, `_LEFT_OUT` and `_DEFAULTS` name every field that is accepted; all others are refused by name."""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any

from mcpgate.api.llm import sse
from mcpgate.llm.chat_format import (
    EFFORTS,
    REASONING_FIELDS,
    of_type,
    parse_reasoning,
    render_detail,
    render_reasoning,
    render_usage,
)
from mcpgate.llm.fields import Defaults, Fields
from mcpgate.llm.media import parse_file, parse_image
from mcpgate.llm.messages import (
    NOTHING,
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
    StreamEvent,
    Text,
    Thinking,
    TokenUsage,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    text_of,
)

_TRANSLATED = frozenset(
    "model messages tools tool_choice parallel_tool_calls max_tokens max_completion_tokens temperature top_p stop seed "
    "frequency_penalty presence_penalty response_format reasoning_effort verbosity user safety_identifier stream "
    "stream_options".split()
)
_LEFT_OUT = {
    "metadata": "labels of stored answers, and nothing is stored",
    "prediction": "makes the answer faster, not different",
    "prompt_cache_key": "makes the answer cheaper, not different",
    "prompt_cache_options": "makes the answer cheaper, not different",
    "prompt_cache_retention": "makes the answer cheaper, not different",
}
_DEFAULTS: Defaults = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "store": (False,),
}
_MARKS = {"prompt_cache_breakpoint": "makes the answer cheaper, not different"}


# --- Requests


def parse_request(body: Mapping[str, Any]) -> ChatRequest:
    """Raises InvalidRequest, Untranslatable."""
    fields = Fields(body)
    fields.only(_TRANSLATED, _LEFT_OUT, _DEFAULTS)
    system, messages = _parse_conversation(fields)
    options = fields.object("stream_options")
    if options:
        options.only({"include_usage"}, {"include_obfuscation": "only changes the length of events"})
    effort = fields.one_of("reasoning_effort", EFFORTS)
    verbosity = fields.one_of("verbosity", ("low", "medium", "high"))
    limit = fields.whole("max_completion_tokens")
    return ChatRequest(
        model=fields.need_text("model"),
        messages=messages,
        system=system,
        tools=tuple(_parse_tool(tool) for tool in fields.each("tools")),
        tool_choice=_parse_tool_choice(fields),
        max_tokens=limit if limit is not None else fields.whole("max_tokens"),
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        stop=(fields.text("stop"),) if isinstance(fields.get("stop"), str) else fields.texts("stop"),
        seed=fields.integer("seed"),
        frequency_penalty=fields.number("frequency_penalty"),
        presence_penalty=fields.number("presence_penalty"),
        output=_parse_output(fields.object("response_format")),
        reasoning=Reasoning(effort=effort) if effort else None,
        verbosity="" if verbosity == "medium" else verbosity,
        user=fields.text("safety_identifier") or fields.text("user"),
        stream=fields.flag("stream") or False,
        include_usage=bool(options and options.flag("include_usage")),
    )


def _parse_conversation(fields: Fields) -> tuple[tuple[Text, ...], tuple[Message, ...]]:
    """The leading system messages, and the rest. Results of tools and the user's next words are one message."""
    fields.need("messages")
    system: list[Text] = []
    turns: list[tuple[Any, list[Part]]] = []
    for message in fields.each("messages"):
        role = message.need_text("role")
        if role in ("system", "developer"):
            message.only(("role", "content", "cache_control"))
            texts = _marked(message, _parse_texts(message))
            if turns:
                turns.append(("system", texts))
            else:
                system.extend(texts)
        elif role == "assistant":
            turns.append((role, _parse_assistant(message)))
        elif role in ("user", "tool"):
            parts: list[Part] = _parse_user(message) if role == "user" else [_parse_tool_result(message)]
            if turns and turns[-1][1] and isinstance(turns[-1][1][-1], ToolResult):
                turns[-1][1].extend(parts)
            else:
                turns.append(("user", parts))
        else:
            message.untranslatable("role", f"{role[:100]!r}; it can be system, developer, user, assistant or tool")
    return tuple(system), tuple(Message(role, tuple(parts)) for role, parts in turns)


def _parse_user(message: Fields) -> list[Part]:
    message.only(("role", "content", "cache_control"))
    return _marked(message, _parse_content(message))


def _marked(message: Fields, parts: list[Any]) -> list[Any]:
    """With a mark of the whole message on its last part, where agents built on the AI SDK mean it to be."""
    cache = message.mapping("cache_control")
    if cache is None or not parts or not hasattr(parts[-1], "cache"):
        return parts
    return [*parts[:-1], dataclasses.replace(parts[-1], cache=parts[-1].cache or cache)]


def _parse_assistant(message: Fields) -> list[Part]:
    message.only(
        {"role", "content", "refusal", "tool_calls", "cache_control"} | REASONING_FIELDS,
        {"annotations": "of an earlier answer"},
    )
    parts: list[Part] = [*parse_reasoning(message)]
    if message.get("content") not in (None, ""):
        parts += _parse_content(message)
    if refusal := message.text("refusal"):
        parts.append(Refused(refusal))
    parts += [_parse_tool_call(call) for call in message.each("tool_calls")]
    return _marked(message, parts)


def _parse_tool_call(call: Fields) -> ToolCall:
    if (type := call.text("type") or "function") != "function":
        call.untranslatable("type", f"{type[:100]!r}; it can be function")
    call.only(("id", "type", "function", "cache_control"), {"index": "is its place in the list"})
    function = call.need_object("function")
    function.only(("name", "arguments"))
    name, arguments = function.need_text("name"), function.text("arguments") or "{}"
    return ToolCall(call.need_text("id"), name, arguments, call.mapping("cache_control"))


def _parse_tool_result(message: Fields) -> ToolResult:
    message.only(("role", "content", "tool_call_id", "cache_control"), {"name": "is that of the call"})
    parts: Any = tuple(_parse_content(message))
    return ToolResult(message.need_text("tool_call_id"), parts, cache=message.mapping("cache_control"))


def _parse_texts(message: Fields) -> list[Text]:
    parts = _parse_content(message)
    for index, part in enumerate(parts):
        if not isinstance(part, Text):
            message.untranslatable(f"content[{index}]", "must be text")
    return of_type(parts, Text)


def _parse_content(message: Fields) -> list[Part]:
    content = message.need("content")
    if isinstance(content, str):
        return [Text(content)]
    return [_parse_part(part) for part in message.each("content")]


def _parse_part(part: Fields) -> Text | Image | File | Refused:
    type = part.need_text("type")
    cache = part.mapping("cache_control")
    if type == "text":
        part.only(("type", "text", "cache_control"), _MARKS)
        part.need("text")
        return Text(part.text("text"), cache)
    if type == "image_url":
        part.only(("type", "image_url", "cache_control"), _MARKS)
        image = part.need_object("image_url")
        image.only(("url", "detail"))
        return parse_image(image, "url", image.text("detail"), cache)
    if type == "file":
        part.only(("type", "file", "cache_control"), _MARKS)
        file = part.need_object("file")
        file.only(("file_data", "filename"))
        return parse_file(file, "file_data", file.text("filename"), cache)
    if type == "refusal":
        part.only(("type", "refusal"))
        return Refused(part.need_text("refusal"))
    part.untranslatable("type", f"{type[:100]!r}; it can be text, image_url, file or refusal")


def _parse_tool(tool: Fields) -> Tool:
    if (type := tool.need_text("type")) != "function":
        tool.untranslatable("type", f"{type[:100]!r} has no form in the format of this model's provider")
    tool.only(("type", "function", "cache_control"))
    function = tool.need_object("function")
    function.only(("name", "description", "parameters", "strict"))
    return Tool(
        name=function.need_text("name"),
        description=function.text("description"),
        schema=function.mapping("parameters") or NOTHING,
        strict=function.flag("strict"),
        cache=tool.mapping("cache_control"),
    )


def _parse_tool_choice(fields: Fields) -> ToolChoice | None:
    parallel, choice = fields.flag("parallel_tool_calls"), fields.get("tool_choice")
    if choice is None:
        return None if parallel is None else ToolChoice(parallel=parallel)
    if isinstance(choice, str):
        mode: Any = fields.one_of("tool_choice", ("auto", "none", "required")) or "auto"
        return ToolChoice(mode, parallel=parallel)
    named = fields.need_object("tool_choice")
    if (type := named.need_text("type")) != "function":
        named.untranslatable("type", f"{type[:100]!r}; it can be function")
    named.only(("type", "function"))
    return ToolChoice("tool", named.need_object("function").need_text("name"), parallel)


def _parse_output(format: Fields | None) -> JsonOutput | None:
    if format is None or (type := format.need_text("type")) == "text":
        return None
    if type not in ("json_object", "json_schema"):
        format.untranslatable("type", f"{type[:100]!r}; it can be text, json_object or json_schema")
    format.only(("type", "json_schema"))
    if type == "json_object":
        return JsonOutput()
    schema = format.need_object("json_schema")
    schema.only(("name", "description", "schema", "strict"))
    return JsonOutput(
        schema=schema.mapping("schema") or NOTHING,
        name=schema.text("name") or "answer",
        strict=schema.flag("strict"),
        description=schema.text("description"),
    )


# --- Answers


def render_answer(answer: ChatAnswer, request: ChatRequest) -> dict[str, Any]:
    refusals = of_type(answer.parts, Refused)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text_of(answer.parts) if of_type(answer.parts, Text) else None,
        "refusal": "".join(part.text for part in refusals) if refusals else None,
        **render_reasoning(of_type(answer.parts, Thinking)),
    }
    if calls := of_type(answer.parts, ToolCall):
        message["tool_calls"] = [_render_tool_call(call) for call in calls]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_reason(answer.stop, bool(refusals)),
    }
    whole: dict[str, Any] = {
        "id": answer.id,
        "object": "chat.completion",
        "created": answer.created or int(time.time()),
        "model": answer.model,
        "choices": [choice],
    }
    return whole | ({"usage": render_usage(answer.usage)} if answer.usage else {})


def _render_tool_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def finish_reason(stop: str, refused: bool) -> str:
    """A refusal in words ends like any answer; one without is what the format calls a filter. `pause` becomes
    `length`: the answer is not finished."""
    if stop == "refusal":
        return "stop" if refused else "content_filter"
    return {"stop_sequence": "stop", "pause": "length"}.get(stop, stop)


# --- Streams


def render_stream(request: ChatRequest) -> "ChatStream":
    return ChatStream(request.include_usage)


class ChatStream:
    """Turns one answer's events into chunks. Parts may grow by turns, so nothing waits."""

    def __init__(self, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._head: dict[str, Any] = {"id": "", "object": "chat.completion.chunk", "created": 0, "model": ""}
        self._parts: dict[int, Text | Thinking | ToolCall | Refused] = {}
        self._calls: dict[int, int] = {}
        """The index of a part that is a tool call → its index among the tool calls."""
        self._thoughts: dict[int, int] = {}
        """The same for reasoning."""
        self._refused = False

    def write(self, event: StreamEvent) -> Iterator[bytes]:
        match event:
            case Started():
                created = event.created or int(time.time())
                self._head |= {"id": event.id, "created": created, "model": event.model}
                yield self._delta({"role": "assistant", "content": "", "refusal": None})
            case PartStarted():
                yield from self._begin(event.index, event.part)
            case PartGrew():
                yield from self._grow(event)
            case PartEnded():
                self._parts.pop(event.index, None)
            case Stopped():
                yield from self._stop(event)
            case Broken():
                error = {"message": event.message, "type": event.type, "param": None, "code": None}
                yield sse.event({"error": error})

    def _begin(self, index: int, part: Text | Thinking | ToolCall | Refused) -> Iterator[bytes]:
        self._parts[index] = part
        match part:
            case ToolCall():
                self._calls[index] = len(self._calls)
                call = {"index": self._calls[index], **_render_tool_call(part)}
                yield self._delta({"tool_calls": [call]})
            case Thinking():
                self._thoughts[index] = len(self._thoughts)
                if part.text or part.encrypted:
                    yield self._thought(index, part)
            case Refused():
                self._refused = True

    def _grow(self, event: PartGrew) -> Iterator[bytes]:
        match self._parts.get(event.index):
            case Text():
                yield self._delta({"content": event.text})
            case Refused():
                yield self._delta({"refusal": event.text})
            case ToolCall():
                call = {"index": self._calls[event.index], "function": {"arguments": event.text}}
                yield self._delta({"tool_calls": [call]})
            case Thinking() as part:
                yield self._thought(event.index, Thinking(event.text, event.signature, id=part.id))

    def _thought(self, index: int, piece: Thinking) -> bytes:
        """More of some reasoning. Clients put the pieces of the details together by their index."""
        delta: dict[str, Any] = {"reasoning_content": piece.text} if piece.text else {}
        return self._delta(delta | {"reasoning_details": [render_detail(piece, self._thoughts[index])]})

    def _stop(self, event: Stopped) -> Iterator[bytes]:
        yield self._delta({}, finish_reason(event.stop, self._refused))
        if self._include_usage:
            usage = render_usage(event.usage or TokenUsage())
            yield sse.event(self._head | {"choices": [], "usage": usage})
        yield sse.DONE

    def _delta(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = self._head | {"choices": [choice]}
        return sse.event(chunk | {"usage": None} if self._include_usage else chunk)
