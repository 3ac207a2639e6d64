"""Gemini's generateContent as providers speak it: requests out, answers and streams in. Pure.

Left out, because the format has no place for it and it changes nothing that was said: cache marks (Gemini caches by
itself), the text of reasoning and signatures of other models, whom the client asks for, the detail of an image, names
of files and of JSON forms. Instructions that come later in the conversation are words of the user. That only one tool
may be called at a time is told to the model in words."""

import mimetypes
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from mcpgate import jsontext
from mcpgate.llm.chat_format import compact
from mcpgate.llm.fields import AnswerFields, Fields
from mcpgate.llm.gemini_format import UNSIGNED, is_before_3, parse_usage, sign, signed
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
from mcpgate.llm.messages_format import parse_arguments

_ONE_CALL = "Call at most one function at a time."
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 24_576, "max": 24_576}
"""What Google's own OpenAI-compatible endpoint makes of efforts, for models that think by a budget."""
_LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "HIGH", "max": "HIGH"}
"""HIGH is the highest that all models have."""
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "tool": "ANY"}
_STOPS: Mapping[str, StopReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(
        ("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"), "content_filter"
    ),
}
"""Others, such as MALFORMED_FUNCTION_CALL, mean that there is no good answer."""
_UNREADABLE = (
    *("inlineData", "fileData", "functionResponse", "executableCode", "codeExecutionResult"),
    *("toolCall", "toolResponse"),
)
"""What else a part of an answer can be."""


# --- Requests


def render_request(request: ChatRequest) -> dict[str, Any]:
    """Raises Untranslatable. The model and whether a stream is wanted are said in the path."""
    if request.verbosity:
        raise Untranslatable("verbosity", "Gemini has no form for it")
    choice = request.tool_choice if request.tools else None
    system = [{"text": text.text} for text in request.system if text.text]
    if choice and choice.parallel is False:
        system.append({"text": _ONE_CALL})
    return compact(
        {
            "systemInstruction": {"parts": system} if system else None,
            "contents": _render_contents(request),
            "tools": [{"functionDeclarations": [_render_tool(tool) for tool in request.tools]}]
            if request.tools
            else None,
            "toolConfig": _render_tool_config(choice, request.tools),
            "generationConfig": _render_config(request) or None,
        }
    )


def _render_config(request: ChatRequest) -> dict[str, Any]:
    return compact(
        {
            "maxOutputTokens": request.max_tokens,
            "temperature": request.temperature,
            "topP": request.top_p,
            "topK": request.top_k,
            "stopSequences": list(request.stop) or None,
            "seed": request.seed,
            "frequencyPenalty": request.frequency_penalty,
            "presencePenalty": request.presence_penalty,
            "thinkingConfig": _render_thinking(request.reasoning, request.model) if request.reasoning else None,
            **(_render_output(request.output) if request.output else {}),
        }
    )


def _render_contents(request: ChatRequest) -> list[dict[str, Any]]:
    contents = []
    names: dict[str, str] = {}
    """The id of a call → its tool, which results name too."""
    for message in request.messages:
        if message.role == "assistant":
            names |= {part.id: part.name for part in message.parts if isinstance(part, ToolCall)}
            parts = _render_said(message, request.model)
        else:
            parts = _render_heard(message, names, request.model)
        if parts:
            contents.append({"role": "model" if message.role == "assistant" else "user", "parts": parts})
    return contents


def _render_said(message: Message, model: str) -> list[dict[str, Any]]:
    """Each signature stands with the part that it came with, wherever other formats have kept it."""
    found = [one for part in message.parts if isinstance(part, Thinking) and (one := signed(part))]
    of_calls = {place: signature for place, signature in found if place is not None}
    of_text = [signature for place, signature in found if place is None]
    parts: list[dict[str, Any]] = []
    calls = 0
    for part in message.parts:
        match part:
            case Thinking() | Text(""):
                pass
            case Text() | Refused():
                parts.append({"text": part.text})
            case ToolCall():
                rendered = _render_call(part)
                signature = of_calls.get(calls)
                if signature is None and calls == 0 and not is_before_3(model):
                    signature = UNSIGNED
                parts.append(rendered | {"thoughtSignature": signature} if signature else rendered)
                calls += 1
            case ToolResult():
                raise Untranslatable("messages", "the format allows no toolresult of the assistant")
            case _:
                parts.append(_render_medium(part))
    texts = [part for part in parts if "text" in part]
    for text, signature in zip(texts, of_text, strict=False):
        text["thoughtSignature"] = signature
    return parts + [{"text": "", "thoughtSignature": signature} for signature in of_text[len(texts) :]]


def _render_call(call: ToolCall) -> dict[str, Any]:
    return {"functionCall": {"id": call.id, "name": call.name, "args": parse_arguments(call)}}


def _render_heard(message: Message, names: Mapping[str, str], model: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    media: list[dict[str, Any]] = []
    """Of results, for models that take none within them."""
    for part in message.parts:
        match part:
            case ToolResult():
                rendered, beside = _render_result(part, names, model)
                parts.append(rendered)
                media += beside
            case Text(""):
                pass
            case Text():
                parts.append({"text": part.text})
            case Image() | File():
                parts.append(_render_medium(part))
            case _:
                raise Untranslatable("messages", f"Gemini allows no {type(part).__name__.lower()} of the user")
    results = sum(isinstance(part, ToolResult) for part in message.parts)
    return [*parts[:results], *media, *parts[results:]] if media else parts


def _render_result(
    result: ToolResult, names: Mapping[str, str], model: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The result, and what has to follow it."""
    if result.call_id not in names:
        raise Untranslatable("messages", f"the result of {result.call_id[:100]!r} follows no call of that id")
    response: dict[str, Any] = {"id": result.call_id, "name": names[result.call_id]}
    response["response"] = {"error" if result.is_error else "output": text_of(result.parts)}
    media = [_render_medium(part) for part in result.parts if not isinstance(part, Text)]
    if media and not is_before_3(model):
        return {"functionResponse": response | {"parts": media}}, []
    told = [{"text": f"From the result of tool call {result.call_id}:"}] if media else []
    return {"functionResponse": response}, [*told, *media]


def _render_medium(part: Part) -> dict[str, Any]:
    if not isinstance(part, Image | File):
        raise Untranslatable("messages", f"Gemini allows no {type(part).__name__.lower()} here")
    if not part.url:
        return {"inlineData": {"mimeType": part.media_type, "data": part.data}}
    media_type = part.media_type or mimetypes.guess_type(urlsplit(part.url).path)[0]
    if not media_type:
        name = "image" if isinstance(part, Image) else "file"
        raise Untranslatable(f"{name}.url", "Gemini must be told the media type, and the address does not tell it")
    return {"fileData": {"mimeType": media_type, "fileUri": part.url}}


def _render_tool(tool: Tool) -> dict[str, Any]:
    declaration: dict[str, Any] = {"name": tool.name}
    if tool.description:
        declaration["description"] = tool.description
    if tool.schema:
        declaration["parametersJsonSchema"] = dict(tool.schema)
    return declaration


def _render_tool_config(choice: ToolChoice | None, tools: Sequence[Tool]) -> dict[str, Any] | None:
    """Arguments of `ANY` always have the form that was declared; those of `AUTO` do as `VALIDATED`."""
    mode = _MODES[choice.mode] if choice else "AUTO"
    if mode == "AUTO" and any(tool.strict for tool in tools):
        mode = "VALIDATED"
    elif choice is None:
        return None
    config: dict[str, Any] = {"mode": mode}
    if choice and choice.mode == "tool":
        config["allowedFunctionNames"] = [choice.name]
    return {"functionCallingConfig": config}


def _render_output(output: JsonOutput) -> dict[str, Any]:
    if output.schema is None:
        return {"responseMimeType": "application/json"}
    schema = dict(output.schema)
    if output.description:
        schema.setdefault("description", output.description)
    return {"responseMimeType": "application/json", "responseJsonSchema": schema}


def _render_thinking(reasoning: Reasoning, model: str) -> dict[str, Any] | None:
    config: dict[str, Any] = {"includeThoughts": True} if reasoning.shown else {}
    if reasoning.budget_tokens is not None:
        config["thinkingBudget"] = reasoning.budget_tokens
    elif reasoning.effort == "none" or (reasoning.effort and is_before_3(model)):
        config["thinkingBudget"] = _BUDGETS[reasoning.effort]
    elif reasoning.effort:
        config["thinkingLevel"] = _LEVELS[reasoning.effort]
    elif reasoning.adaptive and is_before_3(model):
        config["thinkingBudget"] = -1
    return config or None


# --- Answers


def parse_answer(body: Mapping[str, Any]) -> ChatAnswer:
    """Raises Untranslatable; ValueError for what is no answer."""
    reader = GeminiReader()
    events = [*reader.read_chunk(AnswerFields(body)), *reader.end()]
    parts: dict[int, Any] = {}
    started, stopped = events[0], events[-1]
    if not isinstance(started, Started) or not isinstance(stopped, Stopped):
        raise ValueError("an error in place of an answer")
    for event in events:
        match event:
            case PartStarted():
                parts[event.index] = event.part
            case PartGrew():
                parts[event.index] = _grown(parts[event.index], event)
    return ChatAnswer(started.id, started.model, tuple(parts.values()), stopped.stop, stopped.usage)


def _grown(part: Any, more: PartGrew) -> Any:
    match part:
        case ToolCall():
            return ToolCall(part.id, part.name, part.arguments + more.text)
        case Thinking():
            return Thinking(part.text + more.text, part.signature + more.signature)
        case _:
            return Text(part.text + more.text)


# --- Streams


def parse_stream() -> "GeminiReader":
    return GeminiReader()


class GeminiReader:
    """Reads the chunks of one answer, each of which has the form of a whole one. The signature of a call becomes that
    of the thought before it; the signature of a text, a thought after it."""

    def __init__(self) -> None:
        self._started = self._done = False
        self._count = 0
        self._speech: PartStarted | None = None
        """The open text or thought."""
        self._calls = 0
        self._stop: StopReason | None = None
        self._usage: TokenUsage | None = None

    def read(self, name: str, data: bytes) -> Iterator[StreamEvent]:
        yield from self.read_chunk(AnswerFields(jsontext.loads(data, "replace")))

    def read_chunk(self, fields: Fields) -> Iterator[StreamEvent]:
        if (error := fields.object("error")) is not None:
            self._done = True
            yield Broken(error.text("status") or "INTERNAL", error.text("message"))
            return
        if not self._started:
            self._started = True
            id = fields.text("responseId") or uuid.uuid4().hex
            yield Started(id, fields.text("modelVersion"))
        self._usage = parse_usage(fields.object("usageMetadata")) or self._usage
        feedback = fields.object("promptFeedback")
        if feedback and feedback.get("blockReason"):
            self._stop = "content_filter"
        for candidate in fields.each("candidates"):
            if candidate.whole("index"):
                raise Untranslatable(candidate.at("index"), "more than one answer")
            content = candidate.object("content")
            for part in content.each("parts") if content else ():
                yield from self._part(part)
            if reason := candidate.text("finishReason"):
                self._finish(candidate, reason)

    def end(self) -> Iterator[StreamEvent]:
        if self._done:
            return
        if not self._started or self._stop is None:
            raise ValueError("the answer ended without a finishReason")
        self._done = True
        yield from self._end_speech()
        yield Stopped("tool_calls" if self._calls and self._stop == "stop" else self._stop, self._usage)

    def _finish(self, candidate: Fields, reason: str) -> None:
        if reason not in _STOPS:
            about = candidate.text("finishMessage")
            candidate.wrong("finishReason", f"{reason[:100]!r}" + (f": {about[:200]}" if about else ""))
        self._stop = _STOPS[reason]

    def _part(self, part: Fields) -> Iterator[StreamEvent]:
        for kind in _UNREADABLE:
            if part.get(kind) is not None:
                part.untranslatable(kind)
        signature = part.text("thoughtSignature")
        if part.get("functionCall") is not None:
            yield from self._call(part.need_object("functionCall"), signature)
            return
        if text := part.text("text"):
            yield from self._say(Thinking("") if part.flag("thought") else Text(""), text)
        if signature:
            yield from self._sign(None, signature, after=True)

    def _say(self, part: Text | Thinking, text: str, signature: str = "") -> Iterator[StreamEvent]:
        if self._speech is None or type(self._speech.part) is not type(part):
            yield from self._end_speech()
            yield from self._begin(part)
        yield PartGrew(self._count - 1, text, signature)

    def _sign(self, place: int | None, signature: str, after: bool) -> Iterator[StreamEvent]:
        """`after`: as a thought of its own; else as that of the thought before, if there is one."""
        if after:
            yield from self._end_speech()
        yield from self._say(Thinking(""), "", sign(place, signature))
        yield from self._end_speech()

    def _call(self, call: Fields, signature: str) -> Iterator[StreamEvent]:
        if call.get("partialArgs") is not None or call.get("willContinue"):
            call.untranslatable("partialArgs")
        if signature:
            yield from self._sign(self._calls, signature, after=False)
        yield from self._end_speech()
        self._calls += 1
        id = call.text("id") or f"call_{uuid.uuid4().hex[:24]}"
        yield from self._begin(ToolCall(id, call.need_text("name"), ""), is_speech=False)
        yield PartGrew(self._count - 1, jsontext.dumps(call.mapping("args") or {}).decode())
        yield PartEnded(self._count - 1)

    def _begin(self, part: Any, is_speech: bool = True) -> Iterator[StreamEvent]:
        started = PartStarted(self._count, part)
        self._count += 1
        if is_speech:
            self._speech = started
        yield started

    def _end_speech(self) -> Iterator[StreamEvent]:
        if self._speech:
            yield PartEnded(self._speech.index)
            self._speech = None
