"""Gemini's generateContent as clients speak it: requests in, answers and streams out. Pure.

`_TRANSLATED`, `_LEFT_OUT` and `_DEFAULTS` name every field that is accepted; all others are refused by name. The model
and whether a stream is wanted stand in the path, so a request that is read here has neither.

Clients of this format do not send thoughts back, but signatures, which they keep with the part that follows. So the
signature of that part holds the thoughts of another model whole, after a mark. What Gemini itself has signed is left
out: no other model can read it. `VALIDATED` becomes `AUTO`: how exact arguments are is the provider's affair."""

import itertools
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from mcpgate import jsontext
from mcpgate.api.llm import sse
from mcpgate.api.llm.errors import body_of
from mcpgate.llm.chat_format import compact
from mcpgate.llm.fields import Defaults, Fields
from mcpgate.llm.gemini_format import camel, parse_foreign, render_foreign, render_usage, standard_base64
from mcpgate.llm.gemini_schema import to_json_schema
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
    StopReason,
    StreamEvent,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    text_of,
)
from mcpgate.llm.messages_format import parse_arguments

_TRANSLATED = frozenset("contents systemInstruction tools toolConfig generationConfig safetySettings model".split())
_LEFT_OUT = {"labels": "labels of bills"}
_DEFAULTS: Defaults = {
    "serviceTier": ("unspecified", "standard", "SERVICE_TIER_UNSPECIFIED", "SERVICE_TIER_STANDARD"),
    "store": (False,),
}
_CONFIG = frozenset(
    "maxOutputTokens temperature topP topK stopSequences seed frequencyPenalty presencePenalty responseMimeType "
    "responseSchema responseJsonSchema thinkingConfig".split()
)
_CONFIG_DEFAULTS: Defaults = {
    "candidateCount": (1,),
    "responseLogprobs": (False,),
    "logprobs": (0,),
    "responseModalities": ([], ["TEXT"], ["text"]),
    "mediaResolution": ("MEDIA_RESOLUTION_UNSPECIFIED",),
    "enableEnhancedCivicAnswers": (False,),
}
_USUAL = {"temperature": 1, "topP": 0.95, "topK": 64}
"""What Gemini's models take by themselves. Gemini CLI says it in every request; other models have values of their own,
and not all of them take `topK`, or two of these at once."""
_PART_LEFT_OUT = {"partMetadata": "is the client's own"}
_NO_FILTER = ("BLOCK_NONE", "OFF", "HARM_BLOCK_THRESHOLD_UNSPECIFIED")
"""Thresholds of filters that ask for none."""
_DECLARATION_LEFT_OUT = {
    "response": "results say by themselves what they are",
    "responseJsonSchema": "results say by themselves what they are",
}
_BLOCKING: Defaults = {"behavior": ("BLOCKING", "UNSPECIFIED")}
_ONE_RESULT: Defaults = {"willContinue": (False,), "scheduling": ("SCHEDULING_UNSPECIFIED",)}
_LEVELS = ("minimal", "low", "medium", "high", "xhigh")
_STOPS: Mapping[StopReason, str] = {
    "stop": "STOP",
    "tool_calls": "STOP",
    "stop_sequence": "STOP",
    "length": "MAX_TOKENS",
    "pause": "MAX_TOKENS",
    "refusal": "SAFETY",
    "content_filter": "SAFETY",
}
_ERRORS = {"overloaded_error": 503, "rate_limit_error": 429, "rate_limit_exceeded": 429}
"""A provider's word for an error → the status that it stands for; others are 500."""


# --- Requests


def parse_request(body: Mapping[str, Any]) -> ChatRequest:
    """Raises InvalidRequest, Untranslatable."""
    fields = Fields(camel(body))
    fields.only(_TRANSLATED, _LEFT_OUT, _DEFAULTS)
    fields.need("contents")
    fields.text("model")  # the path says which
    for setting in fields.each("safetySettings"):
        if (threshold := setting.text("threshold")) and threshold not in _NO_FILTER:
            setting.untranslatable("threshold", f"{threshold[:100]!r}; the filters are Google's: it can be OFF")
    config = fields.object("generationConfig") or Fields({}, "generationConfig")
    config.only(_CONFIG, (), _CONFIG_DEFAULTS)
    tools = tuple(declared for tool in fields.each("tools") for declared in _parse_tools(tool))
    choice, allowed = _parse_tool_config(fields.object("toolConfig"))
    return ChatRequest(
        model="",
        messages=_parse_contents(fields),
        system=_parse_system(fields.object("systemInstruction")),
        tools=tuple(tool for tool in tools if not allowed or tool.name in allowed),
        tool_choice=choice,
        max_tokens=config.whole("maxOutputTokens"),
        temperature=_unusual(config, "temperature"),
        top_p=_unusual(config, "topP"),
        top_k=_top_k(config),
        stop=config.texts("stopSequences"),
        seed=config.integer("seed"),
        frequency_penalty=config.number("frequencyPenalty"),
        presence_penalty=config.number("presencePenalty"),
        output=_parse_output(config),
        reasoning=_parse_thinking(config.object("thinkingConfig")),
    )


def _unusual(config: Fields, name: str) -> float | None:
    """A number, unless it is the usual one."""
    value = config.number(name)
    return None if value == _USUAL[name] else value


def _top_k(config: Fields) -> int | None:
    """SDKs send it as a float."""
    value = _unusual(config, "topK")
    if value is not None and (value < 0 or not value.is_integer()):
        config.wrong("topK", "must be a whole number")
    return None if value is None else int(value)


def _parse_system(content: Fields | None) -> tuple[Text, ...]:
    if content is None:
        return ()
    content.only(("parts", "role"))
    found = []
    for part in content.each("parts"):
        part.only(("text",), _PART_LEFT_OUT)
        found.append(Text(part.need_text("text")))
    return tuple(found)


def _parse_contents(fields: Fields) -> tuple[Message, ...]:
    """What the model said without a break is one message: SDKs send each chunk of a stream back as a content of its
    own. So are the results of functions and the user's next words."""
    calls = _Calls()
    turns: list[tuple[Any, list[Part]]] = []
    for content in fields.each("contents"):
        content.only(("role", "parts"))
        role, parts = _parse_content(content, calls)
        last = turns[-1] if turns else ("", [])
        if role == last[0] and last[1] and (role == "assistant" or isinstance(last[1][-1], ToolResult)):
            last[1].extend(parts)
        else:
            turns.append((role, parts))
    return tuple(Message(role, tuple(_joined(parts) if role == "assistant" else parts)) for role, parts in turns)


def _parse_content(content: Fields, calls: "_Calls") -> tuple[str, list[Part]]:
    match content.text("role") or "user":
        case "model":
            return "assistant", list(_parse_said(content, calls))
        case "user" | "function":
            return "user", [_parse_heard(part, calls) for part in content.each("parts")]
        case role:
            content.untranslatable("role", f"{role[:100]!r}; it can be user or model")


def _joined(parts: list[Part]) -> Iterator[Part]:
    """Texts that follow each other are one."""
    for is_text, some in itertools.groupby(parts, lambda part: isinstance(part, Text)):
        if is_text:
            yield Text(text_of(list(some)))
        else:
            yield from some


class _Calls:
    """The calls of a conversation. In this format they need no ids: the results are then those of the oldest calls of
    that function."""

    def __init__(self) -> None:
        self._count = 0
        self._known: set[str] = set()
        self._open: dict[str, OrderedDict[str, None]] = {}
        """The name of a function → ids of its calls without a result. Unlike a dict, its first entry is found at once
        where those before it were removed."""

    def called(self, id: str, name: str) -> str:
        """The call's id."""
        self._count += 1
        id = id or f"call_{self._count}"
        self._known.add(id)
        self._open.setdefault(name, OrderedDict())[id] = None
        return id

    def answered(self, id: str, name: str) -> str:
        """The id of the call that a result is of; without one, the result is refused elsewhere, or nobody minds."""
        waiting = self._open.setdefault(name, OrderedDict())
        if id not in self._known:
            id = next(iter(waiting), id or name)
        waiting.pop(id, None)
        return id


def _parse_said(content: Fields, calls: _Calls) -> Iterator[Part]:
    told: list[Part] = []
    """Thoughts in words, which those in the next signature stand for."""
    for part in content.each("parts"):
        kept = _parse_signature(part.text("thoughtSignature"))
        if part.flag("thought"):
            part.only(("text", "thought", "thoughtSignature"), _PART_LEFT_OUT)
            told += [Thinking(part.text("text"))] if part.text("text") else []
            continue
        yield from kept or told
        told = []
        if part.get("functionCall") is not None:
            part.only(("functionCall", "thoughtSignature"), _PART_LEFT_OUT)
            call = part.need_object("functionCall")
            call.only(("id", "name", "args"))
            name = call.need_text("name")
            arguments = jsontext.dumps(call.mapping("args") or {}).decode()
            yield ToolCall(calls.called(call.text("id"), name), name, arguments)
        elif part.get("text") is None:
            yield _parse_medium(part)
        else:
            part.only(("text", "thought", "thoughtSignature"), _PART_LEFT_OUT)
            if text := part.text("text"):
                yield Text(text)
    yield from told


def _parse_signature(signature: str) -> list[Part]:
    """The thoughts that it holds. Raises nothing: what cannot be read is left out."""
    held = parse_foreign(signature) if signature else None
    if held is None:
        return []
    try:
        thoughts = jsontext.loads(held)
        return [Thinking(*thought) for thought in thoughts if all(isinstance(one, str) for one in thought)]
    except (ValueError, TypeError):
        return []


def _render_signature(thoughts: Sequence[Thinking]) -> str:
    return render_foreign(jsontext.dumps([(one.text, one.signature, one.encrypted, one.id) for one in thoughts]))


def _parse_heard(part: Fields, calls: _Calls) -> Part:
    if part.get("functionResponse") is not None:
        part.only(("functionResponse",), _PART_LEFT_OUT)
        return _parse_result(part.need_object("functionResponse"), calls)
    if part.get("text") is not None:
        part.only(("text",), {**_PART_LEFT_OUT, "thoughtSignature": "is of a model"}, {"thought": (False,)})
        return Text(part.text("text"))
    return _parse_medium(part)


def _parse_result(result: Fields, calls: _Calls) -> ToolResult:
    result.only(("id", "name", "response", "parts"), (), _ONE_RESULT)
    parts: list[Any] = []
    response = result.mapping("response") or NOTHING
    key, value = next(iter(response.items())) if len(response) == 1 else ("", response)
    if key not in ("output", "result", "error"):
        key, value = "", response
    if response:
        parts.append(Text(value if isinstance(value, str) else jsontext.dumps(value).decode()))
    parts += [_parse_medium(part) for part in result.each("parts")]
    id = calls.answered(result.text("id"), result.need_text("name"))
    return ToolResult(id, tuple(parts), is_error=key == "error")


def _parse_medium(part: Fields) -> Image | File:
    if part.get("inlineData") is not None:
        part.only(("inlineData",), {**_PART_LEFT_OUT, "thoughtSignature": "is of a model"})
        blob = part.need_object("inlineData")
        blob.only(("mimeType", "data", "displayName"))
        media_type, data = _media_type(blob), standard_base64(blob.need_text("data"))
        if media_type.startswith("image/"):
            return Image(media_type, data=data)
        return File(media_type, data=data, name=blob.text("displayName"))
    if part.get("fileData") is not None:
        part.only(("fileData",), _PART_LEFT_OUT)
        file = part.need_object("fileData")
        file.only(("mimeType", "fileUri", "displayName"))
        media_type, url = _media_type(file), file.need_text("fileUri")
        if _host_of(url) in ("", "generativelanguage.googleapis.com"):
            file.untranslatable("fileUri", f"{url[:100]!r} is stored at Google, where this model cannot read it")
        if media_type.startswith("image/"):
            return Image(media_type, url=url)
        return File(media_type, url=url, name=file.text("displayName"))
    kind = next(iter(sorted(part.value)), "")
    part.untranslatable(str(kind)[:100], "the format of this model's provider has no form for such a part")


def _host_of(url: str) -> str:
    """Empty for what is no web address."""
    try:
        found = urlsplit(url)
    except ValueError:
        return ""
    return (found.hostname or "") if found.scheme in ("http", "https") else ""


def _media_type(holder: Fields) -> str:
    media_type = holder.need_text("mimeType")
    if media_type.startswith(("audio/", "video/")):
        holder.untranslatable("mimeType", f"{media_type[:100]!r}; only images and documents can be translated")
    return media_type


def _parse_tools(tool: Fields) -> Iterator[Tool]:
    for name, value in tool.value.items():
        if name != "functionDeclarations" and value is not None:
            tool.untranslatable(str(name)[:100], "runs at Google only; remove it or use a Gemini model")
    for declaration in tool.each("functionDeclarations"):
        declaration.only(
            ("name", "description", "parameters", "parametersJsonSchema"), _DECLARATION_LEFT_OUT, _BLOCKING
        )
        schema = declaration.mapping("parametersJsonSchema")
        if schema is None and declaration.get("parameters") is not None:
            schema = to_json_schema(declaration.need_object("parameters"))
        name = declaration.need_text("name")
        yield Tool(name, declaration.text("description"), schema or NOTHING)


def _parse_tool_config(config: Fields | None) -> tuple[ToolChoice | None, tuple[str, ...]]:
    """The choice, and the functions that may be called where not all may."""
    if config is None:
        return None, ()
    config.only(("functionCallingConfig",), (), {"includeServerSideToolInvocations": (False,)})
    calling = config.object("functionCallingConfig")
    if calling is None:
        return None, ()
    calling.only(("mode", "allowedFunctionNames"), (), {"streamFunctionCallArguments": (False,)})
    allowed = calling.texts("allowedFunctionNames")
    match (calling.text("mode") or "AUTO").upper():
        case "AUTO" | "VALIDATED" | "MODE_UNSPECIFIED":
            return ToolChoice("auto"), allowed
        case "NONE":
            return ToolChoice("none"), ()
        case "ANY":
            return (ToolChoice("tool", allowed[0]) if len(allowed) == 1 else ToolChoice("required")), allowed
        case mode:
            calling.untranslatable("mode", f"{mode[:100]!r}; it can be AUTO, ANY, NONE or VALIDATED")


def _parse_output(config: Fields) -> JsonOutput | None:
    media_type = config.text("responseMimeType") or "text/plain"
    schema = config.mapping("responseJsonSchema")
    if schema is None and config.get("responseSchema") is not None:
        schema = to_json_schema(config.need_object("responseSchema"))
    if media_type == "text/plain":
        if schema is not None:
            config.wrong("responseMimeType", "must be application/json where the answer has a schema")
        return None
    if media_type != "application/json":
        config.untranslatable("responseMimeType", f"{media_type[:100]!r}; it can be text/plain or application/json")
    return JsonOutput(schema)


def _parse_thinking(thinking: Fields | None) -> Reasoning | None:
    if thinking is None:
        return None
    thinking.only(("includeThoughts", "thinkingBudget", "thinkingLevel"))
    shown, budget = thinking.flag("includeThoughts") or False, thinking.integer("thinkingBudget")
    level = thinking.text("thinkingLevel").lower()
    if level and level != "thinking_level_unspecified":
        if level not in _LEVELS:
            thinking.untranslatable("thinkingLevel", f"{level[:100]!r}; it can be {', '.join(_LEVELS)}")
        return Reasoning(level, shown=shown)
    if budget is None:
        return Reasoning(shown=True) if shown else None
    if budget < 0:
        return Reasoning(adaptive=True, shown=shown)
    return Reasoning(budget_tokens=budget, shown=shown) if budget else Reasoning("none", shown=shown)


# --- Answers


def render_answer(answer: ChatAnswer, request: ChatRequest) -> dict[str, Any]:
    """Raises Untranslatable for arguments of a tool that are no JSON object."""
    writer = _Parts()
    parts = [rendered for part in answer.parts for rendered in writer.whole(part)] + writer.rest()
    refused = any(isinstance(part, Refused) for part in answer.parts)
    whole = _head(answer.id, answer.model) | {"candidates": [_candidate(parts, _finish_reason(answer.stop, refused))]}
    return whole | ({"usageMetadata": render_usage(answer.usage)} if answer.usage else {})


class _Parts:
    """Renders parts; signed thoughts stand in the signature of the part that comes next."""

    def __init__(self) -> None:
        self._thoughts: list[Thinking] = []

    def whole(self, part: Part) -> Iterator[dict[str, Any]]:
        match part:
            case Thinking():
                self.keep(part)
                if part.text:
                    yield _thought(part.text)
            case ToolCall():
                call = {"id": part.id, "name": part.name, "args": parse_arguments(part)}
                yield self.signed({"functionCall": call})
            case Text() | Refused():
                yield self.signed({"text": part.text})

    def keep(self, thinking: Thinking) -> None:
        self._thoughts.append(thinking)

    def signed(self, part: dict[str, Any]) -> dict[str, Any]:
        thoughts, self._thoughts = self._thoughts, []
        if not any(one.signature or one.encrypted for one in thoughts):
            return part
        return part | {"thoughtSignature": _render_signature(thoughts)}

    def rest(self) -> list[dict[str, Any]]:
        """What holds thoughts that nothing has followed."""
        last = self.signed({"text": ""})
        return [last] if len(last) > 1 else []


def _thought(text: str) -> dict[str, Any]:
    return {"text": text, "thought": True}


def _head(id: str, model: str) -> dict[str, Any]:
    return {"modelVersion": model, "responseId": id}


def _candidate(parts: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
    """SDKs take only those contents into a conversation that have parts."""
    content = {"role": "model", "parts": parts or [{"text": ""}]}
    return compact({"content": content, "finishReason": finish, "index": 0})


def _finish_reason(stop: StopReason, refused: bool) -> str:
    return "STOP" if refused and stop == "refusal" else _STOPS[stop]


# --- Streams


def render_stream(request: ChatRequest) -> "GeminiStream":
    return GeminiStream()


class GeminiStream:
    """Turns one answer's events into chunks. Calls are whole in this format, and in their order, so they wait for their
    ends."""

    def __init__(self) -> None:
        self._head = _head("", "")
        self._writer = _Parts()
        self._open: dict[int, Any] = {}
        """Texts and thoughts that are open."""
        self._calls: OrderedDict[int, tuple[ToolCall, list[str]]] = OrderedDict()
        """Calls that are not written, in their order, with their arguments."""
        self._ended: set[int] = set()
        self._refused = False

    def write(self, event: StreamEvent) -> Iterator[bytes]:
        match event:
            case Started():
                self._head = _head(event.id, event.model)
            case PartStarted():
                self._begin(event.index, event.part)
            case PartGrew() if event.index in self._calls:
                self._calls[event.index][1].append(event.text)
            case PartGrew() if event.index in self._open:
                yield from self._grow(event)
            case PartEnded():
                yield from self._end(event.index)
            case Stopped():
                for index in [*self._open, *self._calls]:
                    yield from self._end(index)
                last = self._head | {
                    "candidates": [_candidate(self._writer.rest(), _finish_reason(event.stop, self._refused))]
                }
                yield sse.event(last | ({"usageMetadata": render_usage(event.usage)} if event.usage else {}))
            case Broken():
                yield sse.event(body_of("gemini", _ERRORS.get(event.type, 500), "upstream_error", event.message))

    def _begin(self, index: int, part: Any) -> None:
        if isinstance(part, ToolCall):
            self._calls[index] = (part, [part.arguments])
            return
        self._refused |= isinstance(part, Refused)
        self._open[index] = part

    def _grow(self, event: PartGrew) -> Iterator[bytes]:
        part = self._open[event.index]
        if not isinstance(part, Thinking):
            if event.text:
                yield self._chunk(self._writer.signed({"text": event.text}))
            return
        self._open[event.index] = Thinking(
            part.text + event.text, part.signature + event.signature, part.encrypted, part.id
        )
        if event.text:
            yield self._chunk(_thought(event.text))

    def _end(self, index: int) -> Iterator[bytes]:
        part = self._open.pop(index, None)
        if isinstance(part, Thinking):
            self._writer.keep(part)
        if index in self._calls:
            self._ended.add(index)
        while self._calls and (first := next(iter(self._calls))) in self._ended:
            call, pieces = self._calls.pop(first)
            for rendered in self._writer.whole(ToolCall(call.id, call.name, "".join(pieces) or "{}")):
                yield self._chunk(rendered)

    def _chunk(self, part: dict[str, Any]) -> bytes:
        return sse.event(self._head | {"candidates": [_candidate([part], None)]})
